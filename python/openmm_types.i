// SPDX-License-Identifier: MIT
// The classes of OpenMM that the interface of FlowForce names. Their wrappers live in OpenMM's own module; %import'ed from there,
// they are the same types here, because SWIG modules share one table of types by name.

namespace OpenMM {

class Force {
public:
    virtual ~Force();

protected:
    Force();
};

class Context {
};

} // namespace OpenMM
