// SPDX-License-Identifier: MIT
// What must not change the energy.
#include "FlowForceTesting.h"

#include <algorithm>
#include <cmath>
#include <numeric>

using OpenMM::Vec3;

namespace OpenMMFlow {

namespace {

/** Reduced box vectors, as OpenMM wants them. */
struct Box {
    Vec3 a, b, c;
};
const Box rectangular = {Vec3(2.0, 0, 0), Vec3(0, 2.5, 0), Vec3(0, 0, 3.0)};
const Box triclinic = {Vec3(2.5, 0, 0), Vec3(0.9, 2.2, 0), Vec3(-1.1, 0.8, 2.1)};

} // namespace

class FlowForceInvariance : public FlowForceTest {
protected:
    /** Conformations inside and outside of the support. */
    std::vector<std::vector<Vec3>> conformations() {
        std::vector<std::vector<Vec3>> all;
        for (double deviation : {0.0, 0.0, 0.0, 0.01, 0.03, 0.05})
            all.push_back(perturbed(conformation(model, random), deviation, random));
        return all;
    }

    /** Greatest change of the energy, in k_B T, and of the forces rotated likewise, relative to their root mean square. */
    std::pair<double, double> changeBy(const std::function<Vec3(Vec3)>& move, const std::function<Vec3(Vec3)>& rotate) {
        Simulation simulation(platform, new FlowForce(model), conformation(model, random));
        double energyChange = 0, forceChange = 0;
        for (const auto& positions : conformations()) {
            std::vector<Vec3> moved(positions.size());
            std::transform(positions.begin(), positions.end(), moved.begin(), move);
            simulation.context->setPositions(positions);
            const double energy = simulation.energy();
            auto forces = simulation.forces();
            std::transform(forces.begin(), forces.end(), forces.begin(), rotate);
            simulation.context->setPositions(moved);
            energyChange = std::max(energyChange, std::abs(simulation.energy()-energy)/thermalEnergyOf(model));
            forceChange = std::max(forceChange, maximumDifference(simulation.forces(), forces)/rootMeanSquare(forces));
        }
        return {energyChange, forceChange};
    }

    /** Energies and forces of conformations as they are, against periodic ones whose particles sit in random images. */
    void checkWrapping(const Box& box) {
        Simulation whole(platform, new FlowForce(model), conformation(model, random));
        auto* force = new FlowForce(model);
        force->setUsesPeriodicBoundaryConditions(true);
        Simulation periodic(platform, [&](OpenMM::System& system) {
            addParticles(system, model.getNumParticles());
            system.addForce(force);
            system.setDefaultPeriodicBoxVectors(box.a, box.b, box.c);
        }, conformation(model, random));
        std::uniform_int_distribution<int> image(-3, 3);
        double energyChange = 0, forceChange = 0, latentChange = 0;
        for (const auto& positions : conformations()) {
            auto wrapped = positions;
            for (Vec3& position : wrapped)
                position += box.a*image(random)+box.b*image(random)+box.c*image(random);
            whole.context->setPositions(positions);
            periodic.context->setPositions(positions);
            EXPECT_EQ(periodic.energy(), whole.energy()) << "whole molecules are taken as they are";
            const double logProb = force->getLogProbs(*periodic.context)[0];
            const auto latents = force->getLatents(*periodic.context)[0];
            periodic.context->setPositions(wrapped);
            energyChange = std::max(energyChange, std::abs(periodic.energy()-whole.energy())/thermalEnergyOf(model));
            forceChange = std::max(forceChange, maximumDifference(periodic.forces(), whole.forces())/rootMeanSquare(whole.forces()));
            if (std::isfinite(logProb)) {
                EXPECT_NEAR(force->getLogProbs(*periodic.context)[0], logProb, 1e-9);
                const auto wrappedLatents = force->getLatents(*periodic.context)[0];
                for (std::size_t i = 0; i < latents.size(); i++) {
                    const double change = std::abs(wrappedLatents[i]-latents[i]);
                    latentChange = std::max(latentChange, std::min(change, std::abs(1-change)));    // a circle closes
                }
            }
        }
        report("energy change, k_B T", energyChange);
        report("relative force change", forceChange);
        report("latent change", latentChange);
        EXPECT_LE(energyChange, energyTolerance);
        EXPECT_LE(forceChange, forceTolerance);
        EXPECT_LE(latentChange, 1e-9);
    }
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceInvariance, testing::Combine(testPlatforms, testModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceInvariance, testing::Combine(gpuDouble, testing::Values(1, 3)), flowForceTestName);

TEST_P(FlowForceInvariance, Translation) {
    auto [energyChange, forceChange] = changeBy([](Vec3 x) { return x+Vec3(0.7, -1.3, 2.1); }, [](Vec3 x) { return x; });
    report("energy change, k_B T", energyChange);
    report("relative force change", forceChange);
    EXPECT_LE(energyChange, energyTolerance);
    EXPECT_LE(forceChange, forceTolerance);
}

TEST_P(FlowForceInvariance, Rotation) {
    const auto rotate = randomRotation(random);
    auto [energyChange, forceChange] = changeBy(rotate, rotate);
    report("energy change, k_B T", energyChange);
    report("relative force change", forceChange);
    EXPECT_LE(energyChange, energyTolerance);
    EXPECT_LE(forceChange, forceTolerance);
}

TEST_P(FlowForceInvariance, WrappingIntoARectangularBox) {
    checkWrapping(rectangular);
}

TEST_P(FlowForceInvariance, WrappingIntoATriclinicBox) {
    checkWrapping(triclinic);
}

TEST_P(FlowForceInvariance, RenumberingOfParticles) {
    // Particle i of the molecule is particle order[i] of a System that has three more.
    const int numParticles = model.getNumParticles();
    std::vector<int> order(numParticles+3);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    const std::vector<int> particles(order.begin(), order.begin()+numParticles);
    auto* renumbered = new FlowForce(model);
    renumbered->addMolecule(particles);
    Simulation first(platform, new FlowForce(model), conformation(model, random));
    Simulation second(platform, renumbered, std::vector<Vec3>(numParticles+3));
    for (const auto& positions : conformations()) {
        std::vector<Vec3> other(numParticles+3);
        for (int i = 0; i < numParticles; i++)
            other[particles[i]] = positions[i];
        first.context->setPositions(positions);
        second.context->setPositions(other);
        EXPECT_EQ(second.energy(), first.energy());
        const auto forces = first.forces(), otherForces = second.forces();
        for (int i = 0; i < numParticles; i++)
            EXPECT_EQ(otherForces[particles[i]], forces[i]);
        for (std::size_t i = numParticles; i < order.size(); i++)
            EXPECT_EQ(otherForces[order[i]], Vec3()) << "of a particle that is in no molecule";
    }
}

} // namespace OpenMMFlow
