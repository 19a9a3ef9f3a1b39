// SPDX-License-Identifier: MIT
// The CPU platform under several numbers of threads: the same numbers every time, and those of Reference.
#include "FlowForceTesting.h"

#include <cmath>

using OpenMM::Vec3;

namespace OpenMMFlow {

/** Parameterised over the number of threads and the index of a test model. */
class FlowForceCpuThreads : public testing::TestWithParam<std::tuple<int, int>> {
protected:
    static constexpr int numMolecules = 75;    // blocks of every vector length, and a rest

    void SetUp() override {
        cpu.setPropertyDefaultValue("Threads", std::to_string(std::get<0>(GetParam())));
        for (int m = 0; m < numMolecules; m++)
            for (const Vec3& r : conformation(model, random))
                positions.push_back(r);
    }

    void TearDown() override {
        cpu.setPropertyDefaultValue("Threads", previousThreads);
    }

    FlowForce* makeForce(const FlowModel& model, int count = numMolecules) const {
        auto* force = new FlowForce(model);
        for (int m = 0; m < count; m++) {
            std::vector<int> particles;
            for (int i = 0; i < model.getNumParticles(); i++)
                particles.push_back(m*model.getNumParticles()+i);
            force->addMolecule(particles);
        }
        return force;
    }

    OpenMM::Platform& cpu = testPlatform("CPU");
    const std::string previousThreads = cpu.getPropertyDefaultValue("Threads");
    const FlowModel model = testModel(std::get<1>(GetParam()));
    std::mt19937 random{23};
    std::vector<Vec3> positions;
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceCpuThreads, testing::Combine(testing::Values(1, 2, 4), testModels),
        [](const testing::TestParamInfo<std::tuple<int, int>>& info) {
            return "Threads"+std::to_string(std::get<0>(info.param))+"Model"+std::to_string(std::get<1>(info.param));
        });

TEST_P(FlowForceCpuThreads, RepeatBitwise) {
    Simulation one(cpu, makeForce(model), positions), other(cpu, makeForce(model), positions);
    EXPECT_EQ(one.context->getPlatform().getPropertyValue(*one.context, "Threads"), std::to_string(std::get<0>(GetParam())));
    const double energy = one.energy();
    const std::vector<Vec3> forces = one.forces();
    for (int repeat = 0; repeat < 3; repeat++)
        for (Simulation* simulation : {&one, &other}) {
            EXPECT_EQ(simulation->energy(), energy);
            EXPECT_EQ(simulation->forces(), forces);
        }
}

TEST_P(FlowForceCpuThreads, DoNotChangeResults) {
    // Molecules one by one, in half blocks and in blocks.
    for (int count : {3, 20, numMolecules}) {
        const std::vector<Vec3> some(positions.begin(), positions.begin()+count*model.getNumParticles());
        Simulation simulation(cpu, makeForce(model, count), some);
        cpu.setPropertyDefaultValue("Threads", "1");
        Simulation alone(cpu, makeForce(model, count), some);
        cpu.setPropertyDefaultValue("Threads", std::to_string(std::get<0>(GetParam())));
        EXPECT_EQ(simulation.energy(), alone.energy());
        EXPECT_EQ(simulation.forces(), alone.forces());
        Simulation reference(testPlatform("Reference"), makeForce(model, count), some);
        const std::vector<Vec3> expected = reference.forces();
        EXPECT_LE(maximumDifference(simulation.forces(), expected), 1e-3*rootMeanSquare(expected));
    }
}

TEST_P(FlowForceCpuThreads, AgreeWithReference) {
    Simulation single(cpu, makeForce(model), positions), reference(testPlatform("Reference"), makeForce(model), positions);
    const double energyError = std::fabs(single.energy()-reference.energy())/thermalEnergyOf(model);
    const std::vector<Vec3> expected = reference.forces();
    const double forceError = maximumDifference(single.forces(), expected)/rootMeanSquare(expected);
    report("energy error, k_B T", energyError);
    report("largest force error of the RMS force", forceError);
    EXPECT_LE(energyError, 2e-4*numMolecules);
    EXPECT_LE(forceError, 1e-3);
}

TEST_P(FlowForceCpuThreads, TakeNewWeights) {
    FlowForce* force = makeForce(model);
    Simulation simulation(cpu, force, positions);
    simulation.energy();
    const FlowModel other = scaledModel(std::get<1>(GetParam()), 0.9);
    force->setModel(other);
    force->updateParametersInContext(*simulation.context);
    Simulation fresh(cpu, makeForce(other), positions);
    EXPECT_EQ(simulation.energy(), fresh.energy());
    EXPECT_EQ(simulation.forces(), fresh.forces());
}

} // namespace OpenMMFlow
