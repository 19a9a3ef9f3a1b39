// SPDX-License-Identifier: MIT
// Compiled once for each instruction set, with OPENMMFLOW_INSTRUCTION_SET (an xsimd architecture type) and OPENMMFLOW_KERNELS (the name of
// the function that returns its tables) defined by the build. It must not share inline code with other translation units: see
// CouplingPlan.h.
#include "engine/CouplingKernels.h"
#include "engine/TransformerKernels.h"

namespace OpenMMFlow {

template <class Real>
const CouplingKernels<Real>& OPENMMFLOW_KERNELS() {
    using V = xsimd::batch<Real, OPENMMFLOW_INSTRUCTION_SET>;
    static const CouplingKernels<Real> table = {V::size, sizeof(V), sizeof(typename Kernels<V>::Component), Kernels<V>::forward,
            Kernels<V>::backward};
    return table;
}

template const CouplingKernels<float>& OPENMMFLOW_KERNELS<float>();
template const CouplingKernels<double>& OPENMMFLOW_KERNELS<double>();

} // namespace OpenMMFlow
