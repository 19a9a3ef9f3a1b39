// SPDX-License-Identifier: MIT
#include "model/ArchitectureValidation.h"
#include "model/BlockWhitening.h"
#include "model/Failure.h"
#include "model/TopologyValidation.h"

#include <algorithm>
#include <cmath>
#include <string>

using namespace OpenMMFlow;
using namespace std;

namespace {

// Sanity bounds, stated in docs/model_format.md. They keep sizes well within 32 bits and the transformer well-conditioned.
const int MAX_PARTICLES = 10000;
const size_t MAX_LAYERS = 1000;
const int MAX_COMPONENTS = 4096;
const double MAX_ALPHA = 1000;
const double MAX_LOG_STEEPNESS = 10;
const double MIN_TRUNCATED_MASS = 1e-6;

// Above which a component has one maximum: what the published head adds to alpha, slightly less than sqrt(3)/2 and sqrt(3/32).
double smallestAlpha(int exponent) {
    return (exponent == 1 ? 0.8656721 : 0.3052033)-1e-6;
}

string layerName(size_t index) {
    return "layers["+to_string(index)+"]";
}

/** In range and none twice; used[coordinate] tells which have been seen, also in earlier calls. */
void checkCoordinates(const vector<int>& coordinates, const string& where, vector<char>& used) {
    for (int coordinate : coordinates) {
        if (coordinate < 0 || coordinate >= (int) used.size())
            fail(where, " names coordinate ", coordinate, ", but the model has the coordinates 0 to ", used.size()-1);
        if (used[coordinate])
            fail(where, " names coordinate ", coordinate, " a second time");
        used[coordinate] = true;
    }
}

void checkNotEmpty(const vector<int>& coordinates, const string& where) {
    if (coordinates.empty())
        fail(where, " is empty, expected at least one coordinate");
}

void checkSmoothMixture(const SmoothMixtureTransformer& transformer, const string& where) {
    auto check = [&](bool valid, const char* name, double value, const auto&... expected) {
        if (!valid)
            fail(where, ".", name, " is ", value, ", expected ", expected...);
    };
    check(transformer.components >= 1 && transformer.components <= MAX_COMPONENTS, "components", transformer.components,
            "1 to ", MAX_COMPONENTS);
    check(transformer.exponent == 1 || transformer.exponent == 2, "exponent", transformer.exponent, "1 or 2");
    check(transformer.alphaOffset >= smallestAlpha(transformer.exponent), "alphaOffset", transformer.alphaOffset, "at least ",
            transformer.exponent == 1 ? "0.8656721" : "0.3052033", ", below which a component has two maxima");
    check(transformer.alphaRange >= 0, "alphaRange", transformer.alphaRange, "a number >= 0");
    check(transformer.alphaOffset+transformer.alphaRange <= MAX_ALPHA, "alphaOffset + alphaRange",
            transformer.alphaOffset+transformer.alphaRange, "at most ", MAX_ALPHA);
    check(transformer.logSteepnessBound > 0 && transformer.logSteepnessBound <= MAX_LOG_STEEPNESS, "logSteepnessBound",
            transformer.logSteepnessBound, "more than 0 and at most ", MAX_LOG_STEEPNESS);
    check(transformer.minimumFloor > 0 && transformer.minimumFloor < 1, "minimumFloor", transformer.minimumFloor,
            "a number between 0 and 1");
}

void checkFormulaTransformer(const FormulaTransformer& transformer, const string& where) {
    const TransformerDescriptor& descriptor = *transformer.descriptor;
    if (transformer.size < descriptor.smallestSize || transformer.size > descriptor.largestSize)
        fail(where, ".", descriptor.sizeName, " is ", transformer.size, ", expected ", descriptor.smallestSize, " to ",
                descriptor.largestSize);
    for (size_t i = 0; i < descriptor.settings.size(); i++) {
        const TransformerDescriptor::Setting& setting = descriptor.settings[i];
        const double value = transformer.settings[i], upper = setting.upper(transformer.size);
        if (!(value > setting.lower && (setting.upperIncluded ? value <= upper : value < upper)))
            fail(where, ".", setting.name, " is ", value, ", expected more than ", setting.lower, " and ",
                    setting.upperIncluded ? "at most " : "less than ", upper);
    }
}

/** The domains that a transformer works on. */
void checkDomains(const CouplingLayer& coupling, const vector<Domain>& domains, const string& where) {
    const FormulaTransformer* transformer = get_if<FormulaTransformer>(&coupling.transformer);
    const string name = (transformer == nullptr ? "smoothMixture" : transformer->descriptor->name);
    const vector<Domain> allowed = (transformer == nullptr ? vector<Domain>{Domain::Interval, Domain::Circle} :
            transformer->descriptor->domains);
    for (int coordinate : coupling.transformed) {
        const Domain domain = domains[coordinate];
        if (find(allowed.begin(), allowed.end(), domain) == allowed.end()) {
            string known;
            for (Domain other : allowed)
                known += string(known.empty() ? "" : " and ")+describe(other);
            fail(where, ".transformed has coordinate ", coordinate, ", which is ", describe(domain), " at this layer; the ", name,
                    " transformer works on ", known, domain == Domain::Real ? ". Put a marginal layer before it" : "");
        }
        if ((domain == Domain::Real) != (domains[coupling.transformed.front()] == Domain::Real))
            fail(where, ".transformed has real coordinates and others; put them into couplings of their own");
    }
}

void checkCoupling(const CouplingLayer& coupling, const vector<Domain>& domains, const string& where) {
    checkDomains(coupling, domains, where);
    if (coupling.conditioner.networks.empty())
        fail(where, ".conditioner.networks is empty, expected at least one network");
    bool hasHiddenLayers = any_of(coupling.conditioner.networks.begin(), coupling.conditioner.networks.end(),
            [](const vector<DenseLayer>& network) { return network.size() > 1; });
    if (coupling.conditionedOn.empty() && hasHiddenLayers)
        fail(where, ".conditionedOn is empty, but a network has hidden layers; without features a network is its bias alone: []");
    if (const SmoothMixtureTransformer* mixture = get_if<SmoothMixtureTransformer>(&coupling.transformer))
        checkSmoothMixture(*mixture, where+".transformer");
    else
        checkFormulaTransformer(get<FormulaTransformer>(coupling.transformer), where+".transformer");
}

void checkDomains(const vector<int>& coordinates, const vector<Domain>& domains, Domain expected, const char* layer,
        const string& where) {
    for (int coordinate : coordinates)
        if (domains[coordinate] != expected)
            fail(where, ".coordinates has coordinate ", coordinate, ", which is of domain ", describe(domains[coordinate]),
                    " at this layer; ", layer, " maps ", describe(expected), " coordinates");
}

void checkMarginal(const MarginalLayer& marginal, const vector<Domain>& domains, const vector<CoordinateOrigin>& origins,
        const string& where) {
    checkDomains(marginal.coordinates, domains, Domain::Real, "a marginal", where);
    if (marginal.distribution == Distribution::Normal)
        return;
    for (int coordinate : marginal.coordinates)
        if (!origins[coordinate].known)
            fail(where, ".coordinates has coordinate ", coordinate, ", which another layer has transformed before; a distribution with "
                    "bounds is of a coordinate of the molecule. Put it before couplings, or take a normal distribution");
}

void checkElementwise(const ElementwiseLayer& layer, const vector<Domain>& domains, const string& where) {
    switch (layer.map) {
        case ElementwiseMap::AffineNormalization:
            return checkDomains(layer.coordinates, domains, Domain::Real, "affineNormalization", where);
        case ElementwiseMap::Logit:
            return checkDomains(layer.coordinates, domains, Domain::Interval, "logit", where);
        case ElementwiseMap::Logistic:
            return checkDomains(layer.coordinates, domains, Domain::Real, "logistic", where);
        case ElementwiseMap::CircularShift:
            return checkDomains(layer.coordinates, domains, Domain::Circle, "circularShift", where);
    }
}

void checkBase(const vector<CoordinateDistributions>& base, const vector<Domain>& domains) {
    vector<char> used(domains.size(), false);
    for (size_t e = 0; e < base.size(); e++) {
        const string where = "base["+to_string(e)+"].coordinates";
        checkNotEmpty(base[e].coordinates, where);
        checkCoordinates(base[e].coordinates, where, used);
        for (int coordinate : base[e].coordinates) {
            Domain domain = domains[coordinate];
            bool fits = (base[e].distribution == Distribution::Uniform ? domain != Domain::Real :
                    domain == (base[e].distribution == Distribution::Normal ? Domain::Real : Domain::Interval));
            if (!fits)
                fail(where, " has coordinate ", coordinate, " of domain ", describe(domain),
                        ", for which this distribution is no density; expected normal for real, uniform or truncatedNormal for "
                        "interval, uniform for circle");
        }
    }
    size_t missing = find(used.begin(), used.end(), false)-used.begin();
    if (missing < used.size())
        fail("coordinate ", missing, " has no base density; every coordinate must stand in exactly one entry of base");
}

/** Indices only, so that everything after this may use them. */
void checkIndices(const Layer& layer, int numCoordinates, const string& where) {
    vector<char> used(numCoordinates, false);
    if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer)) {
        checkNotEmpty(marginal->coordinates, where+".coordinates");
        checkCoordinates(marginal->coordinates, where+".coordinates", used);
    }
    else if (const ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layer)) {
        checkNotEmpty(elementwise->coordinates, where+".coordinates");
        checkCoordinates(elementwise->coordinates, where+".coordinates", used);
    }
    else if (const PermutationLayer* permutation = get_if<PermutationLayer>(&layer)) {
        if (permutation->order.size() != (size_t) numCoordinates)
            fail(where, ".order has ", permutation->order.size(), " entries, expected one for each of the ", numCoordinates, " coordinates");
        checkCoordinates(permutation->order, where+".order", used);
    }
    else if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer)) {
        vector<char> usedAsCondition(numCoordinates, false);
        checkNotEmpty(coupling->transformed, where+".transformed");
        checkCoordinates(coupling->transformed, where+".transformed", used);
        checkCoordinates(coupling->conditionedOn, where+".conditionedOn", usedAsCondition);
        for (int coordinate : coupling->conditionedOn)
            if (used[coordinate])
                fail(where, " conditions on coordinate ", coordinate, ", which it transforms; the two sets must be disjoint");
    }
}

