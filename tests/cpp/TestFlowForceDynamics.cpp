// SPDX-License-Identifier: MIT
// FlowForce together with what else OpenMM has: integrators, minimizer, barostat, checkpoints, other forces around it.
#include "FlowForceTesting.h"

#include <cmath>
#include <numeric>
#include <sstream>

using OpenMM::State;
using OpenMM::System;
using OpenMM::Vec3;

namespace OpenMMFlow {

class FlowForceDynamics : public FlowForceTest {
protected:
    const int size = model.getNumParticles();

    std::vector<Vec3> positionsOf(const Simulation& simulation, bool enforcePeriodicBox = false) {
        return simulation.context->getState(State::Positions, enforcePeriodicBox).getPositions();
    }
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceDynamics, testing::Combine(testPlatforms, testModels), flowForceTestName);

/** Inside of other forces and integrators, or beside them. */
class FlowForceInCompany : public FlowForceDynamics {
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceInCompany, testing::Combine(testPlatforms, testModels), flowForceTestName);
// Without the minimizer: on PoCL 3.1, OpenMM's own ends with a segmentation fault, whatever the force.
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceInCompany, testing::Combine(gpuDouble, testing::Values(1)), flowForceTestName);

TEST_P(FlowForceDynamics, MinimizerLowersTheEnergy) {
    Simulation simulation(platform, new FlowForce(model), conformation(model, random));
    const double before = simulation.energy();
    OpenMM::LocalEnergyMinimizer::minimize(*simulation.context, 10, 200);
    report("energy lowered by, kJ/mol", before-simulation.energy());
    EXPECT_LT(simulation.energy(), before);
}

TEST_P(FlowForceDynamics, MinimizerComesBackFromOutsideOfTheSupport) {
    auto* force = new FlowForce(model);
    Simulation simulation(platform, force, conformation(model, random));
    double deviation = 0.01;
    while (std::isfinite(force->getLogProbs(*simulation.context)[0])) {
        simulation.context->setPositions(perturbed(conformation(model, random), deviation, random));
        deviation *= 1.2;
    }
    OpenMM::LocalEnergyMinimizer::minimize(*simulation.context, 10, 1000);
    EXPECT_TRUE(std::isfinite(force->getLogProbs(*simulation.context)[0]));
}

TEST_P(FlowForceDynamics, VerletConservesEnergy) {
    // The error of the total energy is of second order in the step. Random weights make rough potentials; a seventh of them is rough
    // enough. All steps begin at the same point of the same trajectory.
    const double largest = (modelIndex == 2 ? 1e-5 : 2.5e-5);    // model 2 is the roughest; with the others, rounding would be seen
    const double steps[] = {largest, largest/4}, mass = 12;
    const auto simulate = [&](double step, const std::vector<Vec3>& positions) {
        return Simulation(platform, [&](System& system) {
            addParticles(system, size);
            system.addForce(new FlowForce(scaledModel(modelIndex, 0.15)));
        }, positions, std::make_unique<OpenMM::VerletIntegrator>(step));
    };
    Simulation start = simulate(steps[1], conformation(model, random));
    OpenMM::LocalEnergyMinimizer::minimize(*start.context, 10, 200);
    start.context->setVelocitiesToTemperature(300, 7);
    start.integrator->step(std::lround(0.02/steps[1]));
    const State begin = start.context->getState(State::Positions | State::Velocities | State::Forces);
    std::vector<double> deviations;
    for (double step : steps) {
        Simulation simulation = simulate(step, begin.getPositions());
        // Leapfrog velocities are half a step behind the positions, and here half a step of the start's.
        std::vector<Vec3> velocities = begin.getVelocities();
        for (int i = 0; i < size; i++)
            velocities[i] += begin.getForces()[i]*(0.5*(steps[1]-step)/mass);
        simulation.context->setVelocities(velocities);
        std::vector<double> energies;
        for (int i = 0; i < 100; i++) {
            simulation.integrator->step(std::lround(0.001/step));
            const State state = simulation.context->getState(State::Energy);
            energies.push_back(state.getPotentialEnergy()+state.getKineticEnergy());
        }
        const double mean = std::accumulate(energies.begin(), energies.end(), 0.0)/energies.size();
        double sum = 0;
        for (double energy : energies)
            sum += (energy-mean)*(energy-mean);
        deviations.push_back(std::sqrt(sum/energies.size()));
    }
    report("deviation of the total energy at the larger step, kJ/mol", deviations[0]);
    // 0.05 a particle at 0.1 fs, and the error falls with the square of the step.
    EXPECT_LT(deviations[0], 0.05*size*std::pow(largest/1e-4, 2));
    if (isDouble) {    // in single precision, rounding is the larger part
        const double exponent = std::log(deviations[0]/deviations[1])/std::log(4);
        report("exponent of the step", exponent);
        EXPECT_NEAR(exponent, 2, 0.2);
    }
}

