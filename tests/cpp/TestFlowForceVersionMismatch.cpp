// SPDX-License-Identifier: MIT
// What happens when OpenMM-Flow meets another OpenMM than it was built for. This program's definition of getOpenMMVersion() takes
// the place of OpenMM's in the whole process.
#include "FlowForce.h"
#include "PluginRegistration.h"
#include "RandomModels.h"
#include "internal/CalcFlowForceKernel.h"

#include <OpenMM.h>
#include <gtest/gtest.h>

#include <sstream>

const std::string& OpenMM::Platform::getOpenMMVersion() {
    static const std::string version = "99.1.2";
    return version;
}

namespace OpenMMFlow {

namespace {

bool tellsWhy(const std::string& message) {
    return message.find("built for OpenMM 8.6") != std::string::npos && message.find("99.1") != std::string::npos;
}

} // namespace

TEST(FlowForceVersionMismatch, NothingIsRegisteredAndTheReasonIsKept) {
    EXPECT_STREQ(openmmflowRegistrationMessage(), "none was loaded");
    EXPECT_TRUE(tellsWhy(versionMismatch())) << versionMismatch();
    ASSERT_NO_THROW(OpenMM::Platform::loadPluginLibrary(OPENMMFLOW_PLUGINS "/libOpenMMFlowReference.so"));
    EXPECT_FALSE(OpenMM::Platform::getPlatform("Reference").supportsKernels({CalcFlowForceKernel::Name()}));
    EXPECT_THROW(OpenMM::SerializationProxy::getProxy("FlowForce"), OpenMM::OpenMMException);
    EXPECT_TRUE(tellsWhy(openmmflowRegistrationMessage())) << openmmflowRegistrationMessage();
    EXPECT_TRUE(tellsWhy(whyNotSupported("Reference"))) << whyNotSupported("Reference");
    std::cout << openmmflowRegistrationMessage() << std::endl;
}

TEST(FlowForceVersionMismatch, AContextTellsTheReason) {
    OpenMM::Platform::loadPluginLibrary(OPENMMFLOW_PLUGINS "/libOpenMMFlowReference.so");
    const FlowModel model = randomModel(RandomModelOptions(), 1);
    OpenMM::System system;
    for (int i = 0; i < model.getNumParticles(); i++)
        system.addParticle(12);
    system.addForce(new FlowForce(model));
    OpenMM::VerletIntegrator integrator(0.001);
    try {
        OpenMM::Context context(system, integrator);
        FAIL() << "a Context was created";
    }
    catch (const OpenMM::OpenMMException& error) {
        EXPECT_TRUE(tellsWhy(error.what())) << error.what();
        std::cout << error.what() << std::endl;
    }
}

} // namespace OpenMMFlow
