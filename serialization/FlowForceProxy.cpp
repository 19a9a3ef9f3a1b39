// SPDX-License-Identifier: MIT
#include "FlowForceProxy.h"
#include "Base64.h"
#include "FlowForce.h"

#include <openmm/OpenMMException.h>
#include <openmm/serialization/SerializationNode.h>

#include <zlib.h>

#include <iomanip>
#include <memory>
#include <sstream>

using OpenMM::OpenMMException;
using OpenMM::SerializationNode;

namespace OpenMMFlow {

namespace {

/** Of what serialize() writes. Every change of it counts one up, and deserialize() keeps reading all versions before. */
constexpr int version = 1;

/** CRC-32 of zlib and PNG, eight hexadecimal digits. */
std::string crc32Of(const std::string& bytes) {
    std::ostringstream digits;
    digits << std::hex << std::setw(8) << std::setfill('0')
           << ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
    return digits.str();
}

void writeModel(const FlowModel& model, SerializationNode& node) {
    const std::string bytes = model.toBytes();
    node.setStringProperty("crc32", crc32Of(bytes)).setStringProperty("base64", encodeBase64(bytes));
}

FlowModel readModel(const SerializationNode& node) {
    try {
        const std::string bytes = decodeBase64(node.getStringProperty("base64"));
        const std::string stored = node.getStringProperty("crc32"), computed = crc32Of(bytes);
        if (stored != computed)
            throw OpenMMException("its CRC-32 is "+computed+", but should be "+stored+"; the data were damaged");
        return FlowModel::fromBytes(bytes);
    }
    catch (const std::exception& error) {
        throw OpenMMException("FlowForce: the model in the XML cannot be read: "+std::string(error.what()));
    }
}

void writeValues(const std::vector<double>& values, const char* name, SerializationNode& node) {
    for (double value : values)
        node.createChildNode(name).setDoubleProperty("value", value);
}

/** Margins are written even if they are the defaults, so that a later version with others reads the same potential. */
void writeMargins(const FlowForce& force, SerializationNode& node) {
    const SupportMargins margins = force.getMargins();
    node.setBoolProperty("default", !force.hasMarginsOverride());
    writeValues(margins.bonds, "Bond", node);
    writeValues(margins.angles, "Angle", node);
    writeValues(margins.torsionAngles, "TorsionAngle", node);
}

void readMargins(const SerializationNode& node, FlowForce& force) {
    SupportMargins margins;
    for (const SerializationNode& child : node.getChildren()) {
        const double value = child.getDoubleProperty("value");
        if (child.getName() == "Bond")
            margins.bonds.push_back(value);
        else if (child.getName() == "Angle")
            margins.angles.push_back(value);
        else if (child.getName() == "TorsionAngle")
            margins.torsionAngles.push_back(value);
        else
            throw OpenMMException("FlowForce: unknown kind of margin '"+child.getName()+"' in the XML");
    }
    const SupportMargins defaults = force.getMargins();
    if (node.getBoolProperty("default") && margins.bonds == defaults.bonds && margins.angles == defaults.angles
            && margins.torsionAngles == defaults.torsionAngles)
        return;
    force.setMargins(margins);
}

} // namespace

FlowForceProxy::FlowForceProxy() : SerializationProxy("FlowForce") {
}

void FlowForceProxy::serialize(const void* object, SerializationNode& node) const {
    const FlowForce& force = *static_cast<const FlowForce*>(object);
    node.setIntProperty("version", version);
    node.setIntProperty("forceGroup", force.getForceGroup());
    node.setStringProperty("name", force.getName());
    node.setBoolProperty("usesPeriodicBoundaryConditions", force.usesPeriodicBoundaryConditions());
    node.setStringProperty("scaleParameter", force.getScaleParameterName());
    node.setDoubleProperty("defaultScale", force.getDefaultScale());
    if (force.hasTemperatureOverride())
        node.setDoubleProperty("temperature", force.getTemperature());
    SerializationNode& derivatives = node.createChildNode("EnergyParameterDerivatives");
    for (int i = 0; i < force.getNumEnergyParameterDerivatives(); i++)
        derivatives.createChildNode("Parameter").setStringProperty("name", force.getEnergyParameterDerivativeName(i));
    SerializationNode& molecules = node.createChildNode("Molecules");
    for (int i = 0; i < force.getNumMolecules(); i++) {
        SerializationNode& molecule = molecules.createChildNode("Molecule");
        for (int particle : force.getMoleculeParticles(i))
            molecule.createChildNode("Particle").setIntProperty("index", particle);
    }
    writeMargins(force, node.createChildNode("Margins"));
    writeModel(force.getModel(), node.createChildNode("Model"));
}

void* FlowForceProxy::deserialize(const SerializationNode& node) const {
    const int stored = node.getIntProperty("version");
    if (stored < 1 || stored > version) {
        std::ostringstream message;
        message << "FlowForce: the XML has version " << stored << " of it, this OpenMM-Flow reads versions 1 to " << version;
        if (stored > version)
            message << "; install a newer one";
        throw OpenMMException(message.str());
    }
    auto force = std::make_unique<FlowForce>(readModel(node.getChildNode("Model")));
    force->setForceGroup(node.getIntProperty("forceGroup"));
    force->setName(node.getStringProperty("name"));
    force->setUsesPeriodicBoundaryConditions(node.getBoolProperty("usesPeriodicBoundaryConditions"));
    force->setScaleParameterName(node.getStringProperty("scaleParameter"));
    force->setDefaultScale(node.getDoubleProperty("defaultScale"));
    if (node.hasProperty("temperature"))
        force->setTemperature(node.getDoubleProperty("temperature"));
    for (const SerializationNode& parameter : node.getChildNode("EnergyParameterDerivatives").getChildren())
        force->addEnergyParameterDerivative(parameter.getStringProperty("name"));
    for (const SerializationNode& molecule : node.getChildNode("Molecules").getChildren()) {
        std::vector<int> particles;
        for (const SerializationNode& particle : molecule.getChildren())
            particles.push_back(particle.getIntProperty("index"));
        force->addMolecule(particles);
    }
    readMargins(node.getChildNode("Margins"), *force);
    return force.release();
}

} // namespace OpenMMFlow
