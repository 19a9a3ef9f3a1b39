// SPDX-License-Identifier: MIT
// Several molecules in one System.
#include "FlowForceTesting.h"

#include <algorithm>
#include <cmath>
#include <numeric>

using OpenMM::Vec3;

namespace OpenMMFlow {

class FlowForceMolecules : public FlowForceTest {
protected:
    static constexpr int numMolecules = 21;    // some full blocks and a part of one

    /** Molecules of shuffled particles of a System that holds two others, too. */
    void SetUp() override {
        FlowForceTest::SetUp();
        const int size = model.getNumParticles();
        std::vector<int> order(numMolecules*size+2);
        std::iota(order.begin(), order.end(), 0);
        std::shuffle(order.begin(), order.end(), random);
        positions.resize(order.size());
        for (int m = 0; m < numMolecules; m++) {
            molecules.emplace_back(order.begin()+m*size, order.begin()+(m+1)*size);
            // The last ones lie outside of the support.
            conformations.push_back(perturbed(conformation(model, random), m < 15 ? 0 : 0.05, random));
            for (int i = 0; i < size; i++)
                positions[molecules[m][i]] = conformations[m][i];
        }
    }

    FlowForce* makeForce() const {
        auto* force = new FlowForce(model);
        for (const auto& particles : molecules)
            force->addMolecule(particles);
        return force;
    }

    std::vector<std::vector<int>> molecules;
    std::vector<std::vector<Vec3>> conformations;
    std::vector<Vec3> positions;
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceMolecules, testing::Combine(testPlatforms, testModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceMolecules, testing::Combine(gpuPlatforms, testing::Values(0, 3)), flowForceTestName);

TEST_P(FlowForceMolecules, AreTheSumOfSingleOnes) {
    auto* force = makeForce();
    Simulation all(platform, force, positions);
    Simulation one(platform, new FlowForce(model), conformations[0]);
    const auto forces = all.forces();
    const auto logProbs = force->getLogProbs(*all.context);
    ASSERT_EQ(logProbs.size(), molecules.size());
    double sum = 0, forceError = 0;
    for (int m = 0; m < numMolecules; m++) {
        one.context->setPositions(conformations[m]);
        sum += one.energy();
        const auto expected = one.forces();
        std::vector<Vec3> found;
        for (int particle : molecules[m])
            found.push_back(forces[particle]);
        forceError = std::max(forceError, maximumDifference(found, expected)/rootMeanSquare(expected));
    }
    const double energyError = std::abs(all.energy()-sum)/(numMolecules*thermalEnergyOf(model));
    report("energy error, k_B T per molecule", energyError);
    report("relative force error", forceError);
    EXPECT_LE(energyError, energyTolerance);
    EXPECT_LE(forceError, forceTolerance);
}

TEST_P(FlowForceMolecules, AreTheSameEachTime) {
    Simulation simulation(platform, makeForce(), positions);
    const double energy = simulation.energy();
    const auto forces = simulation.forces();
    for (int i = 0; i < 20; i++) {
        ASSERT_EQ(simulation.energy(), energy);
        ASSERT_EQ(maximumDifference(simulation.forces(), forces), 0);
    }
}

TEST_P(FlowForceMolecules, AreMoleculesOfTheContext) {
    Simulation simulation(platform, makeForce(), positions);
    auto found = simulation.context->getMolecules();
    for (auto& molecule : found)
        std::sort(molecule.begin(), molecule.end());
    EXPECT_EQ(found.size(), molecules.size()+2);
    for (auto molecule : molecules) {
        std::sort(molecule.begin(), molecule.end());
        EXPECT_NE(std::find(found.begin(), found.end(), molecule), found.end());
    }
}

TEST(FlowForceThreads, DoNotChangeTheResult) {
    OpenMM::Platform& platform = testPlatform("CPU");
    const FlowModel model = testModel(1);
    const int size = model.getNumParticles(), numMolecules = 53;
    std::mt19937 random(3);
    std::vector<Vec3> positions;
    OpenMM::System system;
    auto* force = new FlowForce(model);
    for (int m = 0; m < numMolecules; m++) {
        std::vector<int> particles(size);
        std::iota(particles.begin(), particles.end(), m*size);
        force->addMolecule(particles);
        for (const Vec3& position : conformation(model, random))
            positions.push_back(position);
    }
    addParticles(system, numMolecules*size);
    system.addForce(force);
    std::vector<double> energies;
    std::vector<std::vector<Vec3>> forces;
    for (const char* threads : {"1", "2", "5", "32"}) {
        OpenMM::VerletIntegrator integrator(0.001);
        OpenMM::Context context(system, integrator, platform, {{"Threads", threads}});
        context.setPositions(positions);
        const auto state = context.getState(OpenMM::State::Energy | OpenMM::State::Forces);
        energies.push_back(state.getPotentialEnergy());
        forces.push_back(state.getForces());
        EXPECT_EQ(energies.back(), energies.front()) << threads << " threads";
        EXPECT_EQ(maximumDifference(forces.back(), forces.front()), 0) << threads << " threads";
    }
}

} // namespace OpenMMFlow
