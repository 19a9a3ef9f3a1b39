// SPDX-License-Identifier: MIT
#include "CommonFlowKernelFactory.h"
#include "PluginRegistration.h"

#include <openmm/hip/HipContext.h>
#include <openmm/hip/HipPlatform.h>

static OpenMMFlow::DeviceFeatures featuresOf(OpenMM::ComputeContext&) {
    return {true};
}

// What OpenMM calls, in this order, after it loaded the library.

extern "C" void registerPlatforms() {
}

extern "C" void registerKernelFactories() {
    // Never deleted: OpenMM keeps the address until the process ends.
    static auto& factory = *new OpenMMFlow::CommonFlowKernelFactory<OpenMM::HipPlatform>(featuresOf);
    OpenMMFlow::registerFlowKernels("OpenMMFlowHIP", {"HIP"}, factory);
}
