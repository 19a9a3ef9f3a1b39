// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWFORCEIMPL_H_
#define OPENMMFLOW_FLOWFORCEIMPL_H_

#include "FlowForce.h"
#include "internal/MoleculeGatherer.h"

#include <openmm/Kernel.h>
#include <openmm/internal/ForceImpl.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace OpenMMFlow {

/** A FlowForce in a Context: checks it against the System and hands the work to the kernel of the platform. */
class FlowForceImpl : public OpenMM::ForceImpl {
public:
    explicit FlowForceImpl(const FlowForce& owner);
    void initialize(OpenMM::ContextImpl& context) override;
    const FlowForce& getOwner() const override {
        return owner;
    }
    void updateContextState(OpenMM::ContextImpl& context, bool& forcesInvalid) override;
    double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy, int groups) override;
    std::map<std::string, double> getDefaultParameters() override;
    /** The name of the kernel; OpenMMException with the reason if no platform of this process has it. */
    std::vector<std::string> getKernelNames() override;
    /** The bonds of the model in each molecule: for OpenMM, a molecule is what is connected. */
    std::vector<std::pair<int, int>> getBondedParticles() const override;
    void updateParametersInContext(OpenMM::ContextImpl& context);
    std::vector<double> getLogProbs(OpenMM::ContextImpl& context) const;
    std::vector<std::vector<double>> getLatents(OpenMM::ContextImpl& context) const;
    long long getNumSupportExits();

private:
    std::vector<double> gatherMolecules(OpenMM::ContextImpl& context) const;

    const FlowForce& owner;
    /** What the Context evaluates, while the owner may be changed already. */
    FlowModel model;
    std::vector<std::vector<int>> molecules;
    const std::string scaleParameterName;
    const int numEnergyParameterDerivatives;
    const bool periodic;
    MoleculeGatherer gatherer;
    /** Whether a step has been taken in this Context. */
    bool inDynamics = false;
    OpenMM::Kernel kernel;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWFORCEIMPL_H_
