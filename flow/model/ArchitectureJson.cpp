// SPDX-License-Identifier: MIT
#include "model/ArchitectureJson.h"
#include "model/Failure.h"
#include "model/StrictJson.h"

#include <cmath>
#include <limits>
#include <set>

using namespace OpenMMFlow;
using namespace std;
using nlohmann::json;

namespace {

const char* const FORMAT = "openmm-flow";
const int VERSION = 2;

/** A value of the document together with the path to it, for messages. */
class Node {
public:
    Node(const json& value, const string& path) : value(value), path(path) {
    }

    const string& getPath() const {
        return path;
    }

    /** Raise unless this is an object with all the keys that are required, and no others than these and the optional ones. */
    void expectObject(const set<string>& required, const set<string>& optional = {}) const {
        expect(value.is_object(), "an object");
        for (const string& key : required)
            if (!value.contains(key))
                fail(path, " has no \"", key, "\"; it must have ", list(required));
        for (const auto& [key, ignored] : value.items())
            if (required.count(key) == 0 && optional.count(key) == 0)
                fail(path, " has the unknown key \"", key, "\"; known are ", list(required), optional.empty() ? "" : ", ",
                        list(optional));
    }

    bool has(const string& key) const {
        return value.is_object() && value.contains(key);
    }

    /** Member of an object that expectObject has seen. */
    Node operator[](const string& key) const {
        return Node(value.at(key), path+"."+key);
    }

    vector<Node> items() const {
        expect(value.is_array(), "a list");
        vector<Node> nodes;
        for (size_t i = 0; i < value.size(); i++)
            nodes.emplace_back(value[i], path+"["+to_string(i)+"]");
        return nodes;
    }

    int integer() const {
        const char* expected = "an integer that fits into 32 bits";
        expect(value.is_number_integer(), expected);
        if (value.is_number_unsigned())
            expect(value.get<uint64_t>() <= (uint64_t) numeric_limits<int>::max(), expected);
        else
            expect(value.get<int64_t>() >= numeric_limits<int>::min(), expected);
        return value.get<int>();
    }

    double number() const {
        expect(value.is_number(), "a number");
        return value.get<double>();
    }

    string text() const {
        expect(value.is_string(), "a string");
        return value.get<string>();
    }

    vector<int> integers() const {
        vector<int> result;
        for (const Node& item : items())
            result.push_back(item.integer());
        return result;
    }

    template <size_t N>
    array<int, N> integers() const {
        vector<int> values = integers();
        if (values.size() != N)
            fail(path, " must have ", N, " entries, got ", values.size());
        array<int, N> result{};
        copy(values.begin(), values.end(), result.begin());
        return result;
    }

    template <class Choice>
    Choice choice(const vector<pair<string, Choice>>& choices) const {
        string name = text();
        string known;
        for (const auto& [key, result] : choices) {
            if (key == name)
                return result;
            known += (known.empty() ? "\"" : ", \"")+key+"\"";
        }
        fail(path, " is \"", name, "\", expected one of ", known);
    }

    string dump() const {
        return value.dump();
    }

private:
    void expect(bool condition, const char* what) const {
        if (!condition)
            fail(path, " must be ", what, ", got ", value.dump().substr(0, 60));
    }

    static string list(const set<string>& names) {
        string text;
        for (const string& name : names)
            text += (text.empty() ? "\"" : ", \"")+name+"\"";
        return text;
    }

