// SPDX-License-Identifier: MIT
// Fuzz target: any text as the XML of a FlowForce, read by OpenMM and our proxy. Either OpenMMException says what is wrong with it, or
// it is a force that is written and read again as the same text, and whose Context has finite energies or is refused with a reason.
#include "FuzzTarget.h"

#include "FlowForce.h"
#include "PluginRegistration.h"

#include <OpenMM.h>

#include <memory>
#include <sstream>
#include <string>

using namespace OpenMMFlow;

namespace {

/** Larger Systems are not made, so that an input takes milliseconds. */
constexpr int maxParticles = 64;

std::string toXml(const FlowForce& force) {
    std::ostringstream xml;
    OpenMM::XmlSerializer::serialize<OpenMM::Force>(&force, "Force", xml);
    return xml.str();
}

std::unique_ptr<FlowForce> fromXml(const std::string& xml) {
    std::istringstream stream(xml);
    std::unique_ptr<OpenMM::Force> force(OpenMM::XmlSerializer::deserialize<OpenMM::Force>(stream));
    require(dynamic_cast<FlowForce*>(force.get()) != nullptr, "the proxy makes a FlowForce");
    return std::unique_ptr<FlowForce>(static_cast<FlowForce*>(force.release()));
}

OpenMM::Platform& referencePlatform() {
    static const bool loaded = (OpenMM::Platform::loadPluginLibrary(OPENMMFLOW_REFERENCE_PLUGIN), true);
    (void) loaded;
    return OpenMM::Platform::getPlatform("Reference");
}

void evaluate(std::unique_ptr<FlowForce> force) {
    int numParticles = force->getModel().getNumParticles();
    for (int i = 0; i < force->getNumMolecules(); i++)
        for (int particle : force->getMoleculeParticles(i))
            numParticles = std::max(numParticles, particle < maxParticles ? particle+1 : 0);
    if (numParticles > maxParticles)
        return;
    OpenMM::System system;
    std::vector<OpenMM::Vec3> positions;
    for (int i = 0; i < numParticles; i++) {
        system.addParticle(12);
        // no two at one place, no three on a line
        positions.emplace_back(0.1*i, 0.01*i*i, 0.05*(i%3));
    }
    system.addForce(force.release());
    OpenMM::VerletIntegrator integrator(0.001);
    OpenMM::Context context(system, integrator, referencePlatform());
    context.setPositions(positions);
    context.getState(OpenMM::State::Energy | OpenMM::State::Forces);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string xml(reinterpret_cast<const char*>(data), size);
    // Of any other type OpenMM makes another object, which is not ours to test.
    if (xml.find("type=\"FlowForce\"") == std::string::npos)
        return 0;
    try {
        std::unique_ptr<FlowForce> force = fromXml(xml);
        const std::string written = toXml(*force);
        require(toXml(*fromXml(written)) == written, "a force is read as it was written");
        evaluate(std::move(force));
    }
    catch (const OpenMM::OpenMMException& error) {
        require(*error.what() != '\0', "an error says what is wrong");
    }
    return 0;
}
