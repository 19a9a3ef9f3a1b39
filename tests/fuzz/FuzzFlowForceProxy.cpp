// SPDX-License-Identifier: MIT
// Fuzz target: any tree of nodes and properties as what OpenMM's XML reader hands to our proxy. Either OpenMMException says what is wrong
// with it, or it is a force that is written and read again the same, and whose Context can be evaluated or is refused with a reason.
//
// The tree comes as JSON: {"name": ..., "properties": {name: text}, "children": [...]}. XML itself would be read by OpenMM's reader, which
// runs beyond the end of some documents that were cut short (docs/trust.md).
#include "FuzzTarget.h"

#include "FlowForce.h"
#include "FlowForceProxy.h"

#include <OpenMM.h>
#include <nlohmann/json.hpp>
#include <openmm/serialization/SerializationNode.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

using namespace OpenMMFlow;
using nlohmann::json;
using OpenMM::SerializationNode;

namespace {

/** Larger Systems are not made, so that an input takes milliseconds. */
constexpr int maxParticles = 64;

/** Whether a document is a tree; then it is added to the node. */
bool readNode(const json& document, SerializationNode& node) {
    if (!document.is_object())
        return false;
    node.setName(document.contains("name") && document["name"].is_string() ? document["name"].get<std::string>() : "");
    if (document.contains("properties") && document["properties"].is_object())
        for (const auto& [name, value] : document["properties"].items())
            node.setStringProperty(name, value.is_string() ? value.get<std::string>() : value.dump());
    if (document.contains("children") && document["children"].is_array())
        for (const json& child : document["children"])
            if (!readNode(child, node.createChildNode("")))
                return false;
    return true;
}

json writeNode(const SerializationNode& node) {
    json children = json::array();
    for (const SerializationNode& child : node.getChildren())
        children.push_back(writeNode(child));
    return {{"name", node.getName()}, {"properties", node.getProperties()}, {"children", children}};
}

std::unique_ptr<FlowForce> deserialize(const SerializationNode& node) {
    return std::unique_ptr<FlowForce>(static_cast<FlowForce*>(FlowForceProxy().deserialize(node)));
}

json serialize(const FlowForce& force) {
    SerializationNode node;
    FlowForceProxy().serialize(&force, node);
    return writeNode(node);
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
            numParticles = std::max(numParticles, std::min(particle, maxParticles)+1);
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
    const json document = json::parse(data, data+size, nullptr, false);
    SerializationNode node;
    if (document.is_discarded() || !readNode(document, node))
        return 0;
    try {
        std::unique_ptr<FlowForce> force = deserialize(node);
        const json written = serialize(*force);
        SerializationNode again;
        require(readNode(written, again) && serialize(*deserialize(again)) == written, "a force is read as it was written");
        evaluate(std::move(force));
    }
    catch (const OpenMM::OpenMMException& error) {
        require(*error.what() != '\0', "an error says what is wrong");
    }
    return 0;
}
