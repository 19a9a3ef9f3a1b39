// SPDX-License-Identifier: MIT
// Compiled once for each instruction set, as CouplingKernels.cpp is, with OPENMMFLOW_GEOMETRY_KERNELS defined as the name of the function.
#include "engine/GeometryKernels.h"

namespace OpenMMFlow {

const GeometryKernels& OPENMMFLOW_GEOMETRY_KERNELS() {
    static constexpr GeometryKernels table = Geometry<xsimd::batch<double, OPENMMFLOW_INSTRUCTION_SET>>::table();
    return table;
}

} // namespace OpenMMFlow