TEST_P(FlowForceDynamics, LangevinStaysFinite) {
    for (bool heavyHydrogens : {false, true}) {
        // Masses are free: with hydrogen mass repartitioning it is the same potential.
        const auto start = conformation(model, random);
        Simulation simulation(platform, [&](System& system) {
            for (int i = 0; i < size; i++)
                system.addParticle(i%2 == 0 ? (heavyHydrogens ? 10 : 12) : (heavyHydrogens ? 4 : 2));
            system.addForce(new FlowForce(model));
        }, start, std::make_unique<OpenMM::LangevinMiddleIntegrator>(300, 5, 0.0005));
        Simulation usual(platform, new FlowForce(model), start);
        EXPECT_EQ(simulation.energy(), usual.energy());
        EXPECT_EQ(maximumDifference(simulation.forces(), usual.forces()), 0);
        OpenMM::LocalEnergyMinimizer::minimize(*simulation.context, 10, 200);
        simulation.integrator->step(500);
        usual.context->setPositions(positionsOf(simulation));
        EXPECT_TRUE(std::isfinite(simulation.energy()));
        EXPECT_EQ(simulation.energy(), usual.energy());
    }
}

TEST_P(FlowForceInCompany, CustomIntegratorSeesTheForceOfAGroup) {
    auto* force = new FlowForce(model);
    force->setForceGroup(2);
    auto integrator = std::make_unique<OpenMM::CustomIntegrator>(0.0005);
    integrator->addPerDofVariable("x1", 0);
    integrator->addComputePerDof("v", "v+0.5*dt*f2/m");
    integrator->addComputePerDof("x", "x+dt*v");
    integrator->addComputePerDof("v", "v+0.5*dt*f2/m");
    Simulation simulation(platform, [&](System& system) {
        addParticles(system, size);
        system.addForce(force);
    }, conformation(model, random), std::move(integrator));
    const auto before = positionsOf(simulation);
    simulation.integrator->step(10);
    EXPECT_GT(maximumDifference(before, positionsOf(simulation)), 0);
    EXPECT_TRUE(std::isfinite(simulation.energy()));
}

TEST_P(FlowForceDynamics, CheckpointAndStateContinueBitForBit) {
    const auto start = conformation(model, random);
    auto* force = new FlowForce(model);
    Simulation simulation(platform, force, start);
    simulation.integrator->setStepSize(0.0002);
    OpenMM::LocalEnergyMinimizer::minimize(*simulation.context, 10, 100);
    simulation.context->setVelocitiesToTemperature(300, 11);
    simulation.context->setParameter("FlowScale", 0.9);
    simulation.integrator->step(20);
    std::stringstream checkpoint;
    simulation.context->createCheckpoint(checkpoint);
    std::stringstream xml;
    const State saved = simulation.context->getState(State::Positions | State::Velocities | State::Parameters | State::IntegratorParameters);
    OpenMM::XmlSerializer::serialize(&saved, "State", xml);
    simulation.integrator->step(30);
    const auto expected = positionsOf(simulation);

    simulation.context->setParameter("FlowScale", 0.3);
    simulation.integrator->step(5);
    simulation.context->loadCheckpoint(checkpoint);
    EXPECT_EQ(simulation.context->getParameter("FlowScale"), 0.9);
    simulation.integrator->step(30);
    EXPECT_EQ(maximumDifference(positionsOf(simulation), expected), 0) << "after a checkpoint";

    Simulation restarted(platform, new FlowForce(model), start);
    restarted.integrator->setStepSize(0.0002);
    const std::unique_ptr<State> state(OpenMM::XmlSerializer::deserialize<State>(xml));
    restarted.context->setState(*state);
    EXPECT_EQ(restarted.context->getParameter("FlowScale"), 0.9);
    restarted.integrator->step(30);
    EXPECT_EQ(maximumDifference(positionsOf(restarted), expected), 0) << "after a State";
}