double normalMass(double lower, double upper) {
    // From the tail that both bounds are in, so that nothing cancels.
    if (lower > 0)
        return 0.5*(erfc(lower/sqrt(2.0))-erfc(upper/sqrt(2.0)));
    return 0.5*(erfc(-upper/sqrt(2.0))-erfc(-lower/sqrt(2.0)));
}

void checkElementwiseValues(const ElementwiseLayer& layer, const string& name) {
    for (size_t i = 0; i < layer.scale.values.size(); i++)
        if (!(layer.scale.values[i] > 0) || !isfinite(1/layer.scale.values[i]))
            fail(name, ".scale[", i, "] is ", layer.scale.values[i], ", expected a positive number");
}

void checkMarginalValues(const MarginalLayer& marginal, const Architecture& architecture, const vector<CoordinateOrigin>& origins,
        const string& name) {
    for (size_t i = 0; i < marginal.coordinates.size(); i++) {
        const int coordinate = marginal.coordinates[i];
        const string entry = "["+to_string(i)+"] (coordinate "+to_string(coordinate)+")";
        if (marginal.distribution != Distribution::Uniform) {
            double std = marginal.std.values[i];
            if (!(std > 0) || !isfinite(1/std))
                fail(name, ".std", entry, " is ", std, ", expected a positive standard deviation");
        }
        if (marginal.distribution == Distribution::Normal)
            continue;
        double lower = marginal.lower.values[i], upper = marginal.upper.values[i];
        if (!(lower < upper) || !isfinite(1/(upper-lower)))
            fail(name, ": lower", entry, " is ", lower, " and upper ", upper, ", expected lower < upper");
        // What a normalization has rounded is no error.
        const CoordinateOrigin& origin = origins[coordinate];
        const double first = origin.scale*lower+origin.shift, last = origin.scale*upper+origin.shift;
        const double tolerance = (origin.scale == 1 && origin.shift == 0 ? 0 : 1e-9);
        bool isBond = (origin.coordinate < architecture.numBonds());
        bool isAngle = (!isBond && origin.coordinate < architecture.numBonds()+architecture.numAngles());
        if (isBond && first < -tolerance)
            fail(name, ".lower", entry, " is ", first, " nm, but it is of a bond, which is never negative; expected >= 0");
        if (isAngle && (first < -tolerance || last > 1+tolerance))
            fail(name, ": bounds ", first, " and ", last, " of ", entry,
                    " are of an angle divided by pi; expected them within 0 and 1");
        if (marginal.distribution == Distribution::TruncatedNormal) {
            double mean = marginal.mean.values[i], std = marginal.std.values[i];
            if (!(normalMass((lower-mean)/std, (upper-mean)/std) >= MIN_TRUNCATED_MASS))
                fail(name, entry, ": a normal distribution with mean ", mean, " and std ", std, " has less than ",
                        MIN_TRUNCATED_MASS, " of its mass between ", lower, " and ", upper, "; move the mean or the bounds");
        }
    }
}

