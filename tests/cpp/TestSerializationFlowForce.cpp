// SPDX-License-Identifier: MIT
// FlowForce in XML: alone, in a System, and when the XML was damaged.
#include "FlowForceTesting.h"

#include <sstream>

using OpenMM::XmlSerializer;

namespace OpenMMFlow {

namespace {

std::string toXml(const FlowForce& force) {
    std::stringstream stream;
    XmlSerializer::serialize<OpenMM::Force>(&force, "Force", stream);
    return stream.str();
}

std::unique_ptr<FlowForce> fromXml(const std::string& xml) {
    std::stringstream stream(xml);
    std::unique_ptr<OpenMM::Force> force(XmlSerializer::deserialize<OpenMM::Force>(stream));
    return std::unique_ptr<FlowForce>(dynamic_cast<FlowForce*>(force.release()));
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : std::string(text).replace(at, from.size(), to);
}

/** A force on which nothing is as it is by default. */
FlowForce unusualForce(const FlowModel& model) {
    FlowForce force(model);
    force.setName("a name with <, \" and &");
    force.setForceGroup(7);
    force.addMolecule({4, 3, 2, 1});
    force.addMolecule({9, 11, 10});
    force.setTemperature(311.1);
    force.setScaleParameterName("lambda");
    force.setDefaultScale(1.0/3);
    force.addEnergyParameterDerivative("lambda");
    force.setUsesPeriodicBoundaryConditions(true);
    SupportMargins margins = force.getMargins();
    for (double& margin : margins.bonds)
        margin *= 1.1;
    margins.torsionAngles[0] /= 3;
    force.setMargins(margins);
    return force;
}

void expectEqual(const FlowForce& a, const FlowForce& b) {
    EXPECT_EQ(a.getName(), b.getName());
    EXPECT_EQ(a.getForceGroup(), b.getForceGroup());
    ASSERT_EQ(a.getNumMolecules(), b.getNumMolecules());
    for (int i = 0; i < a.getNumMolecules(); i++)
        EXPECT_EQ(a.getMoleculeParticles(i), b.getMoleculeParticles(i));
    EXPECT_EQ(a.hasTemperatureOverride(), b.hasTemperatureOverride());
    EXPECT_EQ(a.getTemperature(), b.getTemperature());
    EXPECT_EQ(a.getScaleParameterName(), b.getScaleParameterName());
    EXPECT_EQ(a.getDefaultScale(), b.getDefaultScale());
    EXPECT_EQ(a.getNumEnergyParameterDerivatives(), b.getNumEnergyParameterDerivatives());
    EXPECT_EQ(a.usesPeriodicBoundaryConditions(), b.usesPeriodicBoundaryConditions());
    EXPECT_EQ(a.hasMarginsOverride(), b.hasMarginsOverride());
    EXPECT_EQ(a.getMargins().bonds, b.getMargins().bonds);
    EXPECT_EQ(a.getMargins().angles, b.getMargins().angles);
    EXPECT_EQ(a.getMargins().torsionAngles, b.getMargins().torsionAngles);
    EXPECT_EQ(a.getModel().toBytes(), b.getModel().toBytes());
}

} // namespace

class SerializationFlowForce : public FlowForceTest {
};

INSTANTIATE_TEST_SUITE_P(Models, SerializationFlowForce, testing::Combine(testPlatforms, testModels), flowForceTestName);

TEST_P(SerializationFlowForce, KeepsEverything) {
    for (const FlowForce& force : {FlowForce(model), unusualForce(model)}) {
        const std::string xml = toXml(force);
        const auto copy = fromXml(xml);
        ASSERT_NE(copy, nullptr);
        expectEqual(force, *copy);
        EXPECT_EQ(toXml(*copy), xml);
        const std::unique_ptr<FlowForce> clone(dynamic_cast<FlowForce*>(XmlSerializer::clone<OpenMM::Force>(force)));
        ASSERT_NE(clone, nullptr);
        expectEqual(force, *clone);
    }
}

TEST_P(SerializationFlowForce, SystemHasTheSameEnergiesAndForcesBitForBit) {
    const auto start = conformation(model, random);
    auto* force = new FlowForce(model);
    force->setTemperature(305.5);
    force->setDefaultScale(0.7);
    Simulation original(platform, force, start);
    std::stringstream xml;
    XmlSerializer::serialize(&original.system, "System", xml);
    const std::unique_ptr<OpenMM::System> system(XmlSerializer::deserialize<OpenMM::System>(xml));
    OpenMM::VerletIntegrator integrator(0.001);
    OpenMM::Context copy(*system, integrator, platform);
    for (double deviation : {0.0, 0.0, 0.02, 0.1}) {
        const auto positions = perturbed(conformation(model, random), deviation, random);
        original.context->setPositions(positions);
        copy.setPositions(positions);
        const auto state = copy.getState(OpenMM::State::Energy | OpenMM::State::Forces);
        EXPECT_EQ(state.getPotentialEnergy(), original.energy());
        EXPECT_EQ(maximumDifference(state.getForces(), original.forces()), 0);
    }
}

TEST(SerializationErrors, FutureVersion) {
    const std::string xml = toXml(FlowForce(testModel(0)));
    expectError([&] { fromXml(replaced(xml, "version=\"1\"", "version=\"2\"")); }, {"version 2", "versions 1 to 1", "newer"});
    expectError([&] { fromXml(replaced(xml, "version=\"1\"", "version=\"0\"")); }, {"version 0"});
}

TEST(SerializationErrors, DamagedModel) {
    const std::string xml = toXml(FlowForce(testModel(0)));
    const std::string key = "base64=\"";
    const std::size_t begin = xml.find(key)+key.size(), end = xml.find('"', begin);
    ASSERT_LT(begin+1000, end);
    std::string changed = xml;
    char& digit = changed[(begin+end)/2];
    digit = digit == 'A' ? 'B' : 'A';
    expectError([&] { fromXml(changed); }, {"model in the XML", "CRC-32", "damaged"});
    expectError([&] { fromXml(std::string(xml).erase(end-400, 400)); }, {"model in the XML", "CRC-32"});
    expectError([&] { fromXml(std::string(xml).erase(end-401, 401)); }, {"model in the XML", "truncated"});
    std::string foreign = xml;
    foreign[begin+10] = '*';
    expectError([&] { fromXml(foreign); }, {"model in the XML", "does not belong"});
}

TEST(SerializationErrors, MissingOrWrongParts) {
    const std::string xml = toXml(unusualForce(testModel(0)));
    for (const char* property : {"forceGroup=", "name=", "scaleParameter=", "defaultScale=", "usesPeriodicBoundaryConditions=",
            "crc32=", "base64=", "index=", "value="})
        EXPECT_THROW(fromXml(replaced(xml, property, "x"+std::string(property))), OpenMM::OpenMMException) << property;
    expectError([&] { fromXml(replaced(xml, "temperature=\"311.1\"", "temperature=\"-1\"")); }, {"temperature"});
    expectError([&] { fromXml(replaced(xml, "<Bond ", "<Bend ")); }, {"Bend"});
}

} // namespace OpenMMFlow
