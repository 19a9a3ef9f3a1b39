// SPDX-License-Identifier: MIT
#include "PluginRegistration.h"
#include "internal/CalcFlowForceKernel.h"

#include <openmm/OpenMMException.h>
#include <openmm/Platform.h>

#include <algorithm>
#include <exception>
#include <sstream>

using OpenMM::Platform;

namespace OpenMMFlow {

namespace {

/** One line for each plugin library that registered or declined to. OpenMM loads them in one thread. */
std::vector<std::string>& registrations() {
    static std::vector<std::string> lines;
    return lines;
}

Platform* findPlatform(const std::string& name) {
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        if (Platform::getPlatform(i).getName() == name)
            return &Platform::getPlatform(i);
    return nullptr;
}

std::string join(const std::vector<std::string>& parts, const char* separator) {
    std::string joined;
    for (const std::string& part : parts)
        joined += (joined.empty() ? "" : separator)+part;
    return joined;
}

/** Names of the platforms; only those that FlowForce runs on, if asked for. */
std::string platformNames(bool onlySupported) {
    std::vector<std::string> names;
    for (int i = 0; i < Platform::getNumPlatforms(); i++) {
        const Platform& platform = Platform::getPlatform(i);
        if (!onlySupported || platform.supportsKernels({CalcFlowForceKernel::Name()}))
            names.push_back(platform.getName());
    }
    return names.empty() ? "none" : join(names, ", ");
}

/** Major and minor version: "8.6" of "8.6.1". */
std::string minorVersion(const std::string& version) {
    std::size_t dot = version.find('.');
    return dot == std::string::npos ? version : version.substr(0, version.find('.', dot+1));
}

/** What became of the plugin libraries, and those that OpenMM could not load. */
std::string pluginReport() {
    std::string report = "\nOpenMM-Flow's plugin libraries: "+std::string(openmmflowRegistrationMessage());
    for (const std::string& failure : Platform::getPluginLoadFailures())
        report += "\nOpenMM could not load: "+failure;
    return report;
}

} // namespace

std::string versionMismatch() {
    const std::string built = minorVersion(OPENMMFLOW_OPENMM_VERSION), running = minorVersion(Platform::getOpenMMVersion());
    if (built == running)
        return "";
    return "this OpenMM-Flow was built for OpenMM "+built+", but OpenMM "+Platform::getOpenMMVersion()
            +" is running. Install an OpenMM-Flow built for OpenMM "+running+", or OpenMM "+built;
}

std::string whyNotSupported(const std::string& platformName) {
    const Platform* platform = findPlatform(platformName);
    if (platform == nullptr)
        return "OpenMM has no platform "+platformName+" in this process; it has "+platformNames(false)+"."+pluginReport();
    if (platform->supportsKernels({CalcFlowForceKernel::Name()}))
        return "";
    return "FlowForce does not run on the platform "+platformName+", as no plugin library of OpenMM-Flow for it was loaded. It runs on: "
            +platformNames(true)+"."+pluginReport();
}

void requireAnyPlatform() {
    for (int i = 0; i < Platform::getNumPlatforms(); i++)
        if (Platform::getPlatform(i).supportsKernels({CalcFlowForceKernel::Name()}))
            return;
    throw OpenMM::OpenMMException("FlowForce runs on none of the platforms of this process ("+platformNames(false)
            +"), as no plugin library of OpenMM-Flow registered itself. They are loaded with OpenMM's own, by "
            "Platform::loadPluginsFromDirectory(); in Python by 'import openmm'."+pluginReport());
}

void registerFlowKernels(const std::string& library, const std::vector<std::string>& platforms, OpenMM::KernelFactory& factory) noexcept {
    // An exception would break `import openmm`.
    try {
        std::string line = library+": ", mismatch = versionMismatch();
        if (mismatch.empty()) {
            std::vector<std::string> served;
            for (const std::string& name : platforms)
                if (Platform* platform = findPlatform(name)) {
                    platform->registerKernelFactory(CalcFlowForceKernel::Name(), &factory);
                    served.push_back(name);
                }
            line += served.empty() ? "none of its platforms is there ("+join(platforms, ", ")+")" : "runs on "+join(served, ", ");
        }
        else
            line += "registered nothing: "+mismatch;
        registrations().push_back(line);
    }
    catch (const std::exception&) {
        // Out of memory: whoever asks for a FlowForce next will be told.
    }
}

} // namespace OpenMMFlow

extern "C" const char* openmmflowRegistrationMessage() {
    static std::string message;
    message = OpenMMFlow::registrations().empty() ? "none was loaded" : OpenMMFlow::join(OpenMMFlow::registrations(), "\n");
    return message.c_str();
}
