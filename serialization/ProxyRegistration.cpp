// SPDX-License-Identifier: MIT
#include "FlowForce.h"
#include "FlowForceProxy.h"
#include "PluginRegistration.h"

#include <exception>
#include <typeinfo>

namespace OpenMMFlow {

namespace {

bool registerProxies() noexcept {
    // This runs when the library is loaded, so perhaps inside `import openmm`, which an exception would break.
    try {
        if (!versionMismatch().empty())
            return false;
        OpenMM::SerializationProxy::registerProxy(typeid(FlowForce), new FlowForceProxy());
        return true;
    }
    catch (const std::exception&) {
        return false;
    }
}

[[maybe_unused]] const bool registered = registerProxies();

} // namespace

} // namespace OpenMMFlow
