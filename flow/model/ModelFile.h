// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_MODELFILE_H_
#define OPENMMFLOW_MODELFILE_H_

#include "model/Architecture.h"

#include <map>
#include <string>
#include <string_view>

namespace OpenMMFlow {

/** What a model file holds: valid, see validateStructure and validateWeights. */
struct ModelContents {
    Architecture architecture;
    /** The architecture as it stands in the file; it is written again as it is. */
    std::string json;
    /** See FlowModel::getChecksum. */
    std::string checksum;
};

/** @throws FlowModelError  the bytes are no model file or hold no valid model */
ModelContents readModelFile(std::string_view bytes);

/**
 * The bytes of a model file.
 *
 * @param json     the architecture, a JSON document
 * @param tensors  the weights by name
 */
std::string writeModelFile(const std::string& json, const std::map<std::string, const Tensor*>& tensors);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_MODELFILE_H_
