// SPDX-License-Identifier: MIT
#include "ReferenceCalcFlowForceKernel.h"
#include "internal/ThermalEnergy.h"

#include <openmm/OpenMMException.h>
#include <openmm/internal/ContextImpl.h>

#include <algorithm>
#include <string>

using OpenMM::ContextImpl;
using OpenMM::ReferencePlatform;
using OpenMM::ThreadPool;
using OpenMM::Vec3;

namespace OpenMMFlow {

ReferenceCalcFlowForceKernel::Parameters::Parameters(const FlowForce& force, Precision precision, int numMolecules, int numThreads) :
        evaluator(force.getModel(), force.getMargins(), precision), thermalEnergy(OpenMMFlow::thermalEnergy(force.getTemperature())),
        unitSize(evaluator.getUnitSize(numMolecules)),
        threads(std::min(numThreads, (numMolecules+unitSize-1)/unitSize)) {
    for (ThreadData& thread : threads) {
        thread.workspace = evaluator.createWorkspace(unitSize);
        thread.positions.resize(3*force.getModel().getNumParticles()*unitSize);
        thread.gradient.resize(thread.positions.size());
    }
}

ReferenceCalcFlowForceKernel::ReferenceCalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform,
        ReferencePlatform::PlatformData& data, Precision precision) :
        CalcFlowForceKernel(name, platform), data(data), precision(precision) {
}

void ReferenceCalcFlowForceKernel::initialize(const OpenMM::System&, const FlowForce& force,
        const std::vector<std::vector<int>>& molecules) {
    this->molecules = molecules;
    gatherer = std::make_unique<MoleculeGatherer>(force.getModel().getArchitecture());
    parameters = std::make_unique<Parameters>(force, precision, molecules.size(), data.threads.getNumThreads());
    scaleParameterName = force.getScaleParameterName();
    periodic = force.usesPeriodicBoundaryConditions();
    scaleDerivative = force.getNumEnergyParameterDerivatives() > 0;
    potentials.resize(molecules.size());
}

double ReferenceCalcFlowForceKernel::execute(ContextImpl& context, bool includeForces, bool) {
    scale = context.getParameters().at(scaleParameterName);
    this->includeForces = includeForces;
    if (parameters->threads.size() == 1) {
        for (std::size_t i = 0; i < molecules.size(); i += parameters->unitSize)
            evaluateUnit(i, parameters->threads[0]);
    }
    else {
        nextUnit = 0;
        data.threads.execute(*this);
        data.threads.waitForThreads();
    }

    long long notConverged = 0;
    for (const ThreadData& thread : parameters->threads)
        notConverged += parameters->evaluator.getNumNotConverged(*thread.workspace);
    if (notConverged > 0)
        throw OpenMM::OpenMMException("FlowForce: "+std::to_string(notConverged)+" inverses of transformers were not found to full precision; "
                "the weights of the model are too extreme");

    // In order of the molecules, whichever thread had them.
    double flow = 0, wall = 0;
    for (const ContinuedPotential& potential : potentials) {
        flow += potential.flow;
        wall += potential.wall;
        numSupportExits += potential.outside;
    }
    if (scaleDerivative)
        (*data.energyParameterDerivatives)[scaleParameterName] += parameters->thermalEnergy*flow;
    return parameters->thermalEnergy*(scale*flow+wall);
}

void ReferenceCalcFlowForceKernel::execute(ThreadPool&, int threadIndex) {
    if (threadIndex >= static_cast<int>(parameters->threads.size()))
        return;
    const int numMolecules = molecules.size(), unitSize = parameters->unitSize;
    for (int i = unitSize*nextUnit++; i < numMolecules; i = unitSize*nextUnit++)
        evaluateUnit(i, parameters->threads[threadIndex]);
}

void ReferenceCalcFlowForceKernel::evaluateUnit(int firstMolecule, ThreadData& thread) {
    const int count = std::min<int>(parameters->unitSize, molecules.size()-firstMolecule);
    const std::size_t size = 3*molecules[firstMolecule].size();
    for (int m = 0; m < count; m++)
        gatherer->gather(*data.positions, molecules[firstMolecule+m], periodic ? data.periodicBoxVectors : nullptr,
                &thread.positions[m*size]);
    parameters->evaluator.continuedPotential(count, thread.positions.data(), scale, &potentials[firstMolecule],
            includeForces ? thread.gradient.data() : nullptr, *thread.workspace);
    if (!includeForces)
        return;
    // Molecules share no particle, so neither do threads.
    std::vector<Vec3>& forces = *data.forces;
    for (int m = 0; m < count; m++) {
        const double* gradient = &thread.gradient[m*size];
        for (int particle : molecules[firstMolecule+m])
            for (int k = 0; k < 3; k++)
                forces[particle][k] -= parameters->thermalEnergy*(*gradient++);
    }
}

void ReferenceCalcFlowForceKernel::copyParametersToContext(ContextImpl&, const FlowForce& force) {
    parameters = std::make_unique<Parameters>(force, precision, molecules.size(), data.threads.getNumThreads());
}

} // namespace OpenMMFlow