TEST_P(FlowForceInCompany, CollectiveVariableOfACustomCVForce) {
    for (bool constrained : {false, true}) {
        // Inside a CustomCVForce, OpenMM hides the constraints of the System.
        const FlowModel inner = !constrained ? model : editedModel(modelIndex, [](ModelParts& parts) {
            parts.architecture["constraints"] = {{0, 1, 0.1}};
        });
        const auto positions = conformation(model, random);
        Simulation direct(platform, new FlowForce(model), positions);
        auto* cv = new OpenMM::CustomCVForce("0.5*u^2/1000+3*u");
        auto* variable = new FlowForce(inner);
        variable->addEnergyParameterDerivative("FlowScale");
        cv->addCollectiveVariable("u", variable);
        cv->addGlobalParameter("FlowScale", 1);
        cv->addEnergyParameterDerivative("FlowScale");
        Simulation around(platform, [&](System& system) {
            addParticles(system, size);
            if (constrained)
                system.addConstraint(0, 1, 0.1);
            system.addForce(cv);
        }, positions);
        const double u = direct.energy(), derivative = u/1000+3;
        std::vector<double> values;
        cv->getCollectiveVariableValues(*around.context, values);
        ASSERT_EQ(values.size(), 1u);
        EXPECT_EQ(values[0], u);
        EXPECT_NEAR(around.energy(), 0.5*u*u/1000+3*u, 1e-12*std::abs(around.energy()));
        auto expected = direct.forces();
        for (Vec3& force : expected)
            force *= derivative;
        EXPECT_LE(maximumDifference(around.forces(), expected), 1e-12*rootMeanSquare(expected));
        const auto derivatives = around.context->getState(State::ParameterDerivatives).getEnergyParameterDerivatives();
        EXPECT_NEAR(derivatives.at("FlowScale"), derivative*u, 1e-12*std::abs(derivative*u));
        around.context->setParameter("FlowScale", 0.25);
        cv->getCollectiveVariableValues(*around.context, values);
        EXPECT_NEAR(values[0], 0.25*u, 1e-12*std::abs(u));
        EXPECT_EQ(around.context->getMolecules().size(), 1u) << "the bonds of the model reach the outer Context";
    }
}

TEST_P(FlowForceInCompany, MemberOfAnATMForce) {
    // u1 is the energy of the molecule with one particle displaced; constraints are hidden as in a CustomCVForce.
    const FlowModel constrained = editedModel(modelIndex, [](ModelParts& parts) {
        parts.architecture["constraints"] = {{0, 1, 0.1}};
    });
    const auto positions = conformation(model, random);
    auto displaced = positions;
    displaced[2] += Vec3(0.005, 0, 0);
    auto* atm = new OpenMM::ATMForce("u0+Lambda*(u1-u0)");
    atm->addGlobalParameter("Lambda", 0.25);
    for (int i = 0; i < size; i++)
        atm->addParticle(displaced[i]-positions[i]);
    atm->addForce(new FlowForce(constrained));
    Simulation simulation(platform, [&](System& system) {
        addParticles(system, size);
        system.addConstraint(0, 1, 0.1);
        system.addForce(atm);
    }, positions);
    Simulation direct(platform, new FlowForce(model), positions);
    const double u0 = direct.energy();
    direct.context->setPositions(displaced);
    const double u1 = direct.energy();
    const double tolerance = energyTolerance*thermalEnergyOf(model);
    EXPECT_GT(std::abs(u1-u0), tolerance);
    EXPECT_NEAR(simulation.energy(), u0+0.25*(u1-u0), tolerance);
}

