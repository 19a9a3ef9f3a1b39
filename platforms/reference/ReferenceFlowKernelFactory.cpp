// SPDX-License-Identifier: MIT
#include "ReferenceFlowKernelFactory.h"
#include "PluginRegistration.h"
#include "ReferenceCalcFlowForceKernel.h"

#include <openmm/OpenMMException.h>
#include <openmm/internal/ContextImpl.h>

using OpenMM::ReferencePlatform;

namespace OpenMMFlow {

OpenMM::KernelImpl* ReferenceFlowKernelFactory::createKernelImpl(std::string name, const OpenMM::Platform& platform,
        OpenMM::ContextImpl& context) const {
    // The CPU platform, a subclass of Reference, keeps its own data elsewhere and those of Reference here.
    auto& data = *static_cast<ReferencePlatform::PlatformData*>(context.getPlatformData());
    if (name == CalcFlowForceKernel::Name())
        return new ReferenceCalcFlowForceKernel(name, platform, data,
                platform.getName() == "Reference" ? Precision::Double : Precision::Single);
    throw OpenMM::OpenMMException("OpenMMFlowReference has no kernel '"+name+"'");
}

} // namespace OpenMMFlow

// What OpenMM calls, in this order, after it loaded the library.

extern "C" void registerPlatforms() {
}

extern "C" void registerKernelFactories() {
    // Never deleted: OpenMM keeps the address until the process ends.
    static auto& factory = *new OpenMMFlow::ReferenceFlowKernelFactory();
    OpenMMFlow::registerFlowKernels("OpenMMFlowReference", {"Reference", "CPU"}, factory);
}
