// SPDX-License-Identifier: MIT
// An evaluation allocates no memory. A program of its own, because it counts every operator new of the process.
#include "FlowForceTesting.h"

#include <openmm/internal/ContextImpl.h>
#include <openmm/internal/ForceImpl.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <numeric>

namespace {

std::atomic<long> numAllocations{0};

void* allocate(std::size_t size, std::size_t alignment) {
    numAllocations++;
    void* memory = std::aligned_alloc(alignment, (size+alignment-1)/alignment*alignment);
    if (memory == nullptr)
        throw std::bad_alloc();
    return memory;
}

} // namespace

void* operator new(std::size_t size) {
    return allocate(size, alignof(std::max_align_t));
}

void* operator new(std::size_t size, std::align_val_t alignment) {
    return allocate(size, static_cast<std::size_t>(alignment));
}

void operator delete(void* memory) noexcept {
    std::free(memory);
}

void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

void operator delete(void* memory, std::align_val_t) noexcept {
    std::free(memory);
}

void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    std::free(memory);
}

namespace OpenMMFlow {

namespace {

/** Opens the way to what a Context calls in each step; OpenMM itself allocates around it. */
struct TestForce : FlowForce {
    using FlowForce::FlowForce;
    using Force::getContextImpl;
    using Force::getImplInContext;
};

} // namespace

class FlowForceAllocation : public FlowForceTest {
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceAllocation, testing::Combine(testPlatforms, testModels), flowForceTestName);

TEST_P(FlowForceAllocation, NoneInAnEvaluation) {
    const int size = model.getNumParticles();
    for (int numMolecules : {1, 3, 70}) {
        auto* force = new TestForce(model);
        force->setUsesPeriodicBoundaryConditions(true);
        force->addEnergyParameterDerivative("FlowScale");
        std::vector<OpenMM::Vec3> positions;
        for (int m = 0; m < numMolecules; m++) {
            std::vector<int> particles(size);
            std::iota(particles.begin(), particles.end(), m*size);
            force->addMolecule(particles);
            for (const auto& position : perturbed(conformation(model, random), m%2 == 0 ? 0 : 0.05, random))
                positions.push_back(position);
        }
        Simulation simulation(platform, force, positions);
        OpenMM::ContextImpl& context = force->getContextImpl(*simulation.context);
        OpenMM::ForceImpl& impl = force->getImplInContext(*simulation.context);
        const double expected = simulation.energy();
        const long before = numAllocations;
        ASSERT_GT(before, 0) << "allocations are counted";
        for (bool includeForces : {true, false})
            for (int i = 0; i < 3; i++) {
                const double energy = impl.calcForcesAndEnergy(context, includeForces, true, 1);
                EXPECT_EQ(numAllocations, before) << numMolecules << " molecules, forces: " << includeForces;
                EXPECT_EQ(energy, expected);
            }
    }
}

} // namespace OpenMMFlow
