// SPDX-License-Identifier: MIT
// How fuzzers change model files. Changed at random, most bytes are no safetensors file any more; this takes one apart, changes the
// architecture as JSON or as text, the header or the weights, and puts it together with lengths that are right and without a checksum.
#include "JsonMutator.h"

#include <cstring>

using namespace OpenMMFlow;
using nlohmann::json;

namespace {

constexpr std::size_t lengthSize = 8;
const char* const metadataKey = "__metadata__";
const char* const architectureKey = "openmmflow";

struct Parts {
    json header;
    std::string architecture, data;
};

bool hasMetadata(const json& header) {
    return header.is_object() && header.contains(metadataKey) && header[metadataKey].is_object();
}

bool takeApart(const std::string& bytes, Parts& parts) {
    std::uint64_t length = 0;
    if (bytes.size() < lengthSize)
        return false;
    std::memcpy(&length, bytes.data(), lengthSize);
    if (length > bytes.size()-lengthSize)
        return false;
    parts.header = json::parse(bytes.substr(lengthSize, length), nullptr, false);
    if (!hasMetadata(parts.header) || !parts.header[metadataKey].contains(architectureKey)
            || !parts.header[metadataKey][architectureKey].is_string())
        return false;
    parts.architecture = parts.header[metadataKey][architectureKey].get<std::string>();
    parts.data = bytes.substr(lengthSize+length);
    return true;
}

std::string putTogether(Parts& parts) {
    if (hasMetadata(parts.header)) {
        parts.header[metadataKey].erase("crc32");
        parts.header[metadataKey][architectureKey] = parts.architecture;
    }
    const std::string header = dumpJson(parts.header);
    const std::uint64_t length = header.size();
    std::string bytes(lengthSize, '\0');
    std::memcpy(bytes.data(), &length, lengthSize);
    return bytes+header+parts.data;
}

} // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t maxSize, unsigned seed) {
    MutatorRandom random(seed);
    Parts parts;
    const unsigned choice = random()%8;
    if (choice == 0 || !takeApart(std::string(reinterpret_cast<const char*>(data), size), parts))
        return LLVMFuzzerMutate(data, size, maxSize);
    if (choice == 1)
        mutateText(parts.architecture, 64);
    else if (choice == 2)
        mutateText(parts.data, 0);
    else if (choice == 3)
        mutateJson(parts.header, random);
    else if (json document = json::parse(parts.architecture, nullptr, false); !document.is_discarded()) {
        mutateJson(document, random);
        parts.architecture = dumpJson(document);
    }
    const std::size_t stored = store(putTogether(parts), data, maxSize);
    return stored > 0 ? stored : LLVMFuzzerMutate(data, size, maxSize);
}
