// SPDX-License-Identifier: MIT
// What became of the plugin libraries: see PluginRegistration.h.

%rename(registrationMessage) openmmflowRegistrationMessage;
const char* openmmflowRegistrationMessage();

namespace OpenMMFlow {

std::string versionMismatch();
std::string whyNotSupported(const std::string& platformName);

} // namespace OpenMMFlow
