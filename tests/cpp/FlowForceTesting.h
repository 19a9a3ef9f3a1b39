// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWFORCETESTING_H_
#define OPENMMFLOW_FLOWFORCETESTING_H_

#include "FlowForce.h"
#include "RandomModels.h"

#include <OpenMM.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace OpenMMFlow {

/**
 * A platform with FlowForce's plugin loaded.
 *
 * @param name  Reference or CPU; GpuSingle, GpuMixed or GpuDouble is the GPU platform under test in a precision, which becomes that of all
 *              Contexts from now on
 */
OpenMM::Platform& testPlatform(const std::string& name);

/** OpenMM's plugin of this name, say RPMDReference. */
void loadOpenMMPlugin(const std::string& name);

/** The GPU platform under test: that in the environment variable OPENMMFLOW_TEST_PLATFORM, otherwise OpenCL, if there is a device. */
const std::string& gpuPlatform();

/**
 * Whether there is a device for a platform.
 *
 * @throws OpenMMException  if there is none for a GPU platform that the environment asks for
 */
bool hasDevice(const std::string& name);

/**
 * One of a few small random models, the same for the same index; of another architecture for each. Models from `mixedTestModel` on have a
 * block in Cartesians, aligned but for the last, which depends on where it is.
 */
FlowModel testModel(int index);
constexpr int numTestModels = 5, mixedTestModel = 4, frameBlockTestModel = 5;

/** A test model after a change of its architecture document or its tensors. */
FlowModel editedModel(int index, const std::function<void(ModelParts&)>& edit);

/** A test model with all weights and biases of its conditioners multiplied by a factor. */
FlowModel scaledModel(int index, double factor);

/** A conformation inside the support of a model. */
std::vector<OpenMM::Vec3> conformation(const FlowModel& model, std::mt19937& random);

/** Each coordinate moved by a normal deviate. */
std::vector<OpenMM::Vec3> perturbed(const std::vector<OpenMM::Vec3>& positions, double deviation, std::mt19937& random);

/** A rotation by random angles, as a function of points. */
std::function<OpenMM::Vec3(OpenMM::Vec3)> randomRotation(std::mt19937& random);

/** A System and a Context of it. Owns all of them. */
struct Simulation {
    OpenMM::System system;
    std::unique_ptr<OpenMM::Integrator> integrator;
    std::unique_ptr<OpenMM::Context> context;

    /** Particles of 12 dalton with one force, which the System takes. */
    Simulation(OpenMM::Platform& platform, OpenMM::Force* force, const std::vector<OpenMM::Vec3>& positions);
    /** A System that `build` fills; a Verlet integrator of 1 fs unless another is given. */
    Simulation(OpenMM::Platform& platform, const std::function<void(OpenMM::System&)>& build,
            const std::vector<OpenMM::Vec3>& positions, std::unique_ptr<OpenMM::Integrator> integrator = nullptr);

    /** Of all force groups, kJ/mol. */
    double energy() const;
    std::vector<OpenMM::Vec3> forces() const;
};

/** Adds particles of 12 dalton. */
void addParticles(OpenMM::System& system, int count);

/** k_B T of a model, kJ/mol. */
double thermalEnergyOf(const FlowModel& model);

double rootMeanSquare(const std::vector<OpenMM::Vec3>& vectors);
double maximumDifference(const std::vector<OpenMM::Vec3>& a, const std::vector<OpenMM::Vec3>& b);

/** Prints a measured figure and puts it into the test's record. */
void report(const std::string& what, double value);

/** Expects that an action throws an OpenMMException whose message holds each of some words. */
void expectError(const std::function<void()>& action, const std::vector<std::string>& words);

/** Parameterised over the platform and the index of a test model. */
class FlowForceTest : public testing::TestWithParam<std::tuple<std::string, int>> {
protected:
    void SetUp() override {
        if (!hasDevice(std::get<0>(GetParam())))
            GTEST_SKIP() << "there is no device for the platform " << platform.getName();
    }

    OpenMM::Platform& platform = testPlatform(std::get<0>(GetParam()));
    const int modelIndex = std::get<1>(GetParam());
    const FlowModel model = testModel(modelIndex);
    std::mt19937 random{static_cast<unsigned>(17+modelIndex)};
    /** Reference is double throughout, CPU evaluates couplings in single precision. */
    const bool isDouble = std::get<0>(GetParam()) == "Reference" || std::get<0>(GetParam()) == "GpuDouble";
    /** Everything is in single precision, the positions, too: rounded by 3e-8 nm, at forces of 1e4 k_B T/nm. */
    const bool isSingle = std::get<0>(GetParam()) == "GpuSingle";
    /** What two evaluations may differ by that are the same but for rounding: energies in k_B T, forces relative. */
    const double energyTolerance = isDouble ? 1e-9 : isSingle ? 2e-3 : 2e-4, forceTolerance = isDouble ? 1e-9 : isSingle ? 1e-3 : 2e-4;
    /** Of the magnitude of an energy, in addition. */
    const double relativeEnergyTolerance = isSingle ? 1e-6 : 0;
};

const auto testPlatforms = testing::Values("Reference", "CPU");
/** GPU platforms compile their kernels while the tests run, so not everything is tested with them. */
const auto gpuPlatforms = testing::Values("GpuSingle", "GpuMixed", "GpuDouble");
const auto gpuDouble = testing::Values("GpuDouble");
const auto testModels = testing::Range(0, numTestModels);
const auto allTestModels = testing::Range(0, frameBlockTestModel+1);

std::string flowForceTestName(const testing::TestParamInfo<std::tuple<std::string, int>>& info);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWFORCETESTING_H_
