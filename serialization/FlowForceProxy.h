// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWFORCEPROXY_H_
#define OPENMMFLOW_FLOWFORCEPROXY_H_

#include <openmm/serialization/SerializationProxy.h>

namespace OpenMMFlow {

/** Writes a FlowForce, with its whole model, into XML and reads it again: with the same energies, bit for bit. */
class FlowForceProxy : public OpenMM::SerializationProxy {
public:
    FlowForceProxy();
    void serialize(const void* object, OpenMM::SerializationNode& node) const override;
    /** OpenMMException if the version is from the future, the model was damaged, or anything is missing or not valid. */
    void* deserialize(const OpenMM::SerializationNode& node) const override;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWFORCEPROXY_H_
