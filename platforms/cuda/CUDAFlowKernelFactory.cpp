// SPDX-License-Identifier: MIT
#include "CommonFlowKernelFactory.h"
#include "PluginRegistration.h"

#include <openmm/cuda/CudaContext.h>
#include <openmm/cuda/CudaPlatform.h>

/** Every device of compute capability 9.0 or newer has thread block clusters of eight. */
static OpenMMFlow::DeviceFeatures featuresOf(OpenMM::ComputeContext& context) {
    return {true, static_cast<OpenMM::CudaContext&>(context).getComputeCapability() >= 9 ? 8 : 1};
}

// What OpenMM calls, in this order, after it loaded the library.

extern "C" void registerPlatforms() {
}

extern "C" void registerKernelFactories() {
    // Never deleted: OpenMM keeps the address until the process ends.
    static auto& factory = *new OpenMMFlow::CommonFlowKernelFactory<OpenMM::CudaPlatform>(featuresOf);
    OpenMMFlow::registerFlowKernels("OpenMMFlowCUDA", {"CUDA"}, factory);
}
