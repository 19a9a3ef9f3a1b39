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
        // Never deleted: OpenMM keeps the address until the process ends.
        static auto& proxy = *new FlowForceProxy();
        OpenMM::SerializationProxy::registerProxy(typeid(FlowForce), &proxy);
        return true;
    }
    catch (const std::exception&) {
        return false;
    }
}

[[maybe_unused]] const bool registered = registerProxies();

} // namespace

} // namespace OpenMMFlow