void checkBaseValues(const CoordinateDistributions& base, const string& name) {
    for (size_t i = 0; i < base.std.values.size(); i++) {
        double mean = base.mean.values[i], std = base.std.values[i];
        if (!(std > 0) || !isfinite(1/std))
            fail(name, ".std[", i, "] is ", std, ", expected a positive standard deviation");
        if (base.distribution == Distribution::TruncatedNormal && !(normalMass(-mean/std, (1-mean)/std) >= MIN_TRUNCATED_MASS))
            fail(name, "[", i, "]: a normal distribution with mean ", mean, " and std ", std, " has less than ",
                    MIN_TRUNCATED_MASS, " of its mass between 0 and 1");
    }
}

void checkNumOutputs(const CouplingLayer& coupling, const vector<Domain>& domains, const string& name) {
    const vector<int> lengths = rawBlockLengths(coupling, domains);
    string list, sizes;
    int64_t expected = 0, total = 0;
    for (size_t b = 0; b < lengths.size(); b++) {
        expected += lengths[b];
        list += (b == 0 ? "" : ", ")+to_string(lengths[b]);
        if (lengths[b] > 0 && find(lengths.begin(), lengths.begin()+b, lengths[b]) == lengths.begin()+b)
            sizes += (sizes.empty() ? "" : " or ")+to_string(lengths[b]);
    }
    size_t block = 0;
    for (size_t n = 0; n < coupling.conditioner.networks.size(); n++) {
        const DenseLayer& last = coupling.conditioner.networks[n].back();
        const int64_t outputs = last.bias.shape[0];
        if (last.weight.shape[0] != outputs)
            fail(name, ".networks.", n, ": the last layer has ", last.weight.shape[0], " rows of weights, but ", outputs,
                    " biases");
        int64_t covered = 0;
        while (covered < outputs && block < lengths.size())
            covered += lengths[block++];
        if (outputs == 0 || covered > outputs)
            fail(name, ".networks.", n, " has ", outputs, " outputs, expected whole blocks of ", sizes, " parameters; the blocks are ", list);
        total += outputs;
    }
    if (total != expected)
        fail(name, ": the networks have ", total, " outputs together, expected ", expected, ": blocks of ", list, " parameters");
}

} // namespace

