// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COMMONCALCFLOWFORCEKERNEL_H_
#define OPENMMFLOW_COMMONCALCFLOWFORCEKERNEL_H_

#include "DeviceFeatures.h"
#include "DevicePlan.h"
#include "internal/CalcFlowForceKernel.h"

#include <openmm/common/ComputeArray.h>
#include <openmm/common/ComputeContext.h>

#include <string>
#include <vector>

namespace OpenMMFlow {

/**
 * FlowForce through OpenMM's common compute layer, for CUDA, OpenCL and HIP. One launch takes all molecules from positions to forces;
 * nothing is waited for and nothing leaves the device, except that with an energy, for which OpenMM waits anyway, a count of roots that were not
 * found does. Of a Context on several devices it is the part of one of them.
 */
class CommonCalcFlowForceKernel : public CalcFlowForceKernel {
public:
    CommonCalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::ComputeContext& context,
            DeviceFeatures features);
    void initialize(const OpenMM::System& system, const FlowForce& force, const std::vector<std::vector<int>>& molecules) override;
    double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) override;
    void copyParametersToContext(OpenMM::ContextImpl& context, const FlowForce& force) override;
    long long getNumSupportExits() override;

private:
    class ForceInfo;

    DevicePlan compile(const FlowForce& force);
    int realSize() const;    // bytes of a number
    int mixedSize() const;
    void createArrays(const DevicePlan& plan);
    void addArguments();
    void setArguments(OpenMM::ContextImpl& context, bool includeForces);
    void checkRoots();

    OpenMM::ComputeContext& cc;
    const DeviceFeatures features;
    ForceInfo* info = nullptr;    // owned by the ComputeContext
    OpenMM::ComputeKernel kernel;
    DevicePlan::Shape shape = {};
    bool arenasAreLocal = false;
    int firstMolecule = 0, endMolecule = 0;
    int numTiles = 0;    // at a time
    std::string scaleParameterName;
    bool scaleDerivative = false, findsRoots = false, hasArguments = false;
    OpenMM::ComputeArray table, constants, weights, quads;
    OpenMM::ComputeArray atoms;    // (molecules, numParticles)
    OpenMM::ComputeArray mixedArenas, realArenas;
    OpenMM::ComputeArray counters;    // evaluations of molecules outside of the inner support, roots that were not found
    OpenMM::ComputeArray noCorrection;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COMMONCALCFLOWFORCEKERNEL_H_
