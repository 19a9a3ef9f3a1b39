// SPDX-License-Identifier: MIT
// Architectures and weights that make no model: each is refused with a message that names the place and what was expected.
#include "RandomModels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

using namespace OpenMMFlow;
using namespace std;
using nlohmann::json;

namespace {

Tensor tensor(const vector<int64_t>& shape, double value) {
    int64_t size = 1;
    for (int64_t dimension : shape)
        size *= dimension;
    return {TensorType::Float64, shape, vector<double>(size, value)};
}

/**
 * A small model to be spoiled: a chain of five particles, 9 coordinates (bonds 0-3, angles 4-6, torsions 7 and 8). Bond 0 stays
 * real, the other bonds have uniform, the angles 4 and 5 truncated normal and angle 6 normal marginals; one bond and one angle
 * are transformed, conditioned on the torsions and the real bond.
 */
ModelParts smallModel() {
    ModelParts parts;
    parts.architecture = json::parse(R"({
        "format": "openmm-flow", "version": 1, "numParticles": 5, "temperature": 300, "measure": "cartesian",
        "bonds": [[0, 1], [1, 2], [2, 3], [3, 4]], "constraints": [[0, 1, 0.1]], "data": {},
        "layers": [
            {"type": "internalCoordinates", "zMatrix": [[0,-1,-1,-1], [1,0,-1,-1], [2,1,0,-1], [3,2,1,0], [4,3,2,1]]},
            {"type": "marginal", "distribution": "uniform", "coordinates": [1, 2, 3]},
            {"type": "marginal", "distribution": "truncatedNormal", "coordinates": [4, 5]},
            {"type": "marginal", "distribution": "normal", "coordinates": [6]},
            {"type": "coupling", "transformed": [1, 5], "conditionedOn": [7, 8, 0],
             "transformer": {"type": "smoothMixture", "head": "free", "closedForm": "density", "components": 2, "exponent": 1,
                "alphaOffset": 0.9, "alphaRange": 10, "logSteepnessBound": 3, "minimumFloor": 0.001},
             "conditioner": {"activation": "silu", "networks": [[4], []]}}
        ],
        "base": [
            {"distribution": "uniform", "coordinates": [1, 2, 3, 4, 7, 8]},
            {"distribution": "truncatedNormal", "coordinates": [5, 6]},
            {"distribution": "normal", "coordinates": [0]}
        ]
    })");
    parts.tensors = {
        {"layers.1.lower", tensor({3}, 0.1)}, {"layers.1.upper", tensor({3}, 0.2)},
        {"layers.2.mean", tensor({2}, 0.6)}, {"layers.2.std", tensor({2}, 0.05)},
        {"layers.2.lower", tensor({2}, 0.4)}, {"layers.2.upper", tensor({2}, 0.8)},
        {"layers.3.mean", tensor({1}, 0.6)}, {"layers.3.std", tensor({1}, 0.05)},
        // 2 circles and 1 real coordinate make 5 features
        {"layers.4.networks.0.0.weight", tensor({4, 5}, 0.1)}, {"layers.4.networks.0.0.bias", tensor({4}, 0.1)},
        {"layers.4.networks.0.1.weight", tensor({16, 4}, 0.1)}, {"layers.4.networks.0.1.bias", tensor({16}, 0.1)},
        {"layers.4.networks.1.0.weight", tensor({4, 5}, 0.1)}, {"layers.4.networks.1.0.bias", tensor({4}, 0.1)},
        {"base.1.mean", tensor({2}, 0.5)}, {"base.1.std", tensor({2}, 0.2)},
        {"base.2.mean", tensor({1}, 0.15)}, {"base.2.std", tensor({1}, 0.01)},
    };
    return parts;
}

string messageOf(const ModelParts& parts) {
    try {
        FlowModel::fromBytes(parts.toBytes());
        return "";
    }
    catch (const FlowModelError& error) {
        return error.what();
    }
}

struct SpoiledModel {
    string name;
    function<void(ModelParts&)> spoil;
    string message;
};

void PrintTo(const SpoiledModel& spoiled, ostream* stream) {
    *stream << spoiled.name;
}

