// SPDX-License-Identifier: MIT
// FlowForce in ring polymer dynamics, which evaluates many copies of a System in one Context.
#include "FlowForceTesting.h"

#include <openmm/RPMDIntegrator.h>

#include <cmath>

using OpenMM::State;
using OpenMM::Vec3;

namespace OpenMMFlow {

class FlowForceRpmd : public FlowForceTest {
protected:
    static constexpr int numCopies = 4;

    void SetUp() override {
        FlowForceTest::SetUp();
        // After the platforms, to which it adds.
        static const bool loaded = (loadOpenMMPlugin("RPMDReference"), true);
        (void) loaded;
        if (platform.getName() == gpuPlatform()) {
            static const bool loadedGpu = (loadOpenMMPlugin("RPMD"+gpuPlatform()), true);
            (void) loadedGpu;
        }
    }
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceRpmd, testing::Combine(testing::Values("Reference"), testModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceRpmd, testing::Combine(testing::Values("GpuDouble", "GpuMixed"), testing::Values(1)),
        flowForceTestName);

TEST_P(FlowForceRpmd, EveryCopyHasItsOwnForces) {
    const int size = model.getNumParticles();
    const auto make = [&](double stepSize) {
        auto integrator = std::make_unique<OpenMM::RPMDIntegrator>(numCopies, model.getTemperature(), 1.0, stepSize);
        integrator->setApplyThermostat(false);
        return integrator;
    };
    Simulation single(platform, new FlowForce(model), conformation(model, random));
    std::vector<std::vector<Vec3>> copies;
    const std::vector<Vec3> start = conformation(model, random);
    for (int copy = 0; copy < numCopies; copy++)
        copies.push_back(perturbed(start, 1e-4, random));
    auto owned = make(1e-6);
    OpenMM::RPMDIntegrator& integrator = *owned;
    Simulation ring(platform, [&](OpenMM::System& system) {
        addParticles(system, size);
        system.addForce(new FlowForce(model));
    }, start, std::move(owned));
    for (int copy = 0; copy < numCopies; copy++) {
        integrator.setPositions(copy, copies[copy]);
        integrator.setVelocities(copy, std::vector<Vec3>(size));
    }
    integrator.step(1);
    double energyError = 0, forceError = 0;
    for (int copy = 0; copy < numCopies; copy++) {
        const State state = integrator.getState(copy, State::Positions | State::Energy | State::Forces);
        single.context->setPositions(state.getPositions());
        energyError = std::max(energyError, std::abs(state.getPotentialEnergy()-single.energy())/thermalEnergyOf(model));
        forceError = std::max(forceError, maximumDifference(state.getForces(), single.forces())/rootMeanSquare(single.forces()));
    }
    report("largest difference of an energy from that of the copy alone, k_B T", energyError);
    report("of a force, relative", forceError);
    EXPECT_LE(energyError, energyTolerance);
    EXPECT_LE(forceError, forceTolerance);
    // Without a thermostat the energy of the ring polymer is conserved; random weights make rough potentials, hence small steps.
    const double before = integrator.getTotalEnergy();
    integrator.step(100);
    const double change = std::abs(integrator.getTotalEnergy()-before)/thermalEnergyOf(model);
    report("change of the ring's energy in 100 steps, k_B T", change);
    EXPECT_LE(change, 0.1);
}

} // namespace OpenMMFlow
