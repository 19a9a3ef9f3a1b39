// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COMMONPARALLELCALCFLOWFORCEKERNEL_H_
#define OPENMMFLOW_COMMONPARALLELCALCFLOWFORCEKERNEL_H_

#include "CommonCalcFlowForceKernel.h"

#include <memory>

namespace OpenMMFlow {

/**
 * FlowForce of a Context on several devices: the molecules are split between them. Each device has a thread, in which OpenMM hands out positions
 * and clears forces before and adds up forces and energies after.
 */
class CommonParallelCalcFlowForceKernel : public CalcFlowForceKernel {
public:
    CommonParallelCalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::ComputeContext& context,
            FeaturesOf featuresOf);
    void initialize(const OpenMM::System& system, const FlowForce& force, const std::vector<std::vector<int>>& molecules) override;
    double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) override;
    void copyParametersToContext(OpenMM::ContextImpl& context, const FlowForce& force) override;
    long long getNumSupportExits() override;

private:
    class Task;

    struct Device {
        OpenMM::ComputeContext& context;
        std::unique_ptr<CommonCalcFlowForceKernel> kernel;
    };

    void waitForDevices();

    std::vector<Device> devices;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COMMONPARALLELCALCFLOWFORCEKERNEL_H_