/** Set a value of the architecture, at a JSON pointer. */
SpoiledModel with(const string& name, const string& pointer, const json& value, const string& message) {
    return {name, [=](ModelParts& parts) { parts.architecture[json::json_pointer(pointer)] = value; }, message};
}

SpoiledModel without(const string& name, const string& pointer, const string& key, const string& message) {
    return {name, [=](ModelParts& parts) { parts.architecture[json::json_pointer(pointer)].erase(key); }, message};
}

/** Change one value of a tensor. */
SpoiledModel weight(const string& name, const string& tensorName, double value, const string& message) {
    return {name, [=](ModelParts& parts) { parts.tensors.at(tensorName).values.back() = value; }, message};
}

SpoiledModel shape(const string& name, const string& tensorName, const vector<int64_t>& shape, const string& message) {
    return {name, [=](ModelParts& parts) { parts.tensors.at(tensorName) = tensor(shape, 0.1); }, message};
}

const string ZMATRIX = "/layers/0/zMatrix", COUPLING = "/layers/4", TRANSFORMER = "/layers/4/transformer",
        CONDITIONER = "/layers/4/conditioner";

/** With another transformer, in a document of version 2 unless said otherwise, and what is wrong with it. */
SpoiledModel transformer(const string& name, const json& transformer, const string& message, int version = 2) {
    return {name, [=](ModelParts& parts) {
        parts.architecture["version"] = version;
        parts.architecture[json::json_pointer(TRANSFORMER)] = transformer;
    }, message};
}

const json SPLINE = {{"type", "rationalQuadraticSpline"}, {"closedForm", "density"}, {"bins", 3}, {"minimumWidth", 0.01},
        {"minimumHeight", 0.01}, {"minimumSlope", 0.01}, {"slopeSharpness", 1}};

json changed(json transformer, const string& key, const json& value) {
    transformer[key] = value;
    return transformer;
}

class SpoiledModels : public testing::TestWithParam<SpoiledModel> {
};

string nameOf(const testing::TestParamInfo<SpoiledModel>& info) {
    return info.param.name;
}

} // namespace

TEST_P(SpoiledModels, AreRefused) {
    ModelParts parts = smallModel();
    ASSERT_EQ(messageOf(parts), "");
    GetParam().spoil(parts);
    string message = messageOf(parts);
    EXPECT_NE(message.find(GetParam().message), string::npos) << "got: " << message;
}

INSTANTIATE_TEST_SUITE_P(Document, SpoiledModels, testing::Values(
    with("NotAnObject", "", json::array(), "must have \"format\""),
    with("Format", "/format", "another", "another program's document"),
    with("FutureVersion", "/version", 3, "update OpenMM-Flow"),
    with("DistantFutureVersion", "/version", 1ull << 40, "an integer that fits"),
    with("VersionZero", "/version", 0, "version is 0"),
    with("VersionText", "/version", "1", "must be an integer"),
    without("NoVersion", "", "version", "no \"version\""),
    with("UnknownKey", "/note", "hello", "unknown key \"note\""),
    without("NoTemperature", "", "temperature", "no \"temperature\""),
    with("TemperatureZero", "/temperature", 0, "temperature is 0 K"),
    with("TemperatureNegative", "/temperature", -300, "must be positive"),
    with("TemperatureText", "/temperature", "300 K", "must be a number"),
    with("Measure", "/measure", "polar", "expected one of \"cartesian\", \"frame\""),
    with("DataList", "/data", json::array(), "data must be an object"),
    with("ParticlesFloat", "/numParticles", 5.0, "must be an integer"),
    with("ParticlesFew", "/numParticles", 2, "expected 3 to"),
    with("ParticlesMany", "/numParticles", 2000000000, "expected 3 to"),
    with("ParticlesOverflow", "/numParticles", 1ull << 63, "an integer that fits"),
    with("ParticlesUnlikeZMatrix", "/numParticles", 4, "one for each of the 4 particles")
), nameOf);

