// SPDX-License-Identifier: MIT
#include "CommonParallelCalcFlowForceKernel.h"

using OpenMM::ComputeContext;
using OpenMM::ContextImpl;

namespace OpenMMFlow {

/** The part of a device, in its thread. */
class CommonParallelCalcFlowForceKernel::Task : public ComputeContext::WorkTask {
public:
    Task(CommonCalcFlowForceKernel& kernel, ContextImpl& context, bool includeForces, bool includeEnergy) :
            kernel(kernel), context(context), includeForces(includeForces), includeEnergy(includeEnergy) {
    }
    void execute() override {
        kernel.execute(context, includeForces, includeEnergy);
    }

private:
    CommonCalcFlowForceKernel& kernel;
    ContextImpl& context;
    const bool includeForces, includeEnergy;
};

CommonParallelCalcFlowForceKernel::CommonParallelCalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform,
        ComputeContext& context, FeaturesOf featuresOf) : CalcFlowForceKernel(name, platform) {
    for (ComputeContext* each : context.getAllContexts())
        devices.push_back({*each, std::make_unique<CommonCalcFlowForceKernel>(name, platform, *each, featuresOf(*each))});
}

void CommonParallelCalcFlowForceKernel::initialize(const OpenMM::System& system, const FlowForce& force,
        const std::vector<std::vector<int>>& molecules) {
    for (Device& device : devices)
        device.kernel->initialize(system, force, molecules);
}

double CommonParallelCalcFlowForceKernel::execute(ContextImpl& context, bool includeForces, bool includeEnergy) {
    for (Device& device : devices)
        device.context.getWorkThread().addTask(new Task(*device.kernel, context, includeForces, includeEnergy));
    return 0;
}

void CommonParallelCalcFlowForceKernel::waitForDevices() {
    for (Device& device : devices)
        device.context.getWorkThread().flush();
}

void CommonParallelCalcFlowForceKernel::copyParametersToContext(ContextImpl& context, const FlowForce& force) {
    waitForDevices();
    for (Device& device : devices)
        device.kernel->copyParametersToContext(context, force);
}

long long CommonParallelCalcFlowForceKernel::getNumSupportExits() {
    waitForDevices();
    long long sum = 0;
    for (Device& device : devices)
        sum += device.kernel->getNumSupportExits();
    return sum;
}

} // namespace OpenMMFlow
