// SPDX-License-Identifier: MIT
#include "CommonFlowKernelFactory.h"
#include "PluginRegistration.h"

#include <openmm/opencl/OpenCLContext.h>
#include <openmm/opencl/OpenCLPlatform.h>

/** There is no exchange of numbers that all devices know. */
static OpenMMFlow::DeviceFeatures featuresOf(OpenMM::ComputeContext&) {
    return {};
}

// What OpenMM calls, in this order, after it loaded the library.

extern "C" void registerPlatforms() {
}

extern "C" void registerKernelFactories() {
    // Never deleted: OpenMM keeps the address until the process ends.
    static auto& factory = *new OpenMMFlow::CommonFlowKernelFactory<OpenMM::OpenCLPlatform>(featuresOf);
    OpenMMFlow::registerFlowKernels("OpenMMFlowOpenCL", {"OpenCL"}, factory);
}
