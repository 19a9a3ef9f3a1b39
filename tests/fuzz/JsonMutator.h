// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_JSONMUTATOR_H_
#define OPENMMFLOW_JSONMUTATOR_H_

#include <nlohmann/json.hpp>

#include <cstdint>
#include <random>
#include <string>

namespace OpenMMFlow {

using MutatorRandom = std::minstd_rand;

/** Random bytes changed, by libFuzzer; the text grows by `room` at the most. */
void mutateText(std::string& text, std::size_t room);

/** One value of a document changed into another one that a document may have in its place, or nearly. */
void mutateJson(nlohmann::json& document, MutatorRandom& random);

/** As text, whatever bytes its strings hold. */
std::string dumpJson(const nlohmann::json& document);

/** Copies the result of a mutator into libFuzzer's buffer; returns its size, or 0 if there is no room for it. */
std::size_t store(const std::string& result, std::uint8_t* data, std::size_t maxSize);

} // namespace OpenMMFlow

/** Of libFuzzer: a random change of some bytes; returns the new size. */
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t maxSize);

#endif // OPENMMFLOW_JSONMUTATOR_H_
