// SPDX-License-Identifier: MIT
// Everything that must raise, and its message.
#include "FlowForceTesting.h"
#include "PluginRegistration.h"

#include <OpenMMDrude.h>

#include <cmath>
#include <limits>
#include <numeric>

using OpenMM::System;
using OpenMM::Vec3;

namespace OpenMMFlow {

namespace {

std::vector<int> range(int first, int count) {
    std::vector<int> indices(count);
    std::iota(indices.begin(), indices.end(), first);
    return indices;
}

} // namespace

/** Parameterised over the platform; of the first test model. */
class FlowForceErrors : public testing::TestWithParam<std::string> {
protected:
    OpenMM::Platform& platform = testPlatform(GetParam());
    const FlowModel model = testModel(0);
    std::mt19937 random{5};
    const int size = model.getNumParticles();

    /** Makes a Context of `count` particles, with the molecules given, after `edit`. */
    void makeContext(int count, const std::vector<std::vector<int>>& molecules,
            const std::function<void(System&)>& edit = [](System&) {}) {
        makeContext(model, count, molecules, edit);
    }
    void makeContext(const FlowModel& model, int count, const std::vector<std::vector<int>>& molecules,
            const std::function<void(System&)>& edit) {
        System system;
        addParticles(system, count);
        auto* force = new FlowForce(model);
        for (const auto& molecule : molecules)
            force->addMolecule(molecule);
        system.addForce(force);
        edit(system);
        OpenMM::VerletIntegrator integrator(0.001);
        OpenMM::Context context(system, integrator, platform);
    }
};

INSTANTIATE_TEST_SUITE_P(Platforms, FlowForceErrors, testPlatforms, [](const auto& info) { return info.param; });

/** Where couplings are in single precision, in which sums can overflow. */
class FlowForceRoots : public FlowForceTest {
};

INSTANTIATE_TEST_SUITE_P(Platforms, FlowForceRoots, testing::Combine(testing::Values("CPU"), testing::Values(3)), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceRoots, testing::Combine(testing::Values("GpuSingle", "GpuMixed"), testing::Values(3)),
        flowForceTestName);

TEST_P(FlowForceRoots, ThatAreNotFoundAreReported) {
    auto* force = new FlowForce(model);
    Simulation simulation(platform, force, conformation(model, random));
    const double before = simulation.energy();
    force->setModel(editedModel(modelIndex, [](ModelParts& parts) {
        for (auto& [name, tensor] : parts.tensors)
            if (name.find(".networks.") != std::string::npos) {
                tensor.type = TensorType::Float64;
                for (double& value : tensor.values)
                    value = std::copysign(1e100, value);
            }
    }));
    force->updateParametersInContext(*simulation.context);
    expectError([&] { simulation.energy(); }, {"inverses of transformers were not found to full precision"});
    expectError([&] { simulation.energy(); }, {"inverses of transformers were not found to full precision"});
    force->setModel(model);
    force->updateParametersInContext(*simulation.context);
    EXPECT_EQ(simulation.energy(), before);
}

TEST_P(FlowForceErrors, SystemIsNotOneMolecule) {
    expectError([&] { makeContext(size+1, {}); }, {"no molecule was added", std::to_string(size+1), std::to_string(size), "addMolecule()"});
    EXPECT_NO_THROW(makeContext(size, {}));
}

TEST_P(FlowForceErrors, WrongNumberOfParticles) {
    expectError([&] { makeContext(size+2, {range(0, size-1)}); }, {"molecule 0", std::to_string(size-1), std::to_string(size)});
    expectError([&] { makeContext(2*size+2, {range(0, size), range(size, size+1)}); }, {"molecule 1", std::to_string(size+1)});
    expectError([&] { makeContext(size, {{}}); }, {"molecule 0", "0 particles"});
}

TEST_P(FlowForceErrors, ParticleOutOfRange) {
    auto particles = range(0, size);
    particles[1] = -1;
    expectError([&] { makeContext(size, {particles}); }, {"molecule 0", "particle -1", "0 to "+std::to_string(size-1)});
    particles[1] = size;
    expectError([&] { makeContext(size, {particles}); }, {"molecule 0", "particle "+std::to_string(size)});
}

TEST_P(FlowForceErrors, ParticleTwice) {
    auto particles = range(0, size);
    particles[1] = 0;
    expectError([&] { makeContext(size, {particles}); }, {"particle 0", "twice in molecule 0"});
    expectError([&] { makeContext(2*size, {range(0, size), range(size-1, size)}); },
            {"particle "+std::to_string(size-1), "molecule 0 and in molecule 1"});
}

TEST_P(FlowForceErrors, VirtualSite) {
    expectError([&] {
        makeContext(size+2, {range(0, size)}, [&](System& system) {
            system.setParticleMass(2, 0);
            system.setVirtualSite(2, new OpenMM::TwoParticleAverageSite(size, size+1, 0.5, 0.5));
        });
    }, {"particle 2", "molecule 0", "virtual site"});
}

TEST_P(FlowForceErrors, MasslessParticle) {
    expectError([&] {
        makeContext(size, {}, [](System& system) { system.setParticleMass(1, 0); });
    }, {"particle 1", "massless"});
    EXPECT_NO_THROW(makeContext(size+1, {range(0, size)}, [&](System& system) { system.setParticleMass(size, 0); }))
            << "other particles may be massless";
}

TEST_P(FlowForceErrors, DrudeParticle) {
    loadOpenMMPlugin("DrudeReference");
    auto addDrude = [](System& system, int particle, int parent) {
        auto* drude = new OpenMM::DrudeForce();
        drude->setName("by another name");
        drude->addParticle(particle, parent, -1, -1, -1, -1.0, 0.001, 1, 1);
        system.addForce(drude);
    };
    expectError([&] {
        makeContext(size+2, {range(0, size)}, [&](System& system) { addDrude(system, size, 1); });
    }, {"particle 1", "Drude"});
    expectError([&] {
        makeContext(size+2, {range(0, size)}, [&](System& system) { addDrude(system, 2, size); });
    }, {"particle 2", "Drude"});
    EXPECT_NO_THROW(makeContext(size+2, {range(0, size)}, [&](System& system) { addDrude(system, size, size+1); }));
}

TEST_P(FlowForceErrors, ConstraintThatTheModelDoesNotHave) {
    auto constrain = [](int particle1, int particle2) {
        return [=](System& system) { system.addConstraint(particle1, particle2, 0.1); };
    };
    expectError([&] { makeContext(size, {}, constrain(2, 1)); }, {"particles 1 and 2 at 0.1 nm", "the model does not"});
    expectError([&] { makeContext(size+1, {range(0, size)}, constrain(0, size)); }, {"not of one molecule"});
    expectError([&] { makeContext(2*size, {range(0, size), range(size, size)}, constrain(0, size)); }, {"not of one molecule"});
    EXPECT_NO_THROW(makeContext(size+2, {range(0, size)}, constrain(size, size+1))) << "constraints elsewhere are no matter";
}

TEST_P(FlowForceErrors, ConstraintsOfTheModel) {
    const FlowModel constrained = editedModel(0, [](ModelParts& parts) {
        parts.architecture["constraints"] = {{0, 1, 0.1}, {2, 1, 0.12}};
    });
    auto constrain = [](std::vector<std::tuple<int, int, double>> constraints) {
        return [=](System& system) {
            for (auto [particle1, particle2, distance] : constraints)
                system.addConstraint(particle1, particle2, distance);
        };
    };
    auto make = [&](int count, std::vector<std::vector<int>> molecules, std::vector<std::tuple<int, int, double>> constraints) {
        makeContext(constrained, count, molecules, constrain(constraints));
    };
    EXPECT_NO_THROW(make(size, {}, {{1, 0, 0.1}, {1, 2, 0.12}}));
    EXPECT_NO_THROW(make(size, {}, {{1, 0, 0.100009}, {1, 2, 0.12}})) << "within a relative 1e-4";
    expectError([&] { make(size, {}, {}); }, {"particles 0 and 1 at 0.1 nm, the System does not", "particles 1 and 2 at 0.12 nm"});
    expectError([&] { make(size, {}, {{0, 1, 0.1}}); }, {"the model constrains particles 1 and 2 at 0.12 nm, the System does not"});
    expectError([&] { make(size, {}, {{0, 1, 0.1}, {1, 2, 0.1202}}); },
            {"the System constrains particles 1 and 2 at 0.1202 nm, the model at 0.12 nm"});
    expectError([&] { make(size, {}, {{0, 1, 0.1}, {1, 2, 0.12}, {0, 2, 0.15}}); },
            {"the System constrains particles 0 and 2 at 0.15 nm, the model does not"});
    // In each of two molecules, the second in reverse.
    auto reverse = range(size, size);
    std::reverse(reverse.begin(), reverse.end());
    const int last = 2*size-1;
    EXPECT_NO_THROW(make(2*size, {range(0, size), reverse}, {{0, 1, 0.1}, {1, 2, 0.12}, {last, last-1, 0.1}, {last-1, last-2, 0.12}}));
    expectError([&] { make(2*size, {range(0, size), reverse}, {{0, 1, 0.1}, {1, 2, 0.12}, {last, last-1, 0.1}}); },
            {"particles "+std::to_string(last-2)+" and "+std::to_string(last-1)});
}

TEST_P(FlowForceErrors, ManyDifferencesAreCounted) {
    std::vector<std::vector<int>> molecules;
    for (int m = 0; m < 15; m++)
        molecules.push_back(range(m*size, size));
    expectError([&] {
        makeContext(15*size, molecules, [&](System& system) {
            for (int m = 0; m < 15; m++)
                system.addConstraint(m*size, m*size+1, 0.1);
        });
    }, {"and 5 more"});
}

TEST_P(FlowForceErrors, DefaultsOfASharedScaleDiffer) {
    expectError([&] {
        makeContext(2*size, {range(0, size)}, [&](System& system) {
            auto* other = new FlowForce(model);
            other->addMolecule(range(size, size));
            other->setDefaultScale(2);
            system.addForce(other);
        });
    }, {"FlowScale"});
}

TEST_P(FlowForceErrors, UpdateOfWhatCannotChange) {
    auto expectRejected = [&](const std::function<void(FlowForce&)>& change, const std::string& what) {
        auto* force = new FlowForce(model);
        force->addMolecule(range(0, size));
        const auto positions = conformation(model, random);
        Simulation simulation(platform, force, positions);
        const double energy = simulation.energy();
        change(*force);
        expectError([&] { force->updateParametersInContext(*simulation.context); }, {what, "reinitialize()"});
        EXPECT_EQ(simulation.energy(), energy);
    };
    const FlowModel otherMeasure = editedModel(0, [](ModelParts& parts) {
        parts.architecture["measure"] = parts.architecture["measure"] == "frame" ? "cartesian" : "frame";
    });
    expectRejected([&](FlowForce& force) { force.setModel(otherMeasure); }, "architecture");
    expectRejected([&](FlowForce& force) {
        auto particles = range(0, size);
        std::swap(particles[0], particles[1]);
        force.setMoleculeParticles(0, particles);
    }, "molecules");
    expectRejected([&](FlowForce& force) { force.setScaleParameterName("other"); }, "scale parameter");
    expectRejected([&](FlowForce& force) { force.addEnergyParameterDerivative("FlowScale"); }, "derivatives");
    expectRejected([&](FlowForce& force) { force.setUsesPeriodicBoundaryConditions(true); }, "periodic");
}

TEST_P(FlowForceErrors, PositionsWereNotSet) {
    System system;
    addParticles(system, size);
    system.addForce(new FlowForce(model));
    OpenMM::VerletIntegrator integrator(0.001);
    OpenMM::Context context(system, integrator, platform);
    expectError([&] { context.getState(OpenMM::State::Energy); }, {"positions have not been set"});
}

TEST(FlowForceSetters, RejectWhatMakesNoSense) {
    const FlowModel model = testModel(0);
    FlowForce force(model);
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (double temperature : {0.0, -300.0, nan, HUGE_VAL})
        expectError([&] { force.setTemperature(temperature); }, {"temperature", "> 0"});
    for (double scale : {nan, -HUGE_VAL})
        expectError([&] { force.setDefaultScale(scale); }, {"scale", "finite"});
    expectError([&] { force.setScaleParameterName(""); }, {"empty"});
    expectError([&] { force.addEnergyParameterDerivative("lambda"); }, {"lambda", "FlowScale"});
    expectError([&] { force.getEnergyParameterDerivativeName(0); }, {"no energy parameter derivative 0"});
    expectError([&] { force.getMoleculeParticles(0); }, {"no molecule 0", "there are 0"});
    force.addMolecule({0, 1, 2});
    expectError([&] { force.getMoleculeParticles(-1); }, {"no molecule -1", "there is 1"});
    expectError([&] { force.setMoleculeParticles(1, {0, 1, 2}); }, {"no molecule 1"});
    SupportMargins margins = force.getMargins();
    margins.bonds.push_back(0.01);
    expectError([&] { force.setMargins(margins); }, {"margins of bonds", std::to_string(margins.bonds.size())});
    for (double margin : {0.0, -0.01, nan}) {
        margins = force.getMargins();
        margins.angles.back() = margin;
        expectError([&] { force.setMargins(margins); }, {"margin of angles", "> 0"});
    }
    margins = force.getMargins();
    margins.torsionAngles[0] = HUGE_VAL;
    expectError([&] { force.setMargins(margins); }, {"margin of torsion angles", "finite"});
    EXPECT_FALSE(force.hasMarginsOverride());
    expectError([&] { force.setForceGroup(32); }, {"between 0 and 31"});
}

TEST(FlowForceSetters, MarginsThatLeaveNoSupportAreRefusedByTheContext) {
    const FlowModel model = testModel(0);
    std::mt19937 random(1);
    auto* force = new FlowForce(model);
    Simulation simulation(testPlatform("Reference"), force, conformation(model, random));
    const double before = simulation.energy();
    SupportMargins margins = force->getMargins();
    margins.bonds[1] = 1e3;
    force->setMargins(margins);
    expectError([&] { force->updateParametersInContext(*simulation.context); }, {"margin 1", "bonds", "half of the support's width"});
    EXPECT_EQ(simulation.energy(), before) << "the Context is as before";
    expectError([&] { simulation.context->reinitialize(); }, {"margin 1", "bonds", "half of the support's width"});
}

TEST(FlowForceSetters, ModelOfAnotherArchitectureResetsMargins) {
    FlowForce force(testModel(0));
    force.setMargins(force.getMargins());
    ASSERT_TRUE(force.hasMarginsOverride());
    force.setModel(testModel(1));
    EXPECT_FALSE(force.hasMarginsOverride());
}

TEST(FlowForceFile, ThatIsNotThere) {
    expectError([] { FlowForce force(std::string("no/such/file.safetensors")); }, {"no/such/file.safetensors"});
}

TEST(FlowForcePlatforms, TellWhyNot) {
    testPlatform("Reference");
    EXPECT_EQ(whyNotSupported("Reference"), "");
    EXPECT_EQ(whyNotSupported("CPU"), "");
    const std::string reason = whyNotSupported("NoSuchPlatform");
    EXPECT_NE(reason.find("no platform NoSuchPlatform"), std::string::npos) << reason;
    EXPECT_NE(reason.find("Reference, CPU"), std::string::npos) << reason;
    EXPECT_EQ(versionMismatch(), "");
    // One line for each plugin library; that of a GPU platform is there where its OpenMM library is.
    const std::string lines = openmmflowRegistrationMessage();
    EXPECT_EQ(lines.substr(0, lines.find('\n')), "OpenMMFlowReference: runs on Reference, CPU");
}

} // namespace OpenMMFlow
