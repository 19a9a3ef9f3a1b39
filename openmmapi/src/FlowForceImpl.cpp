// SPDX-License-Identifier: MIT
#include "internal/FlowForceImpl.h"
#include "PluginRegistration.h"
#include "internal/CalcFlowForceKernel.h"
#include "internal/MoleculeChecks.h"

#include <openmm/OpenMMException.h>
#include <openmm/VerletIntegrator.h>
#include <openmm/internal/ContextImpl.h>

#include <atomic>
#include <iostream>
#include <sstream>
#include <variant>

using OpenMM::ContextImpl;
using OpenMM::OpenMMException;
using OpenMM::Vec3;

namespace OpenMMFlow {

namespace {

/**
 * Whether a Context is the inner one of a CustomCVForce or ATMForce. Their Systems hold particles and forces only, so that the
 * constraints of the user's System cannot be seen. Nothing says so openly; what gives them away is the Verlet
 * integrator with a step of 1 ps that these forces make and never run.
 */
bool isInnerContext(ContextImpl& context) {
    auto* verlet = dynamic_cast<const OpenMM::VerletIntegrator*>(&context.getIntegrator());
    return verlet != nullptr && verlet->getStepSize() == 1.0 && context.getSystem().getNumConstraints() == 0;
}

/** Calls the kernel; what the engine has against a model or its margins becomes an OpenMMException. */
template <class Action>
void translateErrors(const Action& action) {
    try {
        action();
    }
    catch (const FlowModelError& error) {
        throw OpenMMException("FlowForce: "+std::string(error.what()));
    }
}

/** A density that depends on where a molecule stands has no meaning if the molecule stands anywhere but for a lattice vector. */
void checkMeasure(const FlowForce& force) {
    const Architecture& architecture = force.getModel().getArchitecture();
    if (force.usesPeriodicBoundaryConditions() && architecture.measure == Measure::Frame
            && std::holds_alternative<MixedCoordinatesLayer>(architecture.layers.front()))
        throw OpenMMException("FlowForce: the model has a block in Cartesian coordinates in measure \"frame\", so its density depends on "
                "where the molecule stands, and cannot be periodic. Call setUsesPeriodicBoundaryConditions(false), or use a model in "
                "measure \"cartesian\"");
}

/** Say on the error output, once in a process, that a model is not fit for dynamics. */
void warnIfNotSmooth(const FlowModel& model) {
    static std::atomic<bool> warned = false;
    std::string transformer;
    const int numDerivatives = model.getNumContinuousDerivatives(&transformer);
    if (numDerivatives >= 2 || warned.exchange(true))
        return;
    std::cerr << "FlowForce: warning: the "+transformer+" of this model has only "+std::to_string(numDerivatives)+" continuous derivative: "
            "the forces jump, and dynamics does not conserve energy. Use a model with smoother transformers, such as smoothMixture.\n";
}

} // namespace

FlowForceImpl::FlowForceImpl(const FlowForce& owner) : owner(owner), model(owner.getModel()),
        scaleParameterName(owner.getScaleParameterName()), numEnergyParameterDerivatives(owner.getNumEnergyParameterDerivatives()),
        periodic(owner.usesPeriodicBoundaryConditions()), gatherer(model.getArchitecture()) {
    forceGroup = owner.getForceGroup();
}

void FlowForceImpl::initialize(ContextImpl& context) {
    const OpenMM::System& system = context.getSystem();
    checkMeasure(owner);
    molecules = resolveMolecules(owner, system);
    checkParticles(molecules, system);
    if (!isInnerContext(context))
        checkConstraints(model, molecules, system);
    kernel = context.getPlatform().createKernel(CalcFlowForceKernel::Name(), context);
    translateErrors([&] { kernel.getAs<CalcFlowForceKernel>().initialize(system, owner, molecules); });
}

void FlowForceImpl::updateContextState(ContextImpl&, bool&) {
    // Positions, velocities and parameters are left alone. It is integrators that call this.
    if (!inDynamics) {
        inDynamics = true;
        warnIfNotSmooth(model);
    }
}

double FlowForceImpl::calcForcesAndEnergy(ContextImpl& context, bool includeForces, bool includeEnergy, int groups) {
    if ((groups & (1<<forceGroup)) == 0)
        return 0.0;
    return kernel.getAs<CalcFlowForceKernel>().execute(context, includeForces, includeEnergy);
}

std::map<std::string, double> FlowForceImpl::getDefaultParameters() {
    return {{scaleParameterName, owner.getDefaultScale()}};
}

std::vector<std::string> FlowForceImpl::getKernelNames() {
    // Otherwise OpenMM would say that no platform supports all kernels, but neither which kernel nor why.
    requireAnyPlatform();
    return {CalcFlowForceKernel::Name()};
}

std::vector<std::pair<int, int>> FlowForceImpl::getBondedParticles() const {
    std::vector<std::pair<int, int>> bonds;
    for (const auto& particles : molecules)
        for (const auto& bond : model.getArchitecture().bonds)
            bonds.emplace_back(particles[bond[0]], particles[bond[1]]);
    return bonds;
}

void FlowForceImpl::updateParametersInContext(ContextImpl& context) {
    std::string what;
    if (!model.hasSameArchitecture(owner.getModel()))
        what = "the architecture of the model";
    else if (resolveMolecules(owner, context.getSystem()) != molecules)
        what = "the molecules";
    else if (owner.getScaleParameterName() != scaleParameterName)
        what = "the name of the scale parameter";
    else if (owner.getNumEnergyParameterDerivatives() != numEnergyParameterDerivatives)
        what = "the requested energy parameter derivatives";
    else if (owner.usesPeriodicBoundaryConditions() != periodic)
        what = "the use of periodic boundary conditions";
    if (!what.empty())
        throw OpenMMException("FlowForce::updateParametersInContext: "+what+" changed. Weights, temperature and margins can change "
                "in a Context; for anything else call reinitialize() on it or create a new one");
    translateErrors([&] { kernel.getAs<CalcFlowForceKernel>().copyParametersToContext(context, owner); });
    model = owner.getModel();
    context.systemChanged();
}

std::vector<double> FlowForceImpl::gatherMolecules(ContextImpl& context) const {
    std::vector<Vec3> positions;
    context.getPositions(positions);
    Vec3 box[3];
    context.getPeriodicBoxVectors(box[0], box[1], box[2]);
    const int length = 3*model.getNumParticles();
    std::vector<double> gathered(molecules.size()*length);
    for (std::size_t i = 0; i < molecules.size(); i++)
        gatherer.gather(positions, molecules[i], periodic ? box : nullptr, gathered.data()+i*length);
    return gathered;
}

std::vector<double> FlowForceImpl::getLogProbs(ContextImpl& context) const {
    std::vector<double> logProbs(molecules.size());
    model.logProb(gatherMolecules(context).data(), molecules.size(), logProbs.data());
    return logProbs;
}

std::vector<std::vector<double>> FlowForceImpl::getLatents(ContextImpl& context) const {
    const int length = model.getNumCoordinates();
    std::vector<double> latents(molecules.size()*length);
    model.toLatent(gatherMolecules(context).data(), molecules.size(), latents.data());
    std::vector<std::vector<double>> result;
    for (auto begin = latents.begin(); begin != latents.end(); begin += length)
        result.emplace_back(begin, begin+length);
    return result;
}

long long FlowForceImpl::getNumSupportExits() {
    return kernel.getAs<CalcFlowForceKernel>().getNumSupportExits();
}

} // namespace OpenMMFlow
