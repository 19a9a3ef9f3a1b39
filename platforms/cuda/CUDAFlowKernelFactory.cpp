// SPDX-License-Identifier: MIT
#include "CommonFlowKernelFactory.h"
#include "PluginRegistration.h"

#include <openmm/cuda/CudaContext.h>
#include <openmm/cuda/CudaPlatform.h>

// What OpenMM calls, in this order, after it loaded the library.

extern "C" void registerPlatforms() {
}

extern "C" void registerKernelFactories() {
    // Never deleted: OpenMM keeps the address until the process ends.
    static auto& factory = *new OpenMMFlow::CommonFlowKernelFactory<OpenMM::CudaPlatform>();
    OpenMMFlow::registerFlowKernels("OpenMMFlowCUDA", {"CUDA"}, factory);
}
