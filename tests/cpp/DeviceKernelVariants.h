// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_TESTS_DEVICEKERNELVARIANTS_H_
#define OPENMMFLOW_TESTS_DEVICEKERNELVARIANTS_H_

#include "FlowKernelSource.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <tuple>
#include <vector>

namespace OpenMMFlow {

/** Precision, variant, architecture. */
using CompiledVariant = std::tuple<std::string, FlowKernelVariant, std::string>;

/** Those that CommonCalcFlowForceKernel chooses from, in each precision. */
inline auto compiledVariants(const std::vector<std::string>& architectures) {
    const FlowKernelVariant local = {1, 704, 5120}, global = {1}, tile = {16};
    return testing::Combine(testing::Values("single", "mixed", "double"), testing::Values(local, global, tile), testing::ValuesIn(architectures));
}

inline std::string compiledVariantName(const testing::TestParamInfo<CompiledVariant>& info) {
    const auto& [precision, variant, architecture] = info.param;
    return precision+"Tile"+std::to_string(variant.tile)+(variant.numRealRows > 0 ? "Local_" : "_")+architecture;
}

/** What GoogleTest prints of a variant. */
inline void PrintTo(const FlowKernelVariant& variant, std::ostream* out) {
    *out << "tile of " << variant.tile;
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TESTS_DEVICEKERNELVARIANTS_H_