INSTANTIATE_TEST_SUITE_P(Molecule, SpoiledModels, testing::Values(
    with("RowShort", ZMATRIX+"/3", {3, 2, 1}, "must have 4 entries"),
    with("RowMissing", ZMATRIX, {{0, -1, -1, -1}, {1, 0, -1, -1}, {2, 1, 0, -1}, {3, 2, 1, 0}},
            "one for each of the 5 particles"),
    with("UnknownParticle", ZMATRIX+"/3/1", 9, "no particle 9"),
    with("NegativeParticle", ZMATRIX+"/3/1", -2, "no particle -2"),
    with("RepeatedInRow", ZMATRIX+"/3/2", 2, "stands in it twice"),
    with("PlacedTwice", ZMATRIX+"/4", {3, 4, 2, 1}, "places already"),
    with("GapInRow", ZMATRIX+"/4", {4, -1, 2, 1}, "end of a row"),
    with("EmptyRow", ZMATRIX+"/4", {-1, -1, -1, -1}, "places no particle"),
    with("TwoFrames", ZMATRIX+"/4", {4, 3, 2, -1}, "more than one row"),
    with("NoFrame", ZMATRIX+"/2", {2, 1, 0, 3}, "no row with 1 entries"),
    with("SecondFrameAtom", ZMATRIX+"/1", {1, 2, -1, -1}, "second frame atom"),
    with("ThirdFrameAtom", ZMATRIX+"/2", {2, 3, 0, -1}, "third frame atom"),
    SpoiledModel{"Cycle", [](ModelParts& parts) {
        parts.architecture["layers"][0]["zMatrix"][3] = {3, 4, 1, 0};
    }, "has a cycle"},
    with("BondUnknown", "/bonds/0/1", 5, "names particle 5"),
    with("BondNegative", "/bonds/0/1", -1, "names particle -1"),
    with("BondOfOne", "/bonds/0/1", 0, "with itself"),
    with("BondTwice", "/bonds/1", {1, 0}, "repeats the pair"),
    with("BondsApart", "/bonds", {{0, 1}, {1, 2}, {3, 4}}, "do not connect"),
    with("BondTriple", "/bonds/0", {0, 1, 2}, "must have 2 entries"),
    with("ConstraintShort", "/constraints/0", {0, 1}, "[particle, particle, distance in nm]"),
    with("ConstraintUnknown", "/constraints/0", {0, 5, 0.1}, "names particle 5"),
    with("ConstraintZero", "/constraints/0", {0, 1, 0}, "must be positive"),
    with("ConstraintTwice", "/constraints", {{0, 1, 0.1}, {1, 0, 0.1}}, "repeats the pair")
), nameOf);

INSTANTIATE_TEST_SUITE_P(Layers, SpoiledModels, testing::Values(
    with("NoLayers", "/layers", json::array(), "first of layers"),
    with("LayerUnknown", COUPLING+"/type", "spline", "expected one of \"internalCoordinates\""),
    without("LayerNoType", COUPLING, "type", "with a \"type\""),
    with("LayerNumber", COUPLING, 4, "with a \"type\""),
    SpoiledModel{"InternalCoordinatesTwice", [](ModelParts& parts) {
        parts.architecture["layers"][4] = parts.architecture["layers"][0];
    }, "can only be the first"},
    SpoiledModel{"InternalCoordinatesLater", [](ModelParts& parts) {
        swap(parts.architecture["layers"][0], parts.architecture["layers"][1]);
    }, "first of layers"},
    SpoiledModel{"TooManyLayers", [](ModelParts& parts) {
        for (int i = 0; i < 1000; i++)
            parts.architecture["layers"].push_back(parts.architecture["layers"][4]);
    }, "1000 at most"},
    with("MarginalOfCircle", "/layers/1/coordinates/0", 7, "of domain circle"),
    with("MarginalTwice", "/layers/2/coordinates/0", 1, "of domain interval"),
    with("MarginalRepeats", "/layers/1/coordinates", {1, 1, 3}, "second time"),
    with("MarginalUnknown", "/layers/1/coordinates/0", 9, "coordinates 0 to 8"),
    with("MarginalEmpty", "/layers/1/coordinates", json::array(), "is empty"),
    with("MarginalDistribution", "/layers/1/distribution", "cauchy", "expected one of \"uniform\""),
    SpoiledModel{"TransformsRealCoordinate", [](ModelParts& parts) {
        parts.architecture["layers"][4]["transformed"] = {0, 5};
        parts.architecture["layers"][4]["conditionedOn"] = {7, 8, 1};
    }, "which is real at this layer"},
    with("TransformsNothing", COUPLING+"/transformed", json::array(), "is empty"),
    with("TransformsTwice", COUPLING+"/transformed", {1, 1}, "second time"),
    with("TransformsUnknown", COUPLING+"/transformed/0", -1, "names coordinate -1"),
    with("ConditionsOnTransformed", COUPLING+"/conditionedOn/0", 1, "which it transforms"),
    with("ConditionsTwice", COUPLING+"/conditionedOn", {7, 7, 0}, "second time"),
    with("ConditionsOnUnknown", COUPLING+"/conditionedOn/0", 1000000000, "names coordinate 1000000000"),
    with("ConditionsOnNothing", COUPLING+"/conditionedOn", json::array(), "has hidden layers"),
    with("NoNetworks", CONDITIONER+"/networks", json::array(), "at least one network"),
    with("WidthZero", CONDITIONER+"/networks/0/0", 0, "at least one neuron"),
    with("WidthNegative", CONDITIONER+"/networks/0/0", -4, "at least one neuron"),
    with("Activation", CONDITIONER+"/activation", "relu", "expected one of \"silu\""),
    with("ConditionerKey", CONDITIONER+"/dropout", 0.1, "unknown key \"dropout\"")
), nameOf);

