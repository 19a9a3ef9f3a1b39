// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COMMONFLOWKERNELFACTORY_H_
#define OPENMMFLOW_COMMONFLOWKERNELFACTORY_H_

#include "CommonCalcFlowForceKernel.h"
#include "CommonParallelCalcFlowForceKernel.h"

#include <openmm/KernelFactory.h>
#include <openmm/OpenMMException.h>
#include <openmm/internal/ContextImpl.h>

#include <string>

namespace OpenMMFlow {

/** Makes the kernel of FlowForce for a GPU platform, given its class. */
template <class Platform>
class CommonFlowKernelFactory : public OpenMM::KernelFactory {
public:
    explicit CommonFlowKernelFactory(FeaturesOf featuresOf) : featuresOf(featuresOf) {
    }
    OpenMM::KernelImpl* createKernelImpl(std::string name, const OpenMM::Platform& platform, OpenMM::ContextImpl& context) const override {
        auto& data = *static_cast<typename Platform::PlatformData*>(context.getPlatformData());
        if (name == CalcFlowForceKernel::Name() && data.contexts.size() > 1)
            return new CommonParallelCalcFlowForceKernel(name, platform, *data.contexts[0], featuresOf);
        if (name == CalcFlowForceKernel::Name())
            return new CommonCalcFlowForceKernel(name, platform, *data.contexts[0], featuresOf(*data.contexts[0]));
        throw OpenMM::OpenMMException("OpenMM-Flow has no kernel '"+name+"' for the platform "+platform.getName());
    }

private:
    const FeaturesOf featuresOf;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COMMONFLOWKERNELFACTORY_H_
