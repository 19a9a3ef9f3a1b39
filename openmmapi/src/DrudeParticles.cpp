// SPDX-License-Identifier: MIT
#include "DrudeParticles.h"

#include <openmm/Force.h>
#include <openmm/OpenMMException.h>
#include <openmm/serialization/SerializationNode.h>
#include <openmm/serialization/SerializationProxy.h>

#include <typeinfo>

using OpenMM::Force;
using OpenMM::SerializationNode;
using OpenMM::SerializationProxy;

namespace OpenMMFlow {

namespace {

/** The proxy of a force's class; null if it has none. */
const SerializationProxy* findProxy(const Force& force) {
    try {
        return &SerializationProxy::getProxy(typeid(force));
    }
    catch (const OpenMM::OpenMMException&) {
        return nullptr;
    }
}

} // namespace

std::set<int> drudeParticles(const OpenMM::System& system) {
    // DrudeForce lives in a library of its own, which this one does not link. Its serialized form is as good a way to its
    // particles as its methods.
    std::set<int> particles;
    for (int i = 0; i < system.getNumForces(); i++) {
        const Force& force = system.getForce(i);
        const SerializationProxy* proxy = findProxy(force);
        if (proxy == nullptr || proxy->getTypeName() != "DrudeForce")
            continue;
        SerializationNode node;
        proxy->serialize(&force, node);
        for (const SerializationNode& pair : node.getChildNode("Particles").getChildren()) {
            particles.insert(pair.getIntProperty("p"));
            particles.insert(pair.getIntProperty("p1"));
        }
    }
    return particles;
}

} // namespace OpenMMFlow
