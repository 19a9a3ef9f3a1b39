// SPDX-License-Identifier: MIT
// ln p and latents of the molecules of a Context.
#include "FlowForceTesting.h"

#include <cmath>
#include <numeric>

namespace OpenMMFlow {

class FlowForceQueries : public FlowForceTest {
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceQueries, testing::Combine(testPlatforms, testModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceQueries, testing::Combine(gpuDouble, testing::Values(1)), flowForceTestName);

TEST_P(FlowForceQueries, AreThoseOfTheModel) {
    const int size = model.getNumParticles(), numMolecules = 3;
    auto* force = new FlowForce(model);
    std::vector<OpenMM::Vec3> positions;
    std::vector<double> flat;
    for (int m = 0; m < numMolecules; m++) {
        std::vector<int> particles;
        // The last molecule is outside of the support.
        for (const auto& position : perturbed(conformation(model, random), m == 2 ? 0.3 : 0, random)) {
            particles.push_back(positions.size());
            positions.push_back(position);
            flat.insert(flat.end(), {position[0], position[1], position[2]});
        }
        force->addMolecule(particles);
    }
    ASSERT_EQ(static_cast<int>(positions.size()), numMolecules*size);
    Simulation simulation(platform, force, positions);
    std::vector<double> logProbs(numMolecules), latents(numMolecules*model.getNumCoordinates());
    model.toLatent(flat.data(), numMolecules, latents.data(), logProbs.data());

    EXPECT_EQ(force->getLogProbs(*simulation.context), logProbs);
    EXPECT_TRUE(std::isfinite(logProbs[0]) && std::isfinite(logProbs[1]));
    EXPECT_EQ(logProbs[2], -HUGE_VAL);
    const auto found = force->getLatents(*simulation.context);
    ASSERT_EQ(static_cast<int>(found.size()), numMolecules);
    for (int m = 0; m < numMolecules; m++) {
        ASSERT_EQ(static_cast<int>(found[m].size()), model.getNumCoordinates());
        for (int i = 0; i < model.getNumCoordinates(); i++) {
            const double expected = latents[m*model.getNumCoordinates()+i];
            if (m < 2) {
                EXPECT_EQ(found[m][i], expected);
            }
            else {
                EXPECT_TRUE(std::isnan(found[m][i]) && std::isnan(expected));
            }
        }
    }
}

TEST_P(FlowForceQueries, CountEvaluationsOutsideOfTheInnerSupport) {
    const int size = model.getNumParticles(), numMolecules = 40;
    auto* force = new FlowForce(model);
    std::vector<OpenMM::Vec3> positions, apart;
    int numOutside = 0;
    for (int m = 0; m < numMolecules; m++) {
        std::vector<int> particles(size);
        std::iota(particles.begin(), particles.end(), m*size);
        force->addMolecule(particles);
        // Some with bonds ten times too long; of the others, nothing is at an edge.
        const bool isOutside = (m%7 == 3);
        numOutside += isOutside;
        for (const auto& position : conformation(model, random)) {
            positions.push_back(position);
            apart.push_back(position*(isOutside ? 10 : 1));
        }
    }
    Simulation simulation(platform, force, positions);
    EXPECT_EQ(force->getNumSupportExits(*simulation.context), 0) << "nothing was evaluated";
    simulation.energy();
    EXPECT_EQ(force->getNumSupportExits(*simulation.context), 0);
    simulation.context->setPositions(apart);
    simulation.energy();
    EXPECT_EQ(force->getNumSupportExits(*simulation.context), numOutside);
    simulation.forces();
    EXPECT_EQ(force->getNumSupportExits(*simulation.context), 2*numOutside) << "forces count, too";
    force->updateParametersInContext(*simulation.context);
    EXPECT_EQ(force->getNumSupportExits(*simulation.context), 2*numOutside) << "new parameters do not reset it";
    simulation.context->setPositions(positions);
    simulation.energy();
    EXPECT_EQ(force->getNumSupportExits(*simulation.context), 2*numOutside);
    simulation.context->reinitialize(true);
    EXPECT_EQ(force->getNumSupportExits(*simulation.context), 0) << "a new Context begins anew";
}

TEST_P(FlowForceQueries, NeedAContextThatHoldsTheForce) {
    const auto positions = conformation(model, random);
    Simulation simulation(platform, new FlowForce(model), positions);
    FlowForce stranger(model);
    expectError([&] { stranger.getLogProbs(*simulation.context); }, {"not present in the Context"});
    expectError([&] { stranger.getNumSupportExits(*simulation.context); }, {"not present in the Context"});
    expectError([&] { stranger.getLatents(*simulation.context); }, {"not present in the Context"});
    expectError([&] { stranger.updateParametersInContext(*simulation.context); }, {"not present in the Context"});
}

} // namespace OpenMMFlow
