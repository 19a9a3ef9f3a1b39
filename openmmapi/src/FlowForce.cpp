// SPDX-License-Identifier: MIT
#include "FlowForce.h"
#include "internal/FlowForceImpl.h"

#include <openmm/OpenMMException.h>

#include <cmath>
#include <sstream>

using OpenMM::OpenMMException;

namespace OpenMMFlow {

namespace {

FlowModel loadModel(const std::string& path) {
    try {
        return FlowModel::load(path);
    }
    catch (const FlowModelError& error) {
        throw OpenMMException(error.what());
    }
}

void checkIndex(const char* what, int index, int count) {
    if (index >= 0 && index < count)
        return;
    std::ostringstream message;
    message << "FlowForce: there is no " << what << " " << index << "; there " << (count == 1 ? "is " : "are ") << count;
    throw OpenMMException(message.str());
}

void checkMargins(const char* kind, const std::vector<double>& margins, const std::vector<double>& defaults) {
    std::ostringstream message;
    if (margins.size() != defaults.size())
        message << "FlowForce: there are " << margins.size() << " margins of " << kind << ", the model has " << defaults.size()
                << " " << kind;
    for (double margin : margins)
        if (!(std::isfinite(margin) && margin > 0))
            message << "FlowForce: a margin of " << kind << " is " << margin << ", it must be finite and > 0";
    if (!message.str().empty())
        throw OpenMMException(message.str());
}

} // namespace

FlowForce::FlowForce(const FlowModel& model) : model(model) {
}

FlowForce::FlowForce(const std::string& path) : model(loadModel(path)) {
}

void FlowForce::setModel(const FlowModel& model) {
    if (!this->model.hasSameArchitecture(model))
        margins.reset();
    this->model = model;
}

int FlowForce::addMolecule(const std::vector<int>& particles) {
    molecules.push_back(particles);
    return getNumMolecules()-1;
}

const std::vector<int>& FlowForce::getMoleculeParticles(int index) const {
    checkIndex("molecule", index, getNumMolecules());
    return molecules[index];
}

void FlowForce::setMoleculeParticles(int index, const std::vector<int>& particles) {
    checkIndex("molecule", index, getNumMolecules());
    molecules[index] = particles;
}

double FlowForce::getTemperature() const {
    return temperature.value_or(model.getTemperature());
}

void FlowForce::setTemperature(double temperature) {
    if (!(std::isfinite(temperature) && temperature > 0)) {
        std::ostringstream message;
        message << "FlowForce: the temperature is " << temperature << " K, it must be finite and > 0";
        throw OpenMMException(message.str());
    }
    this->temperature = temperature;
}

void FlowForce::setScaleParameterName(const std::string& name) {
    if (name.empty())
        throw OpenMMException("FlowForce: the name of the scale parameter is empty");
    scaleParameterName = name;
}

void FlowForce::setDefaultScale(double scale) {
    if (!std::isfinite(scale)) {
        std::ostringstream message;
        message << "FlowForce: the default scale is " << scale << ", it must be finite";
        throw OpenMMException(message.str());
    }
    defaultScale = scale;
}

void FlowForce::addEnergyParameterDerivative(const std::string& name) {
    if (name != scaleParameterName)
        throw OpenMMException("FlowForce: it has no parameter '"+name+"' to differentiate by; its only one is '"
                +scaleParameterName+"' (getScaleParameterName())");
    scaleDerivative = true;
}

const std::string& FlowForce::getEnergyParameterDerivativeName(int index) const {
    checkIndex("energy parameter derivative", index, getNumEnergyParameterDerivatives());
    return scaleParameterName;
}

void FlowForce::setUsesPeriodicBoundaryConditions(bool periodic) {
    this->periodic = periodic;
}

SupportMargins FlowForce::getMargins() const {
    return margins ? *margins : defaultMargins(model);
}

void FlowForce::setMargins(const SupportMargins& margins) {
    SupportMargins defaults = defaultMargins(model);
    checkMargins("bonds", margins.bonds, defaults.bonds);
    checkMargins("angles", margins.angles, defaults.angles);
    checkMargins("torsion angles", margins.torsionAngles, defaults.torsionAngles);
    this->margins = margins;
}

void FlowForce::updateParametersInContext(OpenMM::Context& context) {
    dynamic_cast<FlowForceImpl&>(getImplInContext(context)).updateParametersInContext(getContextImpl(context));
}

std::vector<double> FlowForce::getLogProbs(OpenMM::Context& context) const {
    return dynamic_cast<FlowForceImpl&>(getImplInContext(context)).getLogProbs(getContextImpl(context));
}

std::vector<std::vector<double>> FlowForce::getLatents(OpenMM::Context& context) const {
    return dynamic_cast<FlowForceImpl&>(getImplInContext(context)).getLatents(getContextImpl(context));
}

long long FlowForce::getNumSupportExits(OpenMM::Context& context) const {
    return dynamic_cast<FlowForceImpl&>(getImplInContext(context)).getNumSupportExits();
}

OpenMM::ForceImpl* FlowForce::createImpl() const {
    return new FlowForceImpl(*this);
}

} // namespace OpenMMFlow