INSTANTIATE_TEST_SUITE_P(Transformer, SpoiledModels, testing::Values(
    with("Type", TRANSFORMER+"/type", "spline", "expected one of \"smoothMixture\", \"rationalQuadraticSpline\""),
    with("Head", TRANSFORMER+"/head", "other", "expected one of \"free\""),
    with("ClosedForm", TRANSFORMER+"/closedForm", "both", "expected one of \"density\""),
    without("NoHead", TRANSFORMER, "head", "no \"head\""),
    with("UnknownTransformerKey", TRANSFORMER+"/beta", 1, "unknown key \"beta\""),
    with("ComponentsZero", TRANSFORMER+"/components", 0, "expected 1 to 4096"),
    with("ComponentsMany", TRANSFORMER+"/components", 4097, "expected 1 to 4096"),
    with("ComponentsOverflow", TRANSFORMER+"/components", 4294967298, "an integer that fits"),
    with("Exponent", TRANSFORMER+"/exponent", 3, "expected 1 or 2"),
    with("AlphaOffset", TRANSFORMER+"/alphaOffset", 0.86, "two maxima"),
    with("AlphaRange", TRANSFORMER+"/alphaRange", -1, "a number >= 0"),
    with("AlphaLarge", TRANSFORMER+"/alphaRange", 1e300, "at most 1000"),
    with("SteepnessZero", TRANSFORMER+"/logSteepnessBound", 0, "more than 0"),
    with("SteepnessLarge", TRANSFORMER+"/logSteepnessBound", 11, "at most 10"),
    with("FloorZero", TRANSFORMER+"/minimumFloor", 0, "between 0 and 1"),
    with("FloorOne", TRANSFORMER+"/minimumFloor", 1, "between 0 and 1")
), nameOf);

INSTANTIATE_TEST_SUITE_P(Base, SpoiledModels, testing::Values(
    with("Missing", "/base/0/coordinates", {1, 2, 3, 4, 7}, "coordinate 8 has no base density"),
    with("Twice", "/base/0/coordinates/0", 2, "second time"),
    with("InTwoEntries", "/base/1/coordinates/0", 1, "second time"),
    with("Unknown", "/base/0/coordinates/0", 9, "coordinates 0 to 8"),
    with("EmptyEntry", "/base/0/coordinates", json::array(), "is empty"),
    SpoiledModel{"NormalOnInterval", [](ModelParts& parts) { parts.architecture["base"][1]["distribution"] = "normal"; },
            "no density"},
    SpoiledModel{"UniformOnReal", [](ModelParts& parts) { parts.architecture["base"][2]["distribution"] = "uniform"; },
            "no density"},
    SpoiledModel{"TruncatedNormalOnCircle",
            [](ModelParts& parts) { parts.architecture["base"][0]["distribution"] = "truncatedNormal"; }, "no density"},
    with("EntryKey", "/base/0/scale", 1, "unknown key \"scale\"")
), nameOf);