    const json& value;
    string path;
};

Distribution readDistribution(const Node& node) {
    return node.choice<Distribution>({{"uniform", Distribution::Uniform}, {"normal", Distribution::Normal},
            {"truncatedNormal", Distribution::TruncatedNormal}});
}

/** @param storesBounds  marginals have tensors for their bounds; a base density is always bounded by 0 and 1 */
void readDistributions(const Node& node, bool storesBounds, CoordinateDistributions& distributions) {
    distributions.distribution = readDistribution(node["distribution"]);
    distributions.coordinates = node["coordinates"].integers();
    const vector<int64_t> shape = {(int64_t) distributions.coordinates.size()};
    if (distributions.distribution != Distribution::Normal && storesBounds)
        distributions.lower.shape = distributions.upper.shape = shape;
    if (distributions.distribution != Distribution::Uniform)
        distributions.mean.shape = distributions.std.shape = shape;
}

InternalCoordinatesLayer readInternalCoordinates(const Node& node) {
    node.expectObject({"type", "zMatrix"});
    InternalCoordinatesLayer layer;
    for (const Node& row : node["zMatrix"].items())
        layer.zMatrix.push_back(row.integers<4>());
    return layer;
}

MixedCoordinatesLayer readMixedCoordinates(const Node& node) {
    node.expectObject({"type", "block", "blockDimensions", "zMatrix"});
    MixedCoordinatesLayer layer;
    layer.block = node["block"].integers();
    layer.blockDimensions = node["blockDimensions"].integer();
    for (const Node& row : node["zMatrix"].items())
        layer.zMatrix.push_back(row.integers<4>());
    const int64_t numBlock = layer.block.size();
    layer.reference.shape = {numBlock, 3};
    layer.whitening.shape = {layer.blockDimensions, 3*numBlock};
    return layer;
}

MarginalLayer readMarginal(const Node& node) {
    node.expectObject({"type", "distribution", "coordinates"});
    MarginalLayer layer;
    readDistributions(node, true, layer);
    return layer;
}

Direction readDirection(const Node& node) {
    return node.choice<Direction>({{"density", Direction::Density}, {"sampling", Direction::Sampling}});
}

SmoothMixtureTransformer readSmoothMixture(const Node& node) {
    node.expectObject({"type", "head", "closedForm", "components", "exponent", "alphaOffset", "alphaRange", "logSteepnessBound",
            "minimumFloor"});
    SmoothMixtureTransformer transformer;
    transformer.head = node["head"].choice<MixtureHead>({{"free", MixtureHead::Free}, {"published", MixtureHead::Published}});
    transformer.closedForm = readDirection(node["closedForm"]);
    transformer.components = node["components"].integer();
    transformer.exponent = node["exponent"].integer();
    transformer.alphaOffset = node["alphaOffset"].number();
    transformer.alphaRange = node["alphaRange"].number();
    transformer.logSteepnessBound = node["logSteepnessBound"].number();
    transformer.minimumFloor = node["minimumFloor"].number();
    return transformer;
}

FormulaTransformer readFormulaTransformer(const Node& node, const TransformerDescriptor& descriptor) {
    set<string> keys = {"type", "closedForm"};
    if (descriptor.sizeName != nullptr)
        keys.insert(descriptor.sizeName);
    for (const TransformerDescriptor::Setting& setting : descriptor.settings)
        keys.insert(setting.name);
    node.expectObject(keys);
    FormulaTransformer transformer = {&descriptor, readDirection(node["closedForm"]), 1, {}};
    if (descriptor.sizeName != nullptr)
        transformer.size = node[descriptor.sizeName].integer();
    for (const TransformerDescriptor::Setting& setting : descriptor.settings)
        transformer.settings.push_back(node[setting.name].number());
    return transformer;
}

Transformer readTransformer(const Node& node, int version) {
    if (!node.has("type"))
        fail(node.getPath(), " must be an object with a \"type\"");
    vector<pair<string, const TransformerDescriptor*>> choices = {{"smoothMixture", nullptr}};
    for (const TransformerDescriptor& descriptor : transformerDescriptors())
        choices.emplace_back(descriptor.name, &descriptor);
    const TransformerDescriptor* descriptor = node["type"].choice(choices);
    if (descriptor == nullptr)
        return readSmoothMixture(node);
    if (version < 2)
        fail(node.getPath(), ".type is \"", descriptor->name, "\", which version 2 of the format has; the document says version ", version);
    return readFormulaTransformer(node, *descriptor);
}

Conditioner readConditioner(const Node& node) {
    node.expectObject({"activation", "networks"});
    Conditioner conditioner;
    conditioner.activation = node["activation"].choice<ActivationType>({{"silu", ActivationType::SiLU},
            {"tanh", ActivationType::Tanh}, {"sin", ActivationType::Sin}, {"gelu", ActivationType::GELU},
            {"softplus", ActivationType::Softplus}});
    for (const Node& network : node["networks"].items()) {
        vector<DenseLayer>& layers = conditioner.networks.emplace_back();
        int64_t inputs = -1;
        for (const Node& width : network.items()) {
            int64_t outputs = width.integer();
            if (outputs < 1)
                fail(width.getPath(), " is ", outputs, "; a hidden layer must have at least one neuron");
            DenseLayer& layer = layers.emplace_back();
            layer.weight.shape = {outputs, inputs};
            layer.bias.shape = {outputs};
            inputs = outputs;
        }
        DenseLayer& last = layers.emplace_back();
        last.weight.shape = {-1, inputs};
        last.bias.shape = {-1};
    }
    return conditioner;
}

CouplingLayer readCoupling(const Node& node, int version) {
    node.expectObject({"type", "transformed", "conditionedOn", "transformer", "conditioner"});
    CouplingLayer layer;
    layer.transformed = node["transformed"].integers();
    layer.conditionedOn = node["conditionedOn"].integers();
    layer.transformer = readTransformer(node["transformer"], version);
    layer.conditioner = readConditioner(node["conditioner"]);
    return layer;
}

ElementwiseLayer readElementwise(const Node& node, ElementwiseMap map) {
    node.expectObject({"type", "coordinates"});
    ElementwiseLayer layer;
    layer.map = map;
    layer.coordinates = node["coordinates"].integers();
    const vector<int64_t> shape = {(int64_t) layer.coordinates.size()};
    if (map == ElementwiseMap::AffineNormalization)
        layer.scale.shape = shape;
    if (map == ElementwiseMap::AffineNormalization || map == ElementwiseMap::CircularShift)
        layer.shift.shape = shape;
    return layer;
}

PermutationLayer readPermutation(const Node& node) {
    node.expectObject({"type", "order"});
    return {node["order"].integers()};
}

Layer readLayer(const Node& node, int version) {
    if (!node.has("type"))
        fail(node.getPath(), " must be an object with a \"type\"");
    struct Reader {
        Layer (*read)(const Node&, int version);
        int version;    // that has this type
    };
    const Reader reader = node["type"].choice<Reader>({
        {"internalCoordinates", {[](const Node& n, int) -> Layer { return readInternalCoordinates(n); }, 1}},
        {"marginal", {[](const Node& n, int) -> Layer { return readMarginal(n); }, 1}},
        {"coupling", {[](const Node& n, int v) -> Layer { return readCoupling(n, v); }, 1}},
        {"mixedCoordinates", {[](const Node& n, int) -> Layer { return readMixedCoordinates(n); }, 2}},
        {"permutation", {[](const Node& n, int) -> Layer { return readPermutation(n); }, 2}},
        {"affineNormalization", {[](const Node& n, int) -> Layer { return readElementwise(n, ElementwiseMap::AffineNormalization); }, 2}},
        {"logit", {[](const Node& n, int) -> Layer { return readElementwise(n, ElementwiseMap::Logit); }, 2}},
        {"logistic", {[](const Node& n, int) -> Layer { return readElementwise(n, ElementwiseMap::Logistic); }, 2}},
        {"circularShift", {[](const Node& n, int) -> Layer { return readElementwise(n, ElementwiseMap::CircularShift); }, 2}},
    });
    if (version < reader.version)
        fail(node.getPath(), ".type is \"", node["type"].text(), "\", which version ", reader.version,
                " of the format has, but the document says that it is of version ", version);
    return reader.read(node, version);
}

/** Before anything else is looked at: a later version may differ in all of it. Returns the version. */
int checkVersion(const Node& node) {
    if (!node.has("format") || node["format"].text() != FORMAT)
        fail(node.getPath(), " must have \"format\": \"", FORMAT, "\"; this is another program's document");
    if (!node.has("version"))
        fail(node.getPath(), " has no \"version\"; expected 1 to ", VERSION);
    int version = node["version"].integer();
    if (version < 1)
        fail(node.getPath(), ".version is ", version, ", expected 1 to ", VERSION);
    if (version > VERSION)
        fail("the model file is of version ", version, " of the format, but this software reads up to version ", VERSION,
                "; update OpenMM-Flow");
    return version;
}

} // namespace

