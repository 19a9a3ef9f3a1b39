// SPDX-License-Identifier: MIT
// Many Contexts at once: in many threads, and one after the other.
#include "FlowForceTesting.h"

#include <malloc.h>

#include <numeric>
#include <thread>

using OpenMM::Vec3;

namespace OpenMMFlow {

namespace {

/** Positions after a few steps of Verlet dynamics of several molecules: with the same arguments always the same, bit for bit. */
std::vector<Vec3> trajectoryEnd(OpenMM::Platform& platform, int modelIndex, const FlowModel& model) {
    constexpr int numMolecules = 5, numSteps = 20;
    std::mt19937 random(modelIndex);
    auto* force = new FlowForce(model);
    std::vector<Vec3> positions;
    for (int m = 0; m < numMolecules; m++) {
        std::vector<int> particles(model.getNumParticles());
        std::iota(particles.begin(), particles.end(), m*model.getNumParticles());
        force->addMolecule(particles);
        for (const Vec3& position : conformation(model, random))
            positions.push_back(position);
    }
    Simulation simulation(platform, [&](OpenMM::System& system) {
        addParticles(system, positions.size());
        system.addForce(force);
    }, positions, std::make_unique<OpenMM::VerletIntegrator>(1e-5));
    simulation.integrator->step(numSteps);
    force->setModel(model);
    force->updateParametersInContext(*simulation.context);
    force->getLogProbs(*simulation.context);
    return simulation.context->getState(OpenMM::State::Positions | OpenMM::State::Energy).getPositions();
}

} // namespace

/** Parameterised over the platform. */
class FlowForceThreads : public testing::TestWithParam<std::string> {
protected:
    void SetUp() override {
        if (!hasDevice(GetParam()))
            GTEST_SKIP() << "there is no device for the platform " << platform.getName();
    }

    OpenMM::Platform& platform = testPlatform(GetParam());
};

class FlowForceLeaks : public FlowForceThreads {
};

static std::string platformName(const testing::TestParamInfo<std::string>& info) {
    return info.param;
}

INSTANTIATE_TEST_SUITE_P(Platforms, FlowForceThreads, testPlatforms, platformName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceThreads, testing::Values("GpuMixed"), platformName);
INSTANTIATE_TEST_SUITE_P(Platforms, FlowForceLeaks, testPlatforms, platformName);

TEST_P(FlowForceThreads, ContextsInManyThreadsAreIndependent) {
    constexpr int numThreads = 8, contextsOfEach = 3;
    // Models are shared between threads; several of them, several Contexts of each at a time.
    std::vector<FlowModel> models;
    std::vector<std::vector<Vec3>> expected;
    for (int i = 0; i < numTestModels; i++) {
        models.push_back(testModel(i));
        expected.push_back(trajectoryEnd(platform, i, models[i]));
    }
    std::vector<int> numEqual(numThreads, 0);
    std::vector<std::thread> threads;
    for (int t = 0; t < numThreads; t++)
        threads.emplace_back([&, t] {
            for (int c = 0; c < contextsOfEach; c++) {
                const int i = (t+c)%numTestModels;
                numEqual[t] += (trajectoryEnd(platform, i, models[i]) == expected[i]);
            }
        });
    for (std::thread& thread : threads)
        thread.join();
    EXPECT_EQ(numEqual, std::vector<int>(numThreads, contextsOfEach));
}

TEST_P(FlowForceThreads, OneModelIsEvaluatedByManyThreads) {
    const FlowModel model = testModel(0);    // compiled by whoever is first
    std::mt19937 random(3);
    const std::vector<double> x = randomConformation(model, random);
    constexpr int numThreads = 8;
    std::vector<double> values(numThreads);
    std::vector<std::thread> threads;
    for (int t = 0; t < numThreads; t++)
        threads.emplace_back([&, t] { model.logProb(x.data(), 1, &values[t]); });
    for (std::thread& thread : threads)
        thread.join();
    for (double value : values)
        EXPECT_EQ(value, values[0]);
}

TEST_P(FlowForceLeaks, AThousandContextsLeakNothing) {
    const FlowModel model = testModel(0);
    std::mt19937 random(5);
    const std::vector<Vec3> positions = conformation(model, random);
    const auto bytesInUse = [&](int numContexts) {
        for (int i = 0; i < numContexts; i++) {
            Simulation simulation(platform, new FlowForce(model), positions);
            simulation.energy();
            simulation.forces();
        }
        return static_cast<double>(mallinfo2().uordblks+mallinfo2().hblkhd);
    };
    const double before = bytesInUse(20);    // OpenMM's own tables are filled by then
    const double after = bytesInUse(1000);
    report("bytes left by a Context", (after-before)/1000);
    // What one Context leaves would be hundreds of bytes at least; OpenMM and the heap itself keep a few.
    EXPECT_LT((after-before)/1000, 64);
}

} // namespace OpenMMFlow
