// SPDX-License-Identifier: MIT
// Force groups, temperature, the scale parameter and its derivative, margins, and updateParametersInContext().
#include "FlowForceTesting.h"

#include <cmath>
#include <numeric>

using OpenMM::State;
using OpenMM::Vec3;

namespace OpenMMFlow {

class FlowForceParameters : public FlowForceTest {
protected:
    /** One conformation inside of the support and one outside. */
    std::vector<std::vector<Vec3>> conformations() {
        const auto inside = conformation(model, random);
        return {inside, perturbed(inside, 0.05, random)};
    }
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceParameters, testing::Combine(testPlatforms, testModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceParameters, testing::Combine(gpuDouble, testing::Values(2)), flowForceTestName);

TEST_P(FlowForceParameters, ForceGroupsAreObeyed) {
    auto* force = new FlowForce(model);
    force->setForceGroup(3);
    const auto positions = conformation(model, random);
    Simulation simulation(platform, force, positions);
    EXPECT_NE(simulation.energy(), 0);
    EXPECT_EQ(simulation.context->getState(State::Energy, false, 1<<3).getPotentialEnergy(), simulation.energy());
    const State other = simulation.context->getState(State::Energy | State::Forces, false, ~(1<<3));
    EXPECT_EQ(other.getPotentialEnergy(), 0);
    EXPECT_EQ(rootMeanSquare(other.getForces()), 0);
}

TEST_P(FlowForceParameters, TemperatureScalesTheEnergy) {
    for (const auto& positions : conformations()) {
        auto* force = new FlowForce(model);
        force->setTemperature(2*model.getTemperature());
        Simulation hot(platform, force, positions), usual(platform, new FlowForce(model), positions);
        EXPECT_NEAR(hot.energy(), 2*usual.energy(), 1e-13*std::abs(hot.energy()));
    }
}

TEST_P(FlowForceParameters, EnergyIsLinearInTheScale) {
    for (const auto& positions : conformations()) {
        auto* force = new FlowForce(model);
        force->addEnergyParameterDerivative("FlowScale");
        force->setDefaultScale(0.75);
        Simulation simulation(platform, force, positions);
        EXPECT_EQ(simulation.context->getParameter("FlowScale"), 0.75);
        auto energyAt = [&](double scale) {
            simulation.context->setParameter("FlowScale", scale);
            return simulation.energy();
        };
        const double wall = energyAt(0), flow = energyAt(1)-wall;
        double error = 0, derivativeError = 0;
        for (double scale : {-1.0, 0.0, 0.25, 1.0, 3.0}) {
            error = std::max(error, std::abs(energyAt(scale)-wall-scale*flow));
            const auto derivatives = simulation.context->getState(State::ParameterDerivatives).getEnergyParameterDerivatives();
            ASSERT_EQ(derivatives.size(), 1u);
            derivativeError = std::max(derivativeError, std::abs(derivatives.at("FlowScale")-flow));
        }
        report("error of the energy, kJ/mol", error);
        report("error of the derivative, kJ/mol", derivativeError);
        const double magnitude = std::abs(wall)+std::abs(flow);
        EXPECT_LE(error, 1e-13*magnitude);
        EXPECT_LE(derivativeError, 1e-13*magnitude);
    }
}

TEST_P(FlowForceParameters, ForcesAreLinearInTheScale) {
    for (const auto& positions : conformations()) {
        Simulation simulation(platform, new FlowForce(model), positions);
        auto forcesAt = [&](double scale) {
            simulation.context->setParameter("FlowScale", scale);
            return simulation.forces();
        };
        const auto wall = forcesAt(0), one = forcesAt(1), half = forcesAt(0.5);
        std::vector<Vec3> expected(wall.size());
        for (std::size_t i = 0; i < wall.size(); i++)
            expected[i] = (wall[i]+one[i])*0.5;
        EXPECT_LE(maximumDifference(half, expected), 1e-11*rootMeanSquare(one));
    }
}

TEST_P(FlowForceParameters, WithoutScaleNothingIsLeftInsideTheSupport) {
    Simulation simulation(platform, new FlowForce(model), conformation(model, random));
    simulation.context->setParameter("FlowScale", 0);
    EXPECT_EQ(simulation.energy(), 0);
    EXPECT_EQ(rootMeanSquare(simulation.forces()), 0);
}

TEST_P(FlowForceParameters, TwoForcesShareAScale) {
    // Two copies of a molecule, one for each force.
    const int size = model.getNumParticles();
    const auto first = conformation(model, random), second = conformation(model, random);
    auto positions = first;
    positions.insert(positions.end(), second.begin(), second.end());
    Simulation simulation(platform, [&](OpenMM::System& system) {
        addParticles(system, 2*size);
        for (int m = 0; m < 2; m++) {
            std::vector<int> particles(size);
            std::iota(particles.begin(), particles.end(), m*size);
            auto* force = new FlowForce(model);
            force->addMolecule(particles);
            force->setForceGroup(m);
            force->setScaleParameterName("shared");
            force->addEnergyParameterDerivative("shared");
            system.addForce(force);
        }
    }, positions);
    const double one = simulation.energy();
    const auto derivative = simulation.context->getState(State::ParameterDerivatives).getEnergyParameterDerivatives();
    EXPECT_NEAR(derivative.at("shared"), one, 1e-12*std::abs(one)) << "the derivatives of both are added";
    simulation.context->setParameter("shared", 0.5);
    EXPECT_NEAR(simulation.energy(), 0.5*one, 1e-12*std::abs(one));
}

TEST_P(FlowForceParameters, WithoutARequestThereIsNoDerivative) {
    Simulation simulation(platform, new FlowForce(model), conformation(model, random));
    const auto derivatives = simulation.context->getState(State::ParameterDerivatives).getEnergyParameterDerivatives();
    for (const auto& [name, value] : derivatives)
        EXPECT_EQ(value, 0) << name;
}

TEST_P(FlowForceParameters, UpdateTakesWeightsTemperatureAndMargins) {
    const FlowModel other = scaledModel(modelIndex, 0.7);
    ASSERT_TRUE(model.hasSameArchitecture(other));
    for (const auto& positions : conformations()) {
        auto* force = new FlowForce(model);
        Simulation simulation(platform, force, positions);
        const double before = simulation.energy();
        const double logProbBefore = force->getLogProbs(*simulation.context)[0];

        SupportMargins margins = force->getMargins();
        for (double& margin : margins.bonds)
            margin *= 0.5;
        force->setModel(other);
        force->setTemperature(310);
        force->setMargins(margins);
        EXPECT_EQ(simulation.energy(), before) << "before the update, nothing changes";
        if (std::isfinite(logProbBefore)) {
            EXPECT_EQ(force->getLogProbs(*simulation.context)[0], logProbBefore);
        }
        force->updateParametersInContext(*simulation.context);

        auto* expected = new FlowForce(other);
        expected->setTemperature(310);
        expected->setMargins(margins);
        Simulation fresh(platform, expected, positions);
        EXPECT_NE(simulation.energy(), before);
        EXPECT_EQ(simulation.energy(), fresh.energy());
        EXPECT_EQ(maximumDifference(simulation.forces(), fresh.forces()), 0);
        EXPECT_EQ(force->getLogProbs(*simulation.context), expected->getLogProbs(*fresh.context));
    }
}

TEST_P(FlowForceParameters, SettersAndGettersAgree) {
    FlowForce force(model);
    EXPECT_EQ(force.getModel().getChecksum(), model.getChecksum());
    EXPECT_EQ(force.getName(), "FlowForce");
    EXPECT_EQ(force.getTemperature(), model.getTemperature());
    EXPECT_FALSE(force.hasTemperatureOverride());
    force.setTemperature(77);
    EXPECT_EQ(force.getTemperature(), 77);
    EXPECT_TRUE(force.hasTemperatureOverride());
    EXPECT_EQ(force.getScaleParameterName(), "FlowScale");
    EXPECT_EQ(force.getDefaultScale(), 1);
    EXPECT_EQ(force.getNumEnergyParameterDerivatives(), 0);
    force.setScaleParameterName("lambda");
    force.setDefaultScale(0.5);
    force.addEnergyParameterDerivative("lambda");
    force.addEnergyParameterDerivative("lambda");
    EXPECT_EQ(force.getNumEnergyParameterDerivatives(), 1);
    EXPECT_EQ(force.getEnergyParameterDerivativeName(0), "lambda");
    EXPECT_EQ(force.getDefaultScale(), 0.5);
    EXPECT_FALSE(force.usesPeriodicBoundaryConditions());
    force.setUsesPeriodicBoundaryConditions(true);
    EXPECT_TRUE(force.usesPeriodicBoundaryConditions());
    EXPECT_EQ(force.getNumMolecules(), 0);
    EXPECT_EQ(force.addMolecule({3, 4, 5}), 0);
    EXPECT_EQ(force.addMolecule({6, 7, 8}), 1);
    force.setMoleculeParticles(1, {9, 8, 7});
    EXPECT_EQ(force.getNumMolecules(), 2);
    EXPECT_EQ(force.getMoleculeParticles(1), (std::vector<int>{9, 8, 7}));
    SupportMargins margins = force.getMargins();
    // All particles but the first three are placed by a torsion; with a block, all but the block.
    const MixedCoordinatesLayer* mixed = std::get_if<MixedCoordinatesLayer>(&model.getArchitecture().layers[0]);
    const int numTorsions = model.getNumParticles()-(mixed == nullptr ? 3 : static_cast<int>(mixed->block.size()));
    EXPECT_EQ(static_cast<int>(margins.bonds.size()), mixed == nullptr ? numTorsions+2 : numTorsions);
    EXPECT_EQ(static_cast<int>(margins.angles.size()), mixed == nullptr ? numTorsions+1 : numTorsions);
    EXPECT_EQ(static_cast<int>(margins.torsionAngles.size()), numTorsions);
    margins.bonds[0] *= 2;
    EXPECT_FALSE(force.hasMarginsOverride());
    force.setMargins(margins);
    EXPECT_TRUE(force.hasMarginsOverride());
    EXPECT_EQ(force.getMargins().bonds, margins.bonds);
    force.setModel(scaledModel(modelIndex, 0.5));
    EXPECT_EQ(force.getMargins().bonds, margins.bonds) << "kept for the same architecture";
}

TEST_P(FlowForceParameters, ModelIsReadFromAFile) {
    const std::string path = testing::TempDir()+"TestFlowForce"+platform.getName()+std::to_string(modelIndex)+".safetensors";
    model.save(path);
    const auto positions = conformation(model, random);
    Simulation fromFile(platform, new FlowForce(path), positions), direct(platform, new FlowForce(model), positions);
    EXPECT_EQ(fromFile.energy(), direct.energy());
    std::remove(path.c_str());
}

} // namespace OpenMMFlow