Architecture OpenMMFlow::readArchitecture(const string& text) {
    const json document = parseStrictJson(text, "the architecture");
    const Node node(document, "architecture");
    const int version = checkVersion(node);
    node.expectObject({"format", "version", "numParticles", "temperature", "measure", "bonds", "constraints", "layers", "base"},
            {"data"});

    Architecture architecture;
    architecture.numParticles = node["numParticles"].integer();
    architecture.temperature = node["temperature"].number();
    architecture.measure = node["measure"].choice<Measure>({{"cartesian", Measure::Cartesian}, {"frame", Measure::Frame}});
    for (const Node& bond : node["bonds"].items())
        architecture.bonds.push_back(bond.integers<2>());
    for (const Node& constraint : node["constraints"].items()) {
        vector<Node> items = constraint.items();
        if (items.size() != 3)
            fail(constraint.getPath(), " must be [particle, particle, distance in nm]");
        architecture.constraints.push_back({items[0].integer(), items[1].integer(), items[2].number()});
    }
    architecture.data = "{}";
    if (node.has("data")) {
        if (!document["data"].is_object())
            fail("architecture.data must be an object");
        architecture.data = node["data"].dump();
    }
    for (const Node& layer : node["layers"].items())
        architecture.layers.push_back(readLayer(layer, version));
    for (const Node& entry : node["base"].items()) {
        entry.expectObject({"distribution", "coordinates"});
        readDistributions(entry, false, architecture.base.emplace_back());
    }
    return architecture;
}

bool OpenMMFlow::equalArchitectures(const string& json1, const string& json2) {
    json documents[] = {parseStrictJson(json1, "the architecture"), parseStrictJson(json2, "the architecture")};
    for (json& document : documents) {
        document.erase("temperature");
        document.erase("data");
    }
    return documents[0] == documents[1];
}
