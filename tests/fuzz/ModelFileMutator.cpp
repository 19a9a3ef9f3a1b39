// SPDX-License-Identifier: MIT
// How libFuzzer changes model files. Changed at random, most bytes are no safetensors file any more; this takes one apart and changes the
// architecture as JSON or as text, or the weights, and puts it together with lengths that are right and without a checksum.
#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

using nlohmann::json;

/** Of libFuzzer: a random change of some bytes; returns the new size. */
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t maxSize);

namespace {

constexpr std::size_t lengthSize = 8;

using Random = std::minstd_rand;

struct Parts {
    json header;
    std::string architecture, data;
};

bool takeApart(const std::string& bytes, Parts& parts) {
    if (bytes.size() < lengthSize)
        return false;
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), lengthSize);
    if (length > bytes.size()-lengthSize)
        return false;
    parts.header = json::parse(bytes.substr(lengthSize, length), nullptr, false);
    if (!parts.header.is_object() || !parts.header.contains("__metadata__"))
        return false;
    json& metadata = parts.header["__metadata__"];
    if (!metadata.is_object() || !metadata.contains("openmmflow") || !metadata["openmmflow"].is_string())
        return false;
    parts.architecture = metadata["openmmflow"].get<std::string>();
    parts.data = bytes.substr(lengthSize+length);
    return true;
}

std::string putTogether(Parts& parts) {
    parts.header["__metadata__"].erase("crc32");
    parts.header["__metadata__"]["openmmflow"] = parts.architecture;
    const std::string header = parts.header.dump(-1, ' ', false, json::error_handler_t::replace);
    const std::uint64_t length = header.size();
    std::string bytes(lengthSize, '\0');
    std::memcpy(bytes.data(), &length, lengthSize);
    return bytes+header+parts.data;
}

void mutateText(std::string& text, std::size_t room) {
    std::vector<std::uint8_t> buffer(text.begin(), text.end());
    const std::size_t size = buffer.size();
    buffer.resize(size+room);
    buffer.resize(LLVMFuzzerMutate(buffer.data(), size, buffer.size()));
    text.assign(buffer.begin(), buffer.end());
}

void collect(json& value, std::vector<json*>& values) {
    values.push_back(&value);
    if (value.is_structured())
        for (json& child : value)
            collect(child, values);
}

/** Change one value of a document into another one that a document may have in its place, or nearly. */
void mutateJson(json& document, Random& random) {
    std::vector<json*> values;
    collect(document, values);
    json& value = *values[random()%values.size()];
    const json& other = *values[random()%values.size()];
    static const json numbers = {0, 1, -1, 2, 3, 4, 21, 4096, 2147483647, -2147483648LL, 4294967296LL, 1e-320, 1e-12, 0.5, 0.8656721, 10.0,
            1e6, 1e308, -1e308, -0.0};
    switch (random()%4) {
        case 0:
            if (value.is_number())
                value = numbers[random()%numbers.size()];
            else if (value.is_array() && !value.empty())
                value.erase(random()%value.size());
            break;
        case 1:
            if (value.is_array() && !value.empty())
                value.push_back(json(value[random()%value.size()]));
            break;
        case 2:
            if (value.is_number_integer())
                value = value.get<std::int64_t>()+static_cast<int>(random()%5)-2;
            else if (value.is_array() && value.size() > 1)
                std::swap(value[random()%value.size()], value[random()%value.size()]);
            break;
        default:
            value = json(other);
    }
}

} // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t maxSize, unsigned seed) {
    Random random(seed);
    std::string bytes(reinterpret_cast<const char*>(data), size);
    Parts parts;
    const unsigned choice = random()%8;
    if (choice == 0 || !takeApart(bytes, parts))
        return LLVMFuzzerMutate(data, size, maxSize);
    if (choice == 1)
        mutateText(parts.architecture, 64);
    else if (choice == 2 && !parts.data.empty())
        mutateText(parts.data, 0);
    else if (choice == 3)
        mutateJson(parts.header, random);
    else if (json document = json::parse(parts.architecture, nullptr, false); !document.is_discarded()) {
        mutateJson(document, random);
        parts.architecture = document.dump(-1, ' ', false, json::error_handler_t::replace);
    }
    if (!parts.header.is_object() || !parts.header.contains("__metadata__") || !parts.header["__metadata__"].is_object())
        return LLVMFuzzerMutate(data, size, maxSize);
    bytes = putTogether(parts);
    if (bytes.size() > maxSize)
        return LLVMFuzzerMutate(data, size, maxSize);
    std::memcpy(data, bytes.data(), bytes.size());
    return bytes.size();
}
