// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_ARCHITECTUREJSON_H_
#define OPENMMFLOW_ARCHITECTUREJSON_H_

#include "model/Architecture.h"

#include <string>

namespace OpenMMFlow {

/**
 * Read the JSON document of docs/model_format.md: keys, types and names. What the values mean for each other is checked by
 * validateStructure. Of the tensors, only shapes are set: the ones that the document gives, with -1 for the number of features
 * of a network and for the number of its outputs, which the document leaves open.
 *
 * @throws FlowModelError  the document is not as the page says, or of a later version; the message names the place
 */
Architecture readArchitecture(const std::string& json);

/** True if two such documents are equal but for temperature and data. */
bool equalArchitectures(const std::string& json1, const std::string& json2);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_ARCHITECTUREJSON_H_
