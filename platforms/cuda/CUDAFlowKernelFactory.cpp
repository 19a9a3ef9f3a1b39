// SPDX-License-Identifier: MIT
#include "CommonFlowKernelFactory.h"
#include "PluginRegistration.h"

#include <openmm/cuda/CudaContext.h>
#include <openmm/cuda/CudaPlatform.h>

/** Thread block clusters, of the size that every device of compute capability 9.0 or newer has. */
static int largestCluster(OpenMM::ComputeContext& context) {
    return static_cast<OpenMM::CudaContext&>(context).getComputeCapability() >= 9 ? 8 : 1;
}

// What OpenMM calls, in this order, after it loaded the library.

extern "C" void registerPlatforms() {
}

extern "C" void registerKernelFactories() {
    // Never deleted: OpenMM keeps the address until the process ends.
    static auto& factory = *new OpenMMFlow::CommonFlowKernelFactory<OpenMM::CudaPlatform>(largestCluster);
    OpenMMFlow::registerFlowKernels("OpenMMFlowCUDA", {"CUDA"}, factory);
}
