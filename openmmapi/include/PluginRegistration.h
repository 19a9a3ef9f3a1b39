// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_PLUGINREGISTRATION_H_
#define OPENMMFLOW_PLUGINREGISTRATION_H_

#include <openmm/KernelFactory.h>

#include <string>
#include <vector>

/**
 * What became of OpenMM-Flow's plugin libraries in this process: for each one that OpenMM loaded, one line that says on which
 * platforms FlowForce now runs or why it registered nothing. Says so if none was loaded. The text stays valid until the next call.
 */
extern "C" const char* openmmflowRegistrationMessage();

namespace OpenMMFlow {

/**
 * Empty if this library works with the OpenMM that is running, that is, was built for its minor version; otherwise the reason why
 * not and what to do.
 */
std::string versionMismatch();

/** Empty if FlowForce runs on a platform, otherwise the reason why not and what to do. */
std::string whyNotSupported(const std::string& platformName);

/** OpenMMException with the reason and what to do if FlowForce runs on none of the platforms of this process. */
void requireAnyPlatform();

/**
 * Register a factory for the kernel of FlowForce: what each plugin library calls in registerKernelFactories(). It never throws,
 * registers nothing with another minor version of OpenMM than the one built for, and skips platforms that are not there. What it
 * did is added to openmmflowRegistrationMessage().
 *
 * @param library    name of the plugin library, for the message
 * @param platforms  names of the platforms that the factory serves
 * @param factory    makes the kernel; OpenMM never deletes factories, so it must live forever
 */
void registerFlowKernels(const std::string& library, const std::vector<std::string>& platforms, OpenMM::KernelFactory& factory) noexcept;

} // namespace OpenMMFlow

#endif // OPENMMFLOW_PLUGINREGISTRATION_H_
