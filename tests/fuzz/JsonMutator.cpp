// SPDX-License-Identifier: MIT
#include "JsonMutator.h"

#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

using nlohmann::json;

namespace OpenMMFlow {

namespace {

void collect(json& value, std::vector<json*>& values) {
    values.push_back(&value);
    if (value.is_structured())
        for (json& child : value)
            collect(child, values);
}

json strangeNumber(MutatorRandom& random) {
    static const json numbers = {0, 1, -1, 2, 3, 4, 21, 4096, 2147483647, -2147483648LL, 4294967296LL, 1e-320, 1e-12, 0.5, 0.8656721, 10.0,
            1e6, 1e308, -1e308, -0.0};
    return numbers[random()%numbers.size()];
}

void mutateNumber(json& value, MutatorRandom& random) {
    if (value.is_number_integer() && random()%2 == 0)
        value = value.get<std::int64_t>()%1000000+static_cast<int>(random()%5)-2;
    else
        value = strangeNumber(random);
}

void mutateArray(json& value, MutatorRandom& random) {
    const std::size_t i = random()%value.size(), j = random()%value.size();
    switch (random()%3) {
        case 0:
            value.erase(i);
            break;
        case 1:
            value.push_back(json(value[i]));
            break;
        default:
            std::swap(value[i], value[j]);
    }
}

} // namespace

void mutateText(std::string& text, std::size_t room) {
    std::vector<std::uint8_t> buffer(text.begin(), text.end());
    buffer.resize(text.size()+room);
    if (buffer.empty())
        return;
    buffer.resize(LLVMFuzzerMutate(buffer.data(), text.size(), buffer.size()));
    text.assign(buffer.begin(), buffer.end());
}

void mutateJson(json& document, MutatorRandom& random) {
    std::vector<json*> values;
    collect(document, values);
    json& value = *values[random()%values.size()];
    if (random()%8 == 0)
        value = json(*values[random()%values.size()]);
    else if (value.is_number())
        mutateNumber(value, random);
    else if (value.is_string()) {
        std::string text = value.get<std::string>();
        mutateText(text, 16);
        value = text;
    }
    else if (value.is_array() && !value.empty())
        mutateArray(value, random);
    else if (value.is_object() && !value.empty() && random()%4 == 0)
        value.erase(std::next(value.begin(), random()%value.size()));
}

std::string dumpJson(const json& document) {
    return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::size_t store(const std::string& result, std::uint8_t* data, std::size_t maxSize) {
    if (result.size() > maxSize)
        return 0;
    std::memcpy(data, result.data(), result.size());
    return result.size();
}

} // namespace OpenMMFlow
