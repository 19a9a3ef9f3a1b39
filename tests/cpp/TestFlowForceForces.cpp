// SPDX-License-Identifier: MIT
// Energies and forces of one molecule through a Context.
#include "FlowForceTesting.h"

#include <cmath>

using OpenMM::Vec3;

namespace OpenMMFlow {

class FlowForceForces : public FlowForceTest {
protected:
    /** Conformations inside of the support, and more and more outside. */
    std::vector<std::vector<Vec3>> conformations() {
        std::vector<std::vector<Vec3>> all;
        for (double deviation : {0.0, 0.01, 0.03, 0.1, 0.3})
            for (int i = 0; i < 4; i++)
                all.push_back(perturbed(conformation(model, random), deviation, random));
        return all;
    }

    /** Greatest difference of the forces from central differences of fourth order, relative to the root mean square force. */
    double relativeForceError(Simulation& simulation, const std::vector<Vec3>& positions) {
        const double h = 3e-6;    // nm
        simulation.context->setPositions(positions);
        const std::vector<Vec3> forces = simulation.forces();
        std::vector<Vec3> numerical(positions.size());
        for (std::size_t i = 0; i < positions.size(); i++)
            for (int k = 0; k < 3; k++) {
                auto energyAt = [&](double distance) {
                    std::vector<Vec3> moved = positions;
                    moved[i][k] += distance;
                    simulation.context->setPositions(moved);
                    return simulation.energy();
                };
                numerical[i][k] = -(8*(energyAt(h)-energyAt(-h))-(energyAt(2*h)-energyAt(-2*h)))/(12*h);
            }
        return maximumDifference(forces, numerical)/rootMeanSquare(forces);
    }
};

/** Differences need double precision. What else there is, is compared with Reference below. */
class FlowForceGradient : public FlowForceForces {
};

/** On the other platforms. */
class FlowForceAgainstReference : public FlowForceForces {
protected:
    /** Compare a model's energies and forces with those of Reference. */
    void compareWithReference(const FlowModel& model, const std::vector<std::vector<Vec3>>& conformations) {
        Simulation simulation(platform, new FlowForce(model), conformations.front());
        Simulation reference(testPlatform("Reference"), new FlowForce(model), conformations.front());
        double energyError = 0, forceError = 0;
        for (const auto& positions : conformations) {
            simulation.context->setPositions(positions);
            reference.context->setPositions(positions);
            energyError = std::max(energyError, (std::abs(simulation.energy()-reference.energy())
                    -relativeEnergyTolerance*std::abs(reference.energy()))/thermalEnergyOf(model));
            forceError = std::max(forceError, maximumDifference(simulation.forces(), reference.forces())/rootMeanSquare(reference.forces()));
        }
        report("energy error, k_B T", energyError);
        report("relative force error", forceError);
        EXPECT_LE(energyError, energyTolerance);
        EXPECT_LE(forceError, forceTolerance);
    }
};

/** Of mixtures, which kernels share out by their number. */
class FlowForceComponents : public FlowForceAgainstReference {
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceAgainstReference, testing::Combine(testing::Values("CPU"), allTestModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceAgainstReference, testing::Combine(gpuPlatforms, allTestModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Models, FlowForceComponents, testing::Combine(testing::Values("CPU"), testing::Values(0)), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceComponents, testing::Combine(gpuPlatforms, testing::Values(0)), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Models, FlowForceForces, testing::Combine(testPlatforms, allTestModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceForces, testing::Combine(gpuPlatforms, allTestModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Models, FlowForceGradient, testing::Combine(testing::Values("Reference"), allTestModels), flowForceTestName);

TEST_P(FlowForceGradient, IsTheForce) {
    auto* force = new FlowForce(model);
    Simulation simulation(platform, force, conformation(model, random));
    double errorInside = 0, errorOutside = 0;
    int inside = 0, outside = 0;
    for (const auto& positions : conformations()) {
        const double error = relativeForceError(simulation, positions);
        simulation.context->setPositions(positions);
        if (std::isfinite(force->getLogProbs(*simulation.context)[0])) {
            inside++;
            errorInside = std::max(errorInside, error);
        }
        else {
            outside++;
            errorOutside = std::max(errorOutside, error);
        }
    }
    EXPECT_GE(inside, 4);
    EXPECT_GE(outside, 4);
    report("relative force error inside the support", errorInside);
    report("relative force error outside of the support", errorOutside);
    EXPECT_LE(errorInside, 1e-7);
    EXPECT_LE(errorOutside, 1e-7);
}

TEST_P(FlowForceAgainstReference, ForcesAreTheSame) {
    const auto start = conformation(model, random);
    std::vector<std::vector<Vec3>> all = conformations();
    all.insert(all.begin(), start);
    compareWithReference(model, all);
}

TEST_P(FlowForceComponents, OfAnyNumber) {
    for (int components : {1, 2, 3, 8, 17, 32, 33})
        for (MixtureHead head : {MixtureHead::Published, MixtureHead::Free}) {
            RandomModelOptions options;
            options.numParticles = 5;
            options.numCouplings = 2;
            options.closedForm = Direction::Density;
            options.components = components;
            options.head = head;
            const FlowModel mixtures = randomModel(options, 100+components);
            SCOPED_TRACE(components);
            compareWithReference(mixtures, {conformation(mixtures, random), conformation(mixtures, random)});
        }
}

TEST_P(FlowForceForces, EnergyIsThatOfTheModelInsideTheSupport) {
    auto* force = new FlowForce(model);
    Simulation simulation(platform, force, conformation(model, random));
    double error = 0;
    for (int i = 0; i < 20; i++) {
        simulation.context->setPositions(conformation(model, random));
        const double logProb = force->getLogProbs(*simulation.context)[0];
        ASSERT_TRUE(std::isfinite(logProb));
        error = std::max(error, std::abs(simulation.energy()/thermalEnergyOf(model)+logProb));
    }
    report("energy error, k_B T", error);
    EXPECT_LE(error, energyTolerance);
}

TEST_P(FlowForceForces, EnergyAloneIsTheSameAsWithForces) {
    Simulation simulation(platform, new FlowForce(model), conformation(model, random));
    for (double deviation : {0.0, 0.02, 0.2}) {
        simulation.context->setPositions(perturbed(conformation(model, random), deviation, random));
        const auto both = simulation.context->getState(OpenMM::State::Energy | OpenMM::State::Forces);
        EXPECT_EQ(both.getPotentialEnergy(), simulation.energy());
        EXPECT_EQ(maximumDifference(both.getForces(), simulation.forces()), 0);
    }
}

TEST_P(FlowForceForces, OneEvaluationDoesNotChangeTheNext) {
    const auto inside = conformation(model, random), outside = perturbed(inside, 0.2, random);
    Simulation simulation(platform, new FlowForce(model), inside);
    const double energy = simulation.energy();
    const auto forces = simulation.forces();
    simulation.context->setPositions(outside);
    simulation.forces();
    simulation.context->setPositions(inside);
    EXPECT_EQ(simulation.energy(), energy);
    EXPECT_EQ(maximumDifference(simulation.forces(), forces), 0);
}

TEST_P(FlowForceForces, CoincidentParticlesGoThrough) {
    // As with OpenMM's own forces: no exception, whatever the energy is.
    auto positions = conformation(model, random);
    positions[1] = positions[0];
    Simulation simulation(platform, new FlowForce(model), positions);
    EXPECT_NO_THROW(simulation.context->getState(OpenMM::State::Energy | OpenMM::State::Forces));
}

} // namespace OpenMMFlow