const double NOT_A_NUMBER = numeric_limits<double>::quiet_NaN(), INFINITE = numeric_limits<double>::infinity();

INSTANTIATE_TEST_SUITE_P(Weights, SpoiledModels, testing::Values(
    weight("NaN", "layers.4.networks.0.1.weight", NOT_A_NUMBER, "at position 63"),
    weight("Infinite", "layers.4.networks.1.0.bias", INFINITE, "weights must be finite"),
    weight("MarginalNaN", "layers.2.mean", NOT_A_NUMBER, "weights must be finite"),
    SpoiledModel{"MissingTensor", [](ModelParts& parts) { parts.tensors.erase("layers.4.networks.0.1.bias"); },
            "'layers.4.networks.0.1.bias' is missing"},
    SpoiledModel{"UnknownTensor", [](ModelParts& parts) { parts.tensors["extra"] = tensor({1}, 1); },
            "'extra' belongs to nothing"},
    SpoiledModel{"TensorOfAnotherLayer", [](ModelParts& parts) { parts.tensors["layers.5.lower"] = tensor({1}, 1); },
            "belongs to nothing"},
    SpoiledModel{"MeanOfUniform", [](ModelParts& parts) { parts.tensors["layers.1.mean"] = tensor({3}, 1); },
            "belongs to nothing"},
    shape("Features", "layers.4.networks.0.0.weight", {4, 4}, "must have (4, 5)"),
    shape("Width", "layers.4.networks.0.0.weight", {3, 5}, "must have (4, 5)"),
    shape("Transposed", "layers.4.networks.0.0.weight", {5, 4}, "must have (4, 5)"),
    shape("Flat", "layers.4.networks.0.0.weight", {20}, "must have (4, 5)"),
    shape("Scalar", "layers.1.lower", {}, "must have (3,)"),
    shape("TooLong", "layers.1.lower", {4}, "must have (3,)"),
    shape("Column", "layers.1.lower", {3, 1}, "must have (3,)"),
    shape("InnerWidth", "layers.4.networks.0.1.weight", {16, 5}, "must have (any, 4)"),
    shape("LastBias", "layers.4.networks.0.1.bias", {15}, "16 rows of weights, but 15 biases"),
    SpoiledModel{"OutputsInAll", [](ModelParts& parts) {
        parts.tensors["layers.4.networks.1.0.weight"] = tensor({8, 5}, 1);
        parts.tensors["layers.4.networks.1.0.bias"] = tensor({8}, 1);
    }, "24 outputs together, expected 20"},
    SpoiledModel{"OutputsOfBrokenBlocks", [](ModelParts& parts) {
        parts.tensors["layers.4.networks.0.1.weight"] = tensor({15, 4}, 1);
        parts.tensors["layers.4.networks.0.1.bias"] = tensor({15}, 1);
        parts.tensors["layers.4.networks.1.0.weight"] = tensor({5, 5}, 1);
        parts.tensors["layers.4.networks.1.0.bias"] = tensor({5}, 1);
    }, "15 outputs, expected whole blocks of 4"},
    SpoiledModel{"OutputsNone", [](ModelParts& parts) {
        parts.tensors["layers.4.networks.1.0.weight"] = tensor({0, 5}, 1);
        parts.tensors["layers.4.networks.1.0.bias"] = tensor({0}, 1);
    }, "0 outputs, expected whole blocks of 4"},
    weight("StdZero", "layers.2.std", 0, "positive standard deviation"),
    weight("StdNegative", "layers.3.std", -1, "positive standard deviation"),
    weight("StdDenormal", "layers.3.std", 5e-324, "positive standard deviation"),
    weight("BaseStd", "base.1.std", 0, "positive standard deviation"),
    weight("BoundsEqual", "layers.1.upper", 0.1, "expected lower < upper"),
    weight("BoundsSwapped", "layers.1.upper", 0.05, "expected lower < upper"),
    weight("BondNegative", "layers.1.lower", -0.01, "which is never negative"),
    weight("AngleNegative", "layers.2.lower", -0.01, "within 0 and 1"),
    weight("AngleAboveOne", "layers.2.upper", 1.01, "within 0 and 1"),
    weight("NoMassInBounds", "layers.2.mean", 5, "of its mass between"),
    weight("NoMassInBase", "base.1.mean", -10, "of its mass between 0 and 1")
), nameOf);

