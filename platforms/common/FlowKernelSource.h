// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWKERNELSOURCE_H_
#define OPENMMFLOW_FLOWKERNELSOURCE_H_

#include <map>
#include <string>

namespace OpenMMFlow {

/** The source of the device kernel in OpenMM's common compute language: the files of kernels/ and the formulas. */
extern const std::string flowKernelSource;

/** What the source is specialized by. */
struct FlowKernelVariant {
    int tile;                 // molecules of a tile: 1, or a multiple of 4
    int numMixedRows = 0, numRealRows = 0;    // of arenas in local memory; 0 for arenas in global memory
};

/** Work-items that reduce a column first. */
constexpr int flowKernelMaxSlices = 16;

/** The preprocessor definitions of a variant, for ComputeContext::compileProgram(). */
std::map<std::string, std::string> flowKernelDefinitions(const FlowKernelVariant& variant);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWKERNELSOURCE_H_
