// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_CALCFLOWFORCEKERNEL_H_
#define OPENMMFLOW_CALCFLOWFORCEKERNEL_H_

#include "FlowForce.h"

#include <openmm/KernelImpl.h>
#include <openmm/System.h>

#include <string>
#include <vector>

namespace OpenMMFlow {

/** What a platform does for FlowForce. FlowForceImpl has checked all that reaches it. */
class CalcFlowForceKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() {
        return "CalcFlowForce";
    }
    CalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform) : KernelImpl(name, platform) {
    }
    /**
     * Called once, before execute().
     *
     * @param system     the System
     * @param force      the FlowForce
     * @param molecules  the particles of each molecule, in the order of the model; at least one molecule
     */
    virtual void initialize(const OpenMM::System& system, const FlowForce& force, const std::vector<std::vector<int>>& molecules) = 0;
    /**
     * Add the forces, if asked for, to those of the Context, and the derivative of the energy with respect to the scale
     * parameter, if the force wants it, to its energy parameter derivatives.
     *
     * @return the energy of all molecules, kJ/mol
     */
    virtual double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) = 0;
    /**
     * Take over the weights, the temperature and the margins of the force. If this throws, the kernel is as before.
     *
     * @param force  differs from the FlowForce of initialize() in nothing else
     */
    virtual void copyParametersToContext(OpenMM::ContextImpl& context, const FlowForce& force) = 0;
    /** FlowForce::getNumSupportExits(), of the evaluations that execute() has made since initialize(). */
    virtual long long getNumSupportExits() = 0;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_CALCFLOWFORCEKERNEL_H_
