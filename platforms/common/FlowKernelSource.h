// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWKERNELSOURCE_H_
#define OPENMMFLOW_FLOWKERNELSOURCE_H_

#include <map>
#include <optional>
#include <string>
#include <tuple>

namespace OpenMMFlow {

/** The source of the device kernel in OpenMM's common compute language: the files of kernels/ and the formulas. */
extern const std::string flowKernelSource;

/** What mixtures are like, as in FlowStage. */
struct FlowKernelMixtures {
    int components, log2Components, exponent;
    bool published;

    bool operator<(const FlowKernelMixtures& other) const {
        return std::tie(components, log2Components, exponent, published) <
                std::tie(other.components, other.log2Components, other.exponent, other.published);
    }
};

/** The parts of the kernel that a model needs. What it does without is left out: that is most of the text. */
struct FlowKernelParts {
    bool block = false, mixtures = false, mixtureRoots = false, transformers = false;
    std::optional<int> transformerType, activation;    // if there is only one
    std::optional<FlowKernelMixtures> alikeMixtures;   // if there is only one kind
};

/** What the source is specialized by. */
struct FlowKernelVariant {
    int tile;                 // molecules of a tile: 1, or a multiple of 4
    FlowKernelParts parts;
    int numMixedRows = 0, numRealRows = 0;    // of arenas in local memory; 0 for arenas in global memory
    bool keptIsGlobal = false;    // of arenas in local memory: what is kept for the way back is elsewhere
    int numTableNumbers = 0, numConstants = 0;    // of tables in local memory, likewise
    int groupSize = 512;          // see DevicePlan::Shape, as for
    int slices = 0;               // of a sum, if work-items of a warp add them up; else 0
    int cluster = 1;
};

/** Work-items that sum up a column for a molecule, before one of them adds up their sums. */
constexpr int flowKernelSumSlices = 16;

/** Work-items that exchange numbers without a barrier; of HIP's larger warps it is a half. */
constexpr int flowKernelWarp = 32;

/** Molecules that a work-item multiplies a weight with at once. */
constexpr int flowKernelLanes(int tile) {
    return tile == 1 ? 1 : 4;
}

/** The preprocessor definitions of a variant, for ComputeContext::compileProgram(). */
std::map<std::string, std::string> flowKernelDefinitions(const FlowKernelVariant& variant);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWKERNELSOURCE_H_
