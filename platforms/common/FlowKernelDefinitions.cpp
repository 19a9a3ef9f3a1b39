// SPDX-License-Identifier: MIT
#include "FlowKernelSource.h"

#include <iomanip>
#include <sstream>

namespace OpenMMFlow {

static std::string literal(double value) {
    std::ostringstream text;
    text << std::scientific << std::setprecision(17) << value;
    return text.str();
}

std::map<std::string, std::string> flowKernelDefinitions(const FlowKernelVariant& variant) {
    std::map<std::string, std::string> definitions = {
        {"TILE", std::to_string(variant.tile)},
        {"MAX_SLICES", std::to_string(flowKernelMaxSlices)},
        {"PI", literal(3.14159265358979323846)}};
    if (variant.numRealRows > 0) {
        definitions["ARENAS_ARE_LOCAL"] = "1";
        definitions["NUM_MIXED_ROWS"] = std::to_string(variant.numMixedRows);
        definitions["NUM_REAL_ROWS"] = std::to_string(variant.numRealRows);
    }
    return definitions;
}

} // namespace OpenMMFlow
