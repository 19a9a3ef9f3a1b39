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

/** A variant and what it is called. */
struct NamedVariant {
    std::string name;
    FlowKernelVariant variant;
};

/** Precision, variant, architecture. */
using CompiledVariant = std::tuple<std::string, NamedVariant, std::string>;

/** Those that CommonCalcFlowForceKernel chooses from, in each precision, for a usual model and for one that needs every part of the kernel. */
inline auto compiledVariants(const std::vector<std::string>& architectures) {
    FlowKernelParts usual, all;
    usual.mixtures = true;
    usual.activation = 0;
    usual.alikeMixtures = {8, 3, 1, false};
    all.block = all.mixtures = all.mixtureRoots = all.transformers = true;
    const std::vector<NamedVariant> variants = {
        {"OneLocal", {1, usual, 448, 3584, false, 2048, 512, 512, 4}},
        {"OneThatKeepsApart", {1, usual, 448, 3584, true, 2048, 512, 512, 4}},
        {"One", {1, usual}},
        {"OneInGlobalMemory", {1, usual, 0, 0, false, 0, 0, 512, 4}},
        {"TileOf4", {4, usual, 0, 0, false, 2560, 896, 512, 2}},
        {"TileOf32", {32, usual, 0, 0, false, 2560, 896, 512, 2}},
        {"OneOfAllParts", {1, all, 0, 0, false, 0, 0, 512, 4}}};
    return testing::Combine(testing::Values("single", "mixed", "double"), testing::ValuesIn(variants), testing::ValuesIn(architectures));
}

/** Those for devices with clusters of groups. */
inline auto clusterVariants(const std::vector<std::string>& architectures) {
    FlowKernelParts usual;
    usual.mixtures = true;
    usual.activation = 0;
    usual.alikeMixtures = {8, 3, 1, false};
    std::vector<NamedVariant> variants;
    for (int cluster : {2, 8})
        for (bool keptIsGlobal : {false, true})
            variants.push_back({"ClusterOf"+std::to_string(cluster)+(keptIsGlobal ? "ThatKeepsApart" : ""),
                    {1, usual, 448, 3584, keptIsGlobal, 2048, 512, 512, 32, cluster}});
    return testing::Combine(testing::Values("single", "mixed", "double"), testing::ValuesIn(variants), testing::ValuesIn(architectures));
}

inline std::string compiledVariantName(const testing::TestParamInfo<CompiledVariant>& info) {
    const auto& [precision, variant, architecture] = info.param;
    return precision+variant.name+"_"+architecture;
}

/** What GoogleTest prints of a variant. */
inline void PrintTo(const NamedVariant& variant, std::ostream* out) {
    *out << variant.name;
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TESTS_DEVICEKERNELVARIANTS_H_
