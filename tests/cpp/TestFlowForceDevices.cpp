// SPDX-License-Identifier: MIT
// A Context on several devices: two where there are two, else one that is given twice.
#include "FlowForceTesting.h"

#include <algorithm>
#include <cmath>
#include <numeric>

using OpenMM::Vec3;

namespace OpenMMFlow {

class FlowForceDevices : public FlowForceTest {
protected:
    static constexpr int numMolecules = 5;
    const int size = model.getNumParticles();
    std::vector<Vec3> positions;
    double stepSize = 1e-5;
    std::string devices;

    void SetUp() override {
        FlowForceTest::SetUp();
        if (IsSkipped())
            return;
        static const std::string found = twoDevices(platform);
        devices = found;
        for (int m = 0; m < numMolecules; m++)
            // The last ones lie outside of the support.
            for (const Vec3& position : perturbed(conformation(model, random), m < 3 ? 0 : 0.1, random))
                positions.push_back(position);
    }

    void TearDown() override {
        if (!IsSkipped())
            platform.setPropertyDefaultValue("DeviceIndex", "");
    }

    FlowForce* makeForce() const {
        auto* force = new FlowForce(model);
        for (int m = 0; m < numMolecules; m++) {
            std::vector<int> particles(size);
            std::iota(particles.begin(), particles.end(), m*size);
            force->addMolecule(particles);
        }
        return force;
    }

    /** For DeviceIndex. */
    static std::string twoDevices(OpenMM::Platform& platform) {
        try {
            platform.setPropertyDefaultValue("DeviceIndex", "0,1");
            OpenMM::System system;
            addParticles(system, 2);
            OpenMM::VerletIntegrator integrator(0.001);
            OpenMM::Context context(system, integrator, platform);
            return "0,1";
        }
        catch (const OpenMM::OpenMMException&) {
            return "0,0";
        }
    }

    std::unique_ptr<Simulation> simulate(FlowForce* force, const std::string& devices) {
        platform.setPropertyDefaultValue("DeviceIndex", devices);
        auto simulation = std::make_unique<Simulation>(platform, [&](OpenMM::System& system) {
            addParticles(system, positions.size());
            system.addForce(force);
        }, positions, std::make_unique<OpenMM::VerletIntegrator>(stepSize));
        platform.setPropertyDefaultValue("DeviceIndex", "");
        return simulation;
    }
};

INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceDevices, testing::Combine(gpuPlatforms, testing::Values(1, 3)), flowForceTestName);

TEST_P(FlowForceDevices, SplitTheMolecules) {
    auto *force = makeForce(), *splitForce = makeForce();
    const auto one = simulate(force, ""), two = simulate(splitForce, devices);
    // Each device adds its forces in its own order of rounding, and only the first one knows positions beyond single precision.
    const double tolerance = isDouble ? 1e-9 : 2e-3;
    double energyError = 0, forceError = 0;
    for (int step = 0; step < 20; step++) {
        const double scale = rootMeanSquare(one->forces());
        forceError = std::max(forceError, maximumDifference(one->forces(), two->forces())/scale);
        energyError = std::max(energyError, std::abs(one->energy()-two->energy())/(1+std::abs(one->energy())));
        // Both from the same place, so that errors do not grow.
        one->integrator->step(1);
        two->integrator->step(1);
        const auto expected = one->context->getState(OpenMM::State::Positions).getPositions();
        EXPECT_LT(maximumDifference(expected, two->context->getState(OpenMM::State::Positions).getPositions()), 1e-6);
        two->context->setPositions(expected);
        two->context->setVelocities(one->context->getState(OpenMM::State::Velocities).getVelocities());
    }
    report("largest difference of forces, relative", forceError);
    report("largest difference of energies, relative", energyError);
    EXPECT_LE(forceError, tolerance);
    EXPECT_LE(energyError, tolerance);
    EXPECT_GT(force->getNumSupportExits(*one->context), 0);
    const FlowModel weaker = scaledModel(modelIndex, 0.5);
    for (auto& [simulation, each] : {std::make_pair(one.get(), force), std::make_pair(two.get(), splitForce)}) {
        simulation->context->setPositions(positions);
        each->setModel(weaker);
        each->updateParametersInContext(*simulation->context);
    }
    EXPECT_NEAR(two->energy(), one->energy(), tolerance*std::abs(one->energy()));
    EXPECT_LE(maximumDifference(one->forces(), two->forces()), tolerance*rootMeanSquare(one->forces()));
}

TEST_P(FlowForceDevices, CountWhatLeavesTheSupport) {
    auto *force = makeForce(), *splitForce = makeForce();
    const auto one = simulate(force, ""), two = simulate(splitForce, devices);
    for (Simulation* simulation : {one.get(), two.get()})
        for (int i = 0; i < 3; i++)
            simulation->energy();
    EXPECT_GT(force->getNumSupportExits(*one->context), 0);
    EXPECT_EQ(splitForce->getNumSupportExits(*two->context), force->getNumSupportExits(*one->context));
}

TEST_P(FlowForceDevices, KnowTheDerivativeWithRespectToTheScale) {
    auto *force = makeForce(), *splitForce = makeForce();
    for (FlowForce* each : {force, splitForce})
        each->addEnergyParameterDerivative("FlowScale");
    const auto one = simulate(force, ""), two = simulate(splitForce, devices);
    const auto derivative = [](const Simulation& simulation) {
        return simulation.context->getState(OpenMM::State::ParameterDerivatives).getEnergyParameterDerivatives().at("FlowScale");
    };
    const double expected = derivative(*one);
    EXPECT_NE(expected, 0);
    EXPECT_NEAR(derivative(*two), expected, 1e-6*std::abs(expected));
}

} // namespace OpenMMFlow
