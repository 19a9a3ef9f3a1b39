// SPDX-License-Identifier: MIT
#include "ReferenceCalcFlowForceKernel.h"
#include "internal/ThermalEnergy.h"

#include <openmm/internal/ContextImpl.h>

#include <algorithm>

using OpenMM::ContextImpl;
using OpenMM::ReferencePlatform;
using OpenMM::ThreadPool;
using OpenMM::Vec3;

namespace OpenMMFlow {

ReferenceCalcFlowForceKernel::Parameters::Parameters(const FlowForce& force, int numThreads) :
        evaluator(force.getModel(), force.getMargins()), thermalEnergy(OpenMMFlow::thermalEnergy(force.getTemperature())),
        threads(numThreads) {
    for (ThreadData& thread : threads) {
        thread.workspace = evaluator.createWorkspace();
        thread.positions.resize(3*force.getModel().getNumParticles());
        thread.gradient.resize(3*force.getModel().getNumParticles());
    }
}

ReferenceCalcFlowForceKernel::ReferenceCalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform,
        ReferencePlatform::PlatformData& data) : CalcFlowForceKernel(name, platform), data(data) {
}

void ReferenceCalcFlowForceKernel::initialize(const OpenMM::System&, const FlowForce& force,
        const std::vector<std::vector<int>>& molecules) {
    this->molecules = molecules;
    gatherer = std::make_unique<MoleculeGatherer>(force.getModel().getArchitecture());
    const int numThreads = std::min<int>(data.threads.getNumThreads(), molecules.size());
    parameters = std::make_unique<Parameters>(force, numThreads);
    scaleParameterName = force.getScaleParameterName();
    periodic = force.usesPeriodicBoundaryConditions();
    scaleDerivative = force.getNumEnergyParameterDerivatives() > 0;
    potentials.resize(molecules.size());
}

double ReferenceCalcFlowForceKernel::execute(ContextImpl& context, bool includeForces, bool) {
    scale = context.getParameters().at(scaleParameterName);
    this->includeForces = includeForces;
    if (parameters->threads.size() == 1) {
        for (std::size_t i = 0; i < molecules.size(); i++)
            evaluateMolecule(i, parameters->threads[0]);
    }
    else {
        nextMolecule = 0;
        data.threads.execute(*this);
        data.threads.waitForThreads();
    }

    // In order of the molecules, whichever thread had them.
    double flow = 0, wall = 0;
    for (const ContinuedPotential& potential : potentials) {
        flow += potential.flow;
        wall += potential.wall;
    }
    if (scaleDerivative)
        (*data.energyParameterDerivatives)[scaleParameterName] += parameters->thermalEnergy*flow;
    return parameters->thermalEnergy*(scale*flow+wall);
}

void ReferenceCalcFlowForceKernel::execute(ThreadPool&, int threadIndex) {
    if (threadIndex >= static_cast<int>(parameters->threads.size()))
        return;
    const int numMolecules = molecules.size();
    for (int i = nextMolecule++; i < numMolecules; i = nextMolecule++)
        evaluateMolecule(i, parameters->threads[threadIndex]);
}

void ReferenceCalcFlowForceKernel::evaluateMolecule(int molecule, ThreadData& thread) {
    const std::vector<int>& particles = molecules[molecule];
    gatherer->gather(*data.positions, particles, periodic ? data.periodicBoxVectors : nullptr, thread.positions.data());
    potentials[molecule] = parameters->evaluator.continuedPotential(thread.positions.data(), scale,
            includeForces ? thread.gradient.data() : nullptr, *thread.workspace);
    if (!includeForces)
        return;
    // Molecules share no particle, so neither do threads.
    std::vector<Vec3>& forces = *data.forces;
    for (std::size_t i = 0; i < particles.size(); i++)
        for (int k = 0; k < 3; k++)
            forces[particles[i]][k] -= parameters->thermalEnergy*thread.gradient[3*i+k];
}

void ReferenceCalcFlowForceKernel::copyParametersToContext(ContextImpl&, const FlowForce& force) {
    parameters = std::make_unique<Parameters>(force, parameters->threads.size());
}

} // namespace OpenMMFlow
