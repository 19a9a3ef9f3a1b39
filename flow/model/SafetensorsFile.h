// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_SAFETENSORSFILE_H_
#define OPENMMFLOW_SAFETENSORSFILE_H_

#include "model/Tensor.h"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace OpenMMFlow {

/**
 * The safetensors container: eight bytes of little-endian header length, a JSON header, the data of all tensors without gaps.
 * https://github.com/huggingface/safetensors#format
 */
struct SafetensorsFile {
    std::map<std::string, std::string> metadata;
    std::map<std::string, Tensor> tensors;
};

/**
 * Raise unless a file that begins like this, and is this long, can be a safetensors file; says what it seems to be instead.
 *
 * @param beginning  the first bytes, at least 64 where the file has as many
 * @param size       of the file, bytes
 * @throws FlowModelError
 */
void checkSafetensorsBeginning(std::string_view beginning, std::uint64_t size);

/** @throws FlowModelError  the bytes are no safetensors file, were cut short, or hold tensors of other types than F32 and F64 */
SafetensorsFile readSafetensors(std::string_view bytes);

/** The canonical form of docs/model_format.md, "Canonical form". */
std::string writeSafetensors(const std::map<std::string, std::string>& metadata,
        const std::map<std::string, const Tensor*>& tensors);

/** The values in the tensor's stored type, little-endian. */
std::string rawData(const Tensor& tensor);

/** A shape for messages: "(64, 20)". -1, an open dimension, is written as "any". */
std::string describeShape(const std::vector<std::int64_t>& shape);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_SAFETENSORSFILE_H_
