// SPDX-License-Identifier: MIT
#include "CommonFlowKernelFactory.h"
#include "PluginRegistration.h"

#include <openmm/hip/HipContext.h>
#include <openmm/hip/HipPlatform.h>

// What OpenMM calls, in this order, after it loaded the library.

extern "C" void registerPlatforms() {
}

extern "C" void registerKernelFactories() {
    // Never deleted: OpenMM keeps the address until the process ends.
    static auto& factory = *new OpenMMFlow::CommonFlowKernelFactory<OpenMM::HipPlatform>();
    OpenMMFlow::registerFlowKernels("OpenMMFlowHIP", {"HIP"}, factory);
}