void OpenMMFlow::validateStructure(const Architecture& architecture) {
    const int numParticles = architecture.numParticles;
    if (numParticles < 3 || numParticles > MAX_PARTICLES)
        fail("numParticles is ", numParticles, ", expected 3 to ", MAX_PARTICLES);
    if (!(architecture.temperature > 0))
        fail("temperature is ", architecture.temperature, " K, expected that of the training data, which must be positive");
    const vector<Layer>& layers = architecture.layers;
    const auto makesCoordinates = [](const Layer& layer) {
        return holds_alternative<InternalCoordinatesLayer>(layer) || holds_alternative<MixedCoordinatesLayer>(layer);
    };
    if (layers.empty() || !makesCoordinates(layers.front()))
        fail("the first of layers must be of type internalCoordinates or mixedCoordinates");
    if (layers.size() > MAX_LAYERS)
        fail("there are ", layers.size(), " layers, expected ", MAX_LAYERS, " at most");
    if (const MixedCoordinatesLayer* mixed = get_if<MixedCoordinatesLayer>(&layers.front()))
        validateMixedCoordinates(*mixed, numParticles, architecture.measure);
    else
        validateZMatrix(get<InternalCoordinatesLayer>(layers.front()).zMatrix, numParticles);
    validateBonds(architecture.bonds, numParticles);
    validateConstraints(architecture.constraints, numParticles);
    for (size_t l = 1; l < layers.size(); l++) {
        if (makesCoordinates(layers[l]))
            fail(layerName(l), " is of type ", holds_alternative<MixedCoordinatesLayer>(layers[l]) ? "mixed" : "internal",
                    "Coordinates, which can only be the first layer");
        checkIndices(layers[l], architecture.numCoordinates(), layerName(l));
    }

    const vector<vector<Domain>> domains = coordinateDomains(architecture);
    const vector<vector<CoordinateOrigin>> origins = coordinateOrigins(architecture);
    for (size_t l = 1; l < layers.size(); l++) {
        if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layers[l]))
            checkCoupling(*coupling, domains[l-1], layerName(l));
        else if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layers[l]))
            checkMarginal(*marginal, domains[l-1], origins[l-1], layerName(l));
        else if (const ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layers[l]))
            checkElementwise(*elementwise, domains[l-1], layerName(l));
    }
    checkBase(architecture.base, domains.back());
}

void OpenMMFlow::validateWeights(const Architecture& architecture) {
    const vector<vector<Domain>> domains = coordinateDomains(architecture);
    const vector<vector<CoordinateOrigin>> origins = coordinateOrigins(architecture);
    for (size_t l = 0; l < architecture.layers.size(); l++) {
        const string name = "layers."+to_string(l);
        const Layer& layer = architecture.layers[l];
        if (const MixedCoordinatesLayer* mixed = get_if<MixedCoordinatesLayer>(&layer))
            BlockWhitening(*mixed, architecture.measure, name);
        else if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            checkNumOutputs(*coupling, domains[l-1], name);
        else if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            checkMarginalValues(*marginal, architecture, origins[l-1], name);
        else if (const ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layer))
            checkElementwiseValues(*elementwise, name);
    }
    for (size_t e = 0; e < architecture.base.size(); e++)
        checkBaseValues(architecture.base[e], "base."+to_string(e));
}