TEST(ModelFileArchitecture, EmptyConditionsNeedNoHiddenLayers) {
    // A network without features is its bias.
    ModelParts parts = smallModel();
    parts.architecture["layers"][4]["conditionedOn"] = json::array();
    parts.architecture["layers"][4]["conditioner"]["networks"] = json::array({json::array()});    // braces alone mean a copy to clang
    for (auto it = parts.tensors.begin(); it != parts.tensors.end(); )
        it = (it->first.find("networks") != string::npos ? parts.tensors.erase(it) : next(it));
    parts.tensors["layers.4.networks.0.0.weight"] = tensor({20, 0}, 0);
    parts.tensors["layers.4.networks.0.0.bias"] = tensor({20}, 0.1);
    EXPECT_EQ(messageOf(parts), "");
}

TEST(ModelFileArchitecture, TheFrameMayBePlacedFromEitherEnd) {
    ModelParts parts = smallModel();
    parts.architecture["layers"][0]["zMatrix"] = {{4, 3, 2, 1}, {2, 0, 1, -1}, {3, 2, 1, 0}, {1, 0, -1, -1}, {0, -1, -1, -1}};
    EXPECT_EQ(messageOf(parts), "");
}

TEST(ModelFileArchitecture, DataIsOptional) {
    ModelParts parts = smallModel();
    parts.architecture.erase("data");
    EXPECT_EQ(FlowModel::fromBytes(parts.toBytes()).getArchitecture().data, "{}");
}

TEST(ModelFileArchitecture, DomainsChangeAtMarginals) {
    FlowModel model = FlowModel::fromBytes(smallModel().toBytes());
    vector<vector<Domain>> domains = coordinateDomains(model.getArchitecture());
    ASSERT_EQ(domains.size(), 5u);
    const Domain R = Domain::Real, I = Domain::Interval, C = Domain::Circle;
    EXPECT_EQ(domains[0], (vector<Domain>{R, R, R, R, R, R, R, C, C}));
    EXPECT_EQ(domains[1], (vector<Domain>{R, I, I, I, R, R, R, C, C}));
    EXPECT_EQ(domains[4], (vector<Domain>{R, I, I, I, I, I, I, C, C}));
}

INSTANTIATE_TEST_SUITE_P(Transformers, SpoiledModels, testing::Values(
    transformer("OfALaterVersion", SPLINE, "which version 2 of the format has; the document says version 1", 1),
    transformer("Outputs", SPLINE, "16 outputs, expected whole blocks of 6 or 2 parameters; the blocks are 6, 6, 6, 2"),
    transformer("Unknown", changed(SPLINE, "type", "spline"), "expected one of \"smoothMixture\", \"rationalQuadraticSpline\""),
    transformer("UnknownKey", changed(SPLINE, "tails", true), "unknown key \"tails\""),
    transformer("NoBins", changed(SPLINE, "bins", 0), "bins is 0, expected 1 to 1024"),
    transformer("TooWide", changed(SPLINE, "minimumWidth", 0.34), "minimumWidth is 0.34, expected more than 0 and less than 0.333"),
    transformer("NotPositive", changed(SPLINE, "minimumSlope", 0), "minimumSlope is 0, expected more than 0 and less than 1"),
    transformer("OneBin", {{"type", "cubicBSpline"}, {"closedForm", "density"}, {"bins", 1}, {"minimumWidth", 0.01},
            {"minimumIncrement", 0.01}}, "bins is 1, expected 2 to 1024"),
    transformer("RealLine", {{"type", "affine"}, {"closedForm", "density"}, {"logScaleBound", 1}},
            "coordinate 1, which is interval at this layer; the affine transformer works on real"),
    transformer("Circle", {{"type", "moebius"}, {"closedForm", "density"}, {"components", 2}, {"radiusBound", 0.9}},
            "coordinate 1, which is interval at this layer; the moebius transformer works on circle"),
    transformer("Scale", {{"type", "analytic"}, {"closedForm", "density"}, {"steps", 2}, {"logScaleBound", 6}, {"radiusBound", 0.9}},
            "logScaleBound is 6, expected more than 0 and at most 5")
), nameOf);