TEST_P(FlowForceDynamics, BarostatScalesWholeMolecules) {
    const int numMolecules = 3;
    auto* force = new FlowForce(model);
    force->setUsesPeriodicBoundaryConditions(true);
    std::vector<Vec3> positions;
    for (int m = 0; m < numMolecules; m++) {
        std::vector<int> particles(size);
        std::iota(particles.begin(), particles.end(), m*size);
        force->addMolecule(particles);
        for (const Vec3& position : conformation(model, random))
            positions.push_back(position+Vec3(2.9, 0.1, 1.5)*m);
    }
    Simulation simulation(platform, [&](System& system) {
        addParticles(system, numMolecules*size);
        system.setDefaultPeriodicBoxVectors(Vec3(3, 0, 0), Vec3(0, 3, 0), Vec3(0, 0, 3));
        system.addForce(force);
        system.addForce(new OpenMM::MonteCarloBarostat(100, 300, 2));
        EXPECT_TRUE(system.usesPeriodicBoundaryConditions());
    }, positions, std::make_unique<OpenMM::LangevinMiddleIntegrator>(300, 5, 0.0002));
    OpenMM::LocalEnergyMinimizer::minimize(*simulation.context, 10, 100);
    simulation.integrator->step(200);
    Vec3 a, b, c;
    simulation.context->getState(0).getPeriodicBoxVectors(a, b, c);
    EXPECT_NE(a[0], 3.0) << "the barostat changed the volume";
    ASSERT_GT(a[0], 1.0);
    EXPECT_EQ(simulation.context->getMolecules().size(), static_cast<std::size_t>(numMolecules));

    // Positions as they are, and wrapped into the box: whole molecules in both, with the same energy.
    const double energy = simulation.energy();
    EXPECT_TRUE(std::isfinite(energy));
    const auto asTheyAre = positionsOf(simulation), wrapped = positionsOf(simulation, true);
    for (int m = 0; m < numMolecules; m++) {
        const Vec3 shift = wrapped[m*size]-asTheyAre[m*size];
        for (int i = 1; i < size; i++) {
            const Vec3 difference = wrapped[m*size+i]-asTheyAre[m*size+i]-shift;
            EXPECT_LT(std::sqrt(difference.dot(difference)), 1e-12);
        }
    }
    auto split = wrapped;
    for (Vec3& position : split)
        for (int k = 0; k < 3; k++)
            position[k] -= std::floor(position[k]/a[0])*a[0];
    simulation.context->setPositions(split);
    EXPECT_NEAR(simulation.energy(), energy, numMolecules*energyTolerance*thermalEnergyOf(model));
}

TEST_P(FlowForceInCompany, WorksBesideOtherForces) {
    const auto positions = conformation(model, random);
    auto addTether = [&](System& system) {
        auto* tether = new OpenMM::CustomExternalForce("10*(x^2+y^2+z^2)");
        for (int i = 0; i < size; i++)
            tether->addParticle(i);
        system.addForce(tether);
    };
    Simulation both(platform, [&](System& system) {
        addParticles(system, size);
        addTether(system);
        system.addForce(new FlowForce(model));
    }, positions);
    Simulation other(platform, [&](System& system) {
        addParticles(system, size);
        addTether(system);
    }, positions);
    Simulation flow(platform, new FlowForce(model), positions);
    EXPECT_NEAR(both.energy(), other.energy()+flow.energy(), 1e-12*std::abs(flow.energy()));
    auto expected = flow.forces();
    const auto tether = other.forces();
    for (int i = 0; i < size; i++)
        expected[i] += tether[i];
    EXPECT_LE(maximumDifference(both.forces(), expected), 1e-12*rootMeanSquare(expected));
}

} // namespace OpenMMFlow
