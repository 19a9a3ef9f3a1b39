// SPDX-License-Identifier: MIT
#include "FlowKernelSource.h"

#include <iomanip>
#include <sstream>
#include <utility>

namespace OpenMMFlow {

static std::string literal(double value) {
    std::ostringstream text;
    text << std::scientific << std::setprecision(17) << value;
    return text.str();
}

std::map<std::string, std::string> flowKernelDefinitions(const FlowKernelVariant& variant) {
    std::map<std::string, std::string> definitions = {
        {"TILE", std::to_string(variant.tile)},
        {"LANES", std::to_string(flowKernelLanes(variant.tile))},
        {"CLUSTER", std::to_string(variant.cluster)},
        {"SUM_SLICES", std::to_string(flowKernelSumSlices)},
        {"PI", literal(3.14159265358979323846)}};
    const FlowKernelParts& parts = variant.parts;
    const std::pair<const char*, bool> present[] = {{"HAS_BLOCK", parts.block}, {"HAS_MIXTURES", parts.mixtures},
            {"HAS_MIXTURE_ROOTS", parts.mixtureRoots}, {"HAS_TRANSFORMERS", parts.transformers}};
    for (const auto& [name, isPresent] : present)
        if (isPresent)
            definitions[name] = "1";
    if (parts.transformerType)
        definitions["TRANSFORMER_TYPE"] = std::to_string(*parts.transformerType);
    // It takes registers: for loops over components that are not work-items many, and tiles and arenas in global memory have none left.
    if (parts.alikeMixtures && variant.slices > 0 && variant.tile == 1 && variant.numRealRows > 0) {
        definitions["COMPONENTS"] = std::to_string(parts.alikeMixtures->components);
        definitions["LOG2_COMPONENTS"] = std::to_string(parts.alikeMixtures->log2Components);
        definitions["EXPONENT"] = std::to_string(parts.alikeMixtures->exponent);
        definitions["IS_PUBLISHED"] = (parts.alikeMixtures->published ? "true" : "false");
    }
    if (parts.activation)
        definitions["ACTIVATION"] = std::to_string(*parts.activation);
    if (variant.slices > 0) {
        definitions["SUMS_IN_WARPS"] = std::to_string(flowKernelWarp);
        definitions["GROUP_SIZE"] = std::to_string(variant.groupSize);
        definitions["SLICES"] = std::to_string(variant.slices);
    }
    if (variant.numRealRows > 0) {
        definitions["ARENAS_ARE_LOCAL"] = "1";
        if (variant.keptIsGlobal)
            definitions["KEPT_IS_GLOBAL"] = "1";
        definitions["NUM_MIXED_ROWS"] = std::to_string(variant.numMixedRows);
        definitions["NUM_REAL_ROWS"] = std::to_string(variant.numRealRows);
    }
    if (variant.numTableNumbers > 0) {
        definitions["TABLES_ARE_LOCAL"] = "1";
        definitions["NUM_TABLE_NUMBERS"] = std::to_string(variant.numTableNumbers);
        definitions["NUM_CONSTANTS"] = std::to_string(variant.numConstants);
    }
    return definitions;
}

} // namespace OpenMMFlow
