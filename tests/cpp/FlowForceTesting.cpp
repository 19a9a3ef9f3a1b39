// SPDX-License-Identifier: MIT
#include "FlowForceTesting.h"
#include "internal/ThermalEnergy.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>

using OpenMM::Platform;
using OpenMM::Vec3;

namespace OpenMMFlow {

namespace {

/** Small, of bounded support, and between them both heads, exponents, measures and closed-form directions. */
ModelParts testModelParts(int index) {
    RandomModelOptions options;
    options.numParticles = (index < mixedTestModel ? 4+2*index : 8);
    options.head = index%2 == 0 ? MixtureHead::Free : MixtureHead::Published;
    options.measure = index == 1 || index == frameBlockTestModel ? Measure::Frame : Measure::Cartesian;
    options.exponent = index == 2 ? 2 : 1;
    options.closedForm = index == 3 ? Direction::Sampling : Direction::Density;
    options.marginal = index%2 == 0 ? Distribution::Uniform : Distribution::TruncatedNormal;
    options.numCouplings = 2;
    options.mixedCoordinates = (index >= mixedTestModel);
    options.elementwise = false;
    return randomModelParts(options, 100+index);
}

} // namespace

Platform& testPlatform(const std::string& name) {
    static const bool loaded = [] {
        loadOpenMMPlugin("CPU");
        Platform::loadPluginLibrary(OPENMMFLOW_PLUGINS "/libOpenMMFlowReference.so");
        const std::string plugin = OPENMMFLOW_PLUGINS "/libOpenMMFlow"+gpuPlatform()+".so";
        if (std::filesystem::exists(plugin)) {
            loadOpenMMPlugin(gpuPlatform());
            Platform::loadPluginLibrary(plugin);
        }
        return true;
    }();
    (void) loaded;
    for (const std::string precision : {"Single", "Mixed", "Double"})
        if (name == "Gpu"+precision && hasDevice(name)) {
            Platform& platform = Platform::getPlatform(gpuPlatform());
            platform.setPropertyDefaultValue("Precision", static_cast<char>(std::tolower(precision[0]))+precision.substr(1));
            return platform;
        }
    return Platform::getPlatform(name.find("Gpu") == 0 ? "Reference" : name);
}

void loadOpenMMPlugin(const std::string& name) {
    const std::string file = "libOpenMM"+name+".so", installed = OPENMM_PLUGINS "/"+file;
    // One that is emulated is elsewhere, on the search path of libraries.
    Platform::loadPluginLibrary(std::filesystem::exists(installed) ? installed : file);
}

const std::string& gpuPlatform() {
    static const std::string name = [] {
        const char* chosen = std::getenv("OPENMMFLOW_TEST_PLATFORM");
        return chosen == nullptr ? "OpenCL" : chosen;
    }();
    return name;
}

bool hasDevice(const std::string& name) {
    if (name.find("Gpu") != 0)
        return true;
    static const bool found = [] {
        try {
            OpenMM::System system;
            addParticles(system, 2);
            OpenMM::VerletIntegrator integrator(0.001);
            OpenMM::Context context(system, integrator, Platform::getPlatform(gpuPlatform()));
            return true;
        }
        catch (const OpenMM::OpenMMException& error) {
            if (std::getenv("OPENMMFLOW_TEST_PLATFORM") != nullptr)
                throw;
            std::cout << "no " << gpuPlatform() << ": " << error.what() << std::endl;
            return false;
        }
    }();
    return found;
}

FlowModel testModel(int index) {
    return FlowModel::fromBytes(testModelParts(index).toBytes());
}

FlowModel editedModel(int index, const std::function<void(ModelParts&)>& edit) {
    ModelParts parts = testModelParts(index);
    edit(parts);
    return FlowModel::fromBytes(parts.toBytes());
}

FlowModel scaledModel(int index, double factor) {
    return editedModel(index, [&](ModelParts& parts) {
        for (auto& [name, tensor] : parts.tensors)
            if (name.find(".networks.") != std::string::npos)
                for (double& value : tensor.values)
                    value *= factor;
    });
}

std::vector<Vec3> conformation(const FlowModel& model, std::mt19937& random) {
    const std::vector<double> coordinates = randomConformation(model, random);
    std::vector<Vec3> positions;
    for (std::size_t i = 0; i < coordinates.size(); i += 3)
        positions.emplace_back(coordinates[i], coordinates[i+1], coordinates[i+2]);
    return positions;
}

std::vector<Vec3> perturbed(const std::vector<Vec3>& positions, double deviation, std::mt19937& random) {
    std::normal_distribution<double> normal(0, deviation);
    std::vector<Vec3> moved = positions;
    for (Vec3& position : moved)
        for (int k = 0; k < 3; k++)
            position[k] += normal(random);
    return moved;
}

std::function<Vec3(Vec3)> randomRotation(std::mt19937& random) {
    // The columns: a random direction, one perpendicular to it, and their cross product.
    std::normal_distribution<double> normal;
    Vec3 a(normal(random), normal(random), normal(random)), b(normal(random), normal(random), normal(random));
    a /= std::sqrt(a.dot(a));
    b -= a*a.dot(b);
    b /= std::sqrt(b.dot(b));
    const Vec3 c = a.cross(b);
    return [=](Vec3 x) {
        return a*x[0]+b*x[1]+c*x[2];
    };
}

Simulation::Simulation(Platform& platform, OpenMM::Force* force, const std::vector<Vec3>& positions) :
        Simulation(platform, [&](OpenMM::System& system) {
            addParticles(system, positions.size());
            system.addForce(force);
        }, positions) {
}

Simulation::Simulation(Platform& platform, const std::function<void(OpenMM::System&)>& build, const std::vector<Vec3>& positions,
        std::unique_ptr<OpenMM::Integrator> integrator) : integrator(std::move(integrator)) {
    build(system);
    if (this->integrator == nullptr)
        this->integrator = std::make_unique<OpenMM::VerletIntegrator>(0.001);
    context = std::make_unique<OpenMM::Context>(system, *this->integrator, platform);
    context->setPositions(positions);
}

double Simulation::energy() const {
    return context->getState(OpenMM::State::Energy).getPotentialEnergy();
}

std::vector<Vec3> Simulation::forces() const {
    return context->getState(OpenMM::State::Forces).getForces();
}

void addParticles(OpenMM::System& system, int count) {
    for (int i = 0; i < count; i++)
        system.addParticle(12);
}

double thermalEnergyOf(const FlowModel& model) {
    return thermalEnergy(model.getTemperature());
}

double rootMeanSquare(const std::vector<Vec3>& vectors) {
    double sum = 0;
    for (const Vec3& vector : vectors)
        sum += vector.dot(vector);
    return std::sqrt(sum/(3*vectors.size()));
}

double maximumDifference(const std::vector<Vec3>& a, const std::vector<Vec3>& b) {
    double maximum = a.size() == b.size() ? 0 : HUGE_VAL;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); i++)
        for (int k = 0; k < 3; k++)
            if (!(std::abs(a[i][k]-b[i][k]) <= maximum))    // NaN counts as different
                maximum = std::isnan(a[i][k]-b[i][k]) ? HUGE_VAL : std::abs(a[i][k]-b[i][k]);
    return maximum;
}

void report(const std::string& what, double value) {
    std::ostringstream text;
    text << value;
    std::cout << what << ": " << text.str() << std::endl;
    testing::Test::RecordProperty(what, text.str());
}

void expectError(const std::function<void()>& action, const std::vector<std::string>& words) {
    try {
        action();
        ADD_FAILURE() << "no OpenMMException was thrown";
    }
    catch (const OpenMM::OpenMMException& error) {
        const std::string message = error.what();
        std::cout << "message: " << message << std::endl;
        for (const std::string& word : words)
            EXPECT_NE(message.find(word), std::string::npos) << "'" << word << "' is not in: " << message;
    }
}

std::string flowForceTestName(const testing::TestParamInfo<std::tuple<std::string, int>>& info) {
    return std::get<0>(info.param)+"Model"+std::to_string(std::get<1>(info.param));
}

} // namespace OpenMMFlow
