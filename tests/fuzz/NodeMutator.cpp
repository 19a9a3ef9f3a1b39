// SPDX-License-Identifier: MIT
// How libFuzzer changes the JSON documents of FuzzFlowForceProxy: mostly as documents, now and then as text.
#include "JsonMutator.h"

using namespace OpenMMFlow;
using nlohmann::json;

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t maxSize, unsigned seed) {
    MutatorRandom random(seed);
    json document = json::parse(data, data+size, nullptr, false);
    if (document.is_discarded() || random()%8 == 0)
        return LLVMFuzzerMutate(data, size, maxSize);
    mutateJson(document, random);
    const std::size_t stored = store(dumpJson(document), data, maxSize);
    return stored > 0 ? stored : LLVMFuzzerMutate(data, size, maxSize);
}
