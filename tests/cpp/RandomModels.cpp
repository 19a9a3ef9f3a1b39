// SPDX-License-Identifier: MIT
#include "RandomModels.h"
#include "model/BlockWhitening.h"
#include "model/ModelFile.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

using namespace OpenMMFlow;
using namespace std;
using nlohmann::json;

namespace {

const double PI = 3.14159265358979323846;

const char* name(Distribution distribution) {
    const char* names[] = {"uniform", "normal", "truncatedNormal"};
    return names[static_cast<int>(distribution)];
}

const char* name(ActivationType activation) {
    const char* names[] = {"silu", "tanh", "sin", "gelu", "softplus"};
    return names[static_cast<int>(activation)];
}

using Point = array<double, 3>;

Point operator+(const Point& a, const Point& b) {
    return {a[0]+b[0], a[1]+b[1], a[2]+b[2]};
}

Point operator-(const Point& a, const Point& b) {
    return {a[0]-b[0], a[1]-b[1], a[2]-b[2]};
}

Point operator*(double s, const Point& a) {
    return {s*a[0], s*a[1], s*a[2]};
}

double dot(const Point& a, const Point& b) {
    return a[0]*b[0]+a[1]*b[1]+a[2]*b[2];
}

Point cross(const Point& a, const Point& b) {
    return {a[1]*b[2]-a[2]*b[1], a[2]*b[0]-a[0]*b[2], a[0]*b[1]-a[1]*b[0]};
}

Point unit(const Point& a) {
    return (1/sqrt(dot(a, a)))*a;
}

/** Draws one model. */
class ModelBuilder {
public:
    ModelBuilder(const RandomModelOptions& options, unsigned seed) : options(options), seed(seed), random(seed), kinds(seed+1) {
        anyTransformer = !(options.head || options.exponent) &&
                !options.smoothMixtures.value_or(uniform_int_distribution<int>(0, 1)(kinds) == 1);
    }

    ModelParts build() {
        numParticles = options.numParticles.value_or(integer(4, 12));
        type = options.tensorType.value_or(flip() ? TensorType::Float32 : TensorType::Float64);
        const bool frame = (options.measure && *options.measure == Measure::Frame);
        const bool mixed = options.mixedCoordinates.value_or(!frame && seed%4 == 1);
        elementwise = options.elementwise.value_or(seed%3 == 2);

        const vector<array<int, 4>> zMatrix = drawZMatrix();
        json bonds = json::array();
        for (const array<int, 4>& row : zMatrix)
            if (row[1] >= 0)
                bonds.push_back({row[0], row[1]});
        if (mixed || elementwise)
            version = 2;
        if (mixed)
            addMixedCoordinates(zMatrix, !frame);
        else
            addInternalCoordinates(zMatrix);
        if (elementwise)
            addAffineNormalization();
        addMarginals();
        int numCouplings = options.numCouplings.value_or(integer(1, 4));
        for (int i = 0; i < numCouplings; i++) {
            if (elementwise)
                addElementwise();
            addCoupling();
        }
        json base = drawBase();

        const bool cartesian = (mixed || options.measure ? !frame : flip());
        parts.architecture = {
            {"format", "openmm-flow"}, {"version", version}, {"numParticles", numParticles},
            {"temperature", options.temperature.value_or(real(250, 400))}, {"measure", cartesian ? "cartesian" : "frame"},
            {"bonds", bonds}, {"constraints", json::array()}, {"data", {{"method", "random weights"}}}, {"layers", layers},
            {"base", base}
        };
        return move(parts);
    }

private:
    int integer(int smallest, int largest) {
        return uniform_int_distribution<int>(smallest, largest)(random);
    }
    double real(double lower, double upper) {
        return uniform_real_distribution<double>(lower, upper)(random);
    }
    bool flip() {
        return integer(0, 1) == 1;
    }
    template <class Choice>
    Choice choose(const optional<Choice>& set, const vector<Choice>& choices) {
        return set.value_or(choices[integer(0, (int) choices.size()-1)]);
    }
    template <class Item>
    void shuffle(vector<Item>& items) {
        std::shuffle(items.begin(), items.end(), random);
    }

    /** Rows in random order over a tree of particles in random order. */
    vector<array<int, 4>> drawZMatrix() {
        vector<array<int, 4>> rows;
        for (int i = 0; i < numParticles; i++) {
            vector<int> others(i);    // placed before
            iota(others.begin(), others.end(), 0);
            shuffle(others);
            array<int, 4> row = {i, -1, -1, -1};
            if (i == 1)
                row[1] = 0;
            else if (i > 1) {
                // Along the tree where there is a choice: a neighbour of the one before.
                auto neighbourFirst = [&](int n) {
                    stable_partition(others.begin()+n, others.end(), [&](int other) {
                        return rows[other][1] == others[n-1] || rows[others[n-1]][1] == other;
                    });
                };
                neighbourFirst(1);
                if (i > 2)
                    neighbourFirst(2);
                copy_n(others.begin(), min(i, 3), row.begin()+1);
            }
            rows.push_back(row);
        }
        vector<int> labels(numParticles);
        iota(labels.begin(), labels.end(), 0);
        shuffle(labels);
        for (array<int, 4>& row : rows)
            for (int& particle : row)
                if (particle >= 0)
                    particle = labels[particle];
        shuffle(rows);
        return rows;
    }

    void addCoordinates(int count, Domain domain) {
        for (int i = 0; i < count; i++) {
            domains.push_back(domain);
            origins.push_back({true, (int) origins.size(), 1.0, 0.0});
        }
    }

    void addInternalCoordinates(const vector<array<int, 4>>& zMatrix) {
        layers.push_back({{"type", "internalCoordinates"}, {"zMatrix", zMatrix}});
        numBonds = numParticles-1;
        numAngles = numParticles-2;
        addCoordinates(numBonds+numAngles, Domain::Real);
        addCoordinates(numParticles-3, Domain::Circle);
    }

    /** The frame, and some particles that only hang on it and on each other, as a block. */
    void addMixedCoordinates(const vector<array<int, 4>>& zMatrix, bool aligned) {
        vector<int> block;
        vector<array<int, 4>> rows;
        for (const array<int, 4>& row : zMatrix)
            if (row[3] < 0)
                block.push_back(row[0]);
        for (bool grown = true; grown && (int) block.size() < 5; ) {
            grown = false;
            for (const array<int, 4>& row : zMatrix) {
                const auto inBlock = [&](int particle) { return count(block.begin(), block.end(), particle) > 0; };
                if (!inBlock(row[0]) && (int) block.size() < 5 && flip()) {
                    block.push_back(row[0]);
                    grown = true;
                }
            }
        }
        for (const array<int, 4>& row : zMatrix)
            if (count(block.begin(), block.end(), row[0]) == 0)
                rows.push_back(row);
        shuffle(block);
        const int size = 3*(int) block.size(), dimensions = (aligned ? size-6 : integer(size-6, size));
        const vector<double> reference = drawReference((int) block.size());
        addTensor("layers.0.reference", {size/3, 3}, reference);
        addTensor("layers.0.whitening", {dimensions, size}, drawWhitening(reference, dimensions, aligned));
        layers.push_back({{"type", "mixedCoordinates"}, {"block", block}, {"blockDimensions", dimensions}, {"zMatrix", rows}});
        numBonds = numAngles = (int) rows.size();
        addCoordinates(numBonds+numAngles, Domain::Real);
        addCoordinates(numBonds, Domain::Circle);
        addCoordinates(dimensions, Domain::Real);
    }

    /** Particles of which no two are close to each other or far apart, and no three close to a line. */
    vector<double> drawReference(int numBlock) {
        while (true) {
            vector<double> points = normals(3*numBlock, 0.1);
            bool good = true;
            const auto point = [&](int i) { return Point{points[3*i], points[3*i+1], points[3*i+2]}; };
            for (int i = 0; i < numBlock; i++)
                for (int j = 0; j < numBlock; j++)
                    for (int k = 0; k < j; k++)
                        if (i != j && i != k) {
                            const Point u = point(j)-point(i), v = point(k)-point(i), n = cross(unit(u), unit(v));
                            good &= (min(dot(u, u), dot(v, v)) > 0.1*0.1 && max(dot(u, u), dot(v, v)) < 0.3*0.3 && dot(n, n) > 0.4*0.4);
                        }
            if (good)
                return points;
        }
    }

    /** Orthogonal rows for fluctuations of 0.005 to 0.015 nm; without translations and rotations if aligned. */
    vector<double> drawWhitening(const vector<double>& reference, int dimensions, bool aligned) {
        const int size = (int) reference.size();
        vector<vector<double>> rows;
        const auto orthogonalize = [&](vector<double> row) {
            for (int repeat = 0; repeat < 2; repeat++)
                for (const vector<double>& other : rows) {
                    const double overlap = inner_product(row.begin(), row.end(), other.begin(), 0.0);
                    for (int i = 0; i < size; i++)
                        row[i] -= overlap*other[i];
                }
            const double length = sqrt(inner_product(row.begin(), row.end(), row.begin(), 0.0));
            for (double& x : row)
                x /= length;
            rows.push_back(row);
        };
        if (aligned)
            for (int k = 0; k < 6; k++) {
                vector<double> motion(size, 0.0);
                for (int i = 0; i < size; i += 3)
                    if (k < 3)
                        motion[i+k] = 1;
                    else {
                        motion[i+(k+1)%3] = -reference[i+(k+2)%3];
                        motion[i+(k+2)%3] = reference[i+(k+1)%3];
                    }
                orthogonalize(motion);
            }
        const size_t first = rows.size();
        while (rows.size() < first+dimensions)
            orthogonalize(normals(size, 1));
        vector<double> whitening;
        for (size_t i = first; i < rows.size(); i++) {
            const double deviation = real(0.005, 0.015);
            for (double x : rows[i])
                whitening.push_back(x/deviation);
        }
        return whitening;
    }

    void addTensor(const string& name, const vector<int64_t>& shape, const vector<double>& values) {
        Tensor tensor;
        tensor.type = type;
        tensor.shape = shape;
        for (double value : values)
            tensor.values.push_back(type == TensorType::Float32 ? (float) value : value);
        parts.tensors[name] = tensor;
    }

    /** A layer, or an entry of the base density, with parameters drawn by coordinate. */
    json drawDistributions(const string& prefix, Distribution distribution, const vector<int>& coordinates, bool isBase) {
        vector<double> lower, upper, mean, std;
        for (int coordinate : coordinates) {
            // Bonds in nm, angles divided by pi, latents in [0,1].
            const CoordinateOrigin& origin = origins[coordinate];
            bool isBond = (origin.coordinate < numBonds), isLatent = (isBase && domains[coordinate] != Domain::Real);
            // Of the block, whose coordinates are whitened, and of what is real again after a logit.
            bool isStandard = !origin.known || origin.coordinate >= numBonds+numAngles;
            double low = (isLatent ? 0 : isStandard ? real(-3, -2) : isBond ? real(0.08, 0.1) : real(0.25, 0.4));
            double high = (isLatent ? 1 : isStandard ? real(2, 3) : isBond ? real(0.15, 0.2) : real(0.75, 0.9));
            if (!isLatent && origin.known) {
                low = (low-origin.shift)/origin.scale;
                high = (high-origin.shift)/origin.scale;
            }
            double width = high-low;
            lower.push_back(low);
            upper.push_back(high);
            mean.push_back(low+width*real(0.4, 0.6));
            std.push_back(width*(distribution == Distribution::Normal ? real(0.05, 0.08) : real(0.2, 0.6)));
        }
        const vector<int64_t> shape = {(int64_t) coordinates.size()};
        if (distribution != Distribution::Normal && !isBase) {
            addTensor(prefix+".lower", shape, lower);
            addTensor(prefix+".upper", shape, upper);
        }
        if (distribution != Distribution::Uniform) {
            addTensor(prefix+".mean", shape, mean);
            addTensor(prefix+".std", shape, std);
        }
        return {{"distribution", name(distribution)}, {"coordinates", coordinates}};
    }

    /** Those of a domain, in random order. */
    vector<int> coordinatesOf(Domain domain) {
        vector<int> coordinates;
        for (int i = 0; i < (int) domains.size(); i++)
            if (domains[i] == domain)
                coordinates.push_back(i);
        shuffle(coordinates);
        return coordinates;
    }

    /** At least one of them, unless there is none. */
    void shorten(vector<int>& coordinates) {
        if (!coordinates.empty())
            coordinates.resize(integer(1, (int) coordinates.size()));
    }

    void addAffineNormalization() {
        vector<int> coordinates = coordinatesOf(Domain::Real);
        shorten(coordinates);
        vector<double> shift, scale;
        for (int coordinate : coordinates) {
            shift.push_back(real(-0.5, 0.5));
            scale.push_back(pow(10.0, real(-1, 0.5)));
            if (type == TensorType::Float32) {
                shift.back() = (float) shift.back();
                scale.back() = (float) scale.back();
            }
            CoordinateOrigin& origin = origins[coordinate];
            origin.shift += origin.scale*shift.back();
            origin.scale *= scale.back();
        }
        const string prefix = "layers."+to_string(layers.size());
        addTensor(prefix+".shift", {(int64_t) shift.size()}, shift);
        addTensor(prefix+".scale", {(int64_t) scale.size()}, scale);
        layers.push_back({{"type", "affineNormalization"}, {"coordinates", coordinates}});
    }

    /** One of the layers without networks, as far as there is something for it. */
    void addElementwise() {
        const int kind = integer(0, 3);
        if (kind == 0) {
            vector<int> order(domains.size());
            iota(order.begin(), order.end(), 0);
            shuffle(order);
            const vector<Domain> oldDomains = domains;
            const vector<CoordinateOrigin> oldOrigins = origins;
            for (size_t i = 0; i < order.size(); i++) {
                domains[i] = oldDomains[order[i]];
                origins[i] = oldOrigins[order[i]];
            }
            layers.push_back({{"type", "permutation"}, {"order", order}});
            return;
        }
        vector<int> coordinates = coordinatesOf(kind == 1 ? Domain::Circle : Domain::Interval);
        // Something must be left for couplings to transform.
        if (kind > 1 && coordinatesOf(Domain::Circle).empty() && !coordinates.empty())
            coordinates.pop_back();
        if (coordinates.empty())
            return;
        shorten(coordinates);
        if (kind == 1) {
            vector<double> shift;
            for (size_t i = 0; i < coordinates.size(); i++)
                shift.push_back(real(-1, 1));
            addTensor("layers."+to_string(layers.size())+".shift", {(int64_t) shift.size()}, shift);
            layers.push_back({{"type", "circularShift"}, {"coordinates", coordinates}});
            for (int coordinate : coordinates)
                origins[coordinate].known = false;
            return;
        }
        layers.push_back({{"type", "logit"}, {"coordinates", coordinates}});
        if (kind == 3)
            layers.push_back({{"type", "logistic"}, {"coordinates", coordinates}});
        for (int coordinate : coordinates) {
            domains[coordinate] = (kind == 2 ? Domain::Real : Domain::Interval);
            origins[coordinate].known = false;
        }
    }

    void addMarginals() {
        vector<int> coordinates = coordinatesOf(Domain::Real);
        if (!options.marginal)
            coordinates.resize(integer(1, (int) coordinates.size()));
        while (!coordinates.empty()) {
            int size = integer(1, (int) coordinates.size());
            vector<int> group(coordinates.end()-size, coordinates.end());
            coordinates.resize(coordinates.size()-size);
            Distribution distribution = choose(options.marginal,
                    {Distribution::Uniform, Distribution::Normal, Distribution::TruncatedNormal});
            json layer = drawDistributions("layers."+to_string(layers.size()), distribution, group, false);
            layer["type"] = "marginal";
            layers.push_back(layer);
            for (int coordinate : group) {
                domains[coordinate] = Domain::Interval;
                origins[coordinate].known = false;
            }
        }
    }

    json drawBase() {
        vector<int> coordinates[3];    // by distribution
        for (int i = 0; i < (int) domains.size(); i++) {
            Distribution distribution = Distribution::Normal;
            if (domains[i] != Domain::Real)
                distribution = (domains[i] == Domain::Interval && flip() ? Distribution::TruncatedNormal : Distribution::Uniform);
            coordinates[static_cast<int>(distribution)].push_back(i);
        }
        json base = json::array();
        for (Distribution distribution : {Distribution::TruncatedNormal, Distribution::Uniform, Distribution::Normal}) {
            vector<int>& group = coordinates[static_cast<int>(distribution)];
            shuffle(group);
            if (!group.empty())
                base.push_back(drawDistributions("base."+to_string(base.size()), distribution, group, true));
        }
        return base;
    }

    /** One that works on any coordinates there are, or null for a smooth mixture. */
    const TransformerDescriptor* drawTransformer() {
        vector<const TransformerDescriptor*> possible = {nullptr};
        for (const TransformerDescriptor& descriptor : transformerDescriptors())
            if (descriptor.smoothness >= options.smoothness.value_or(Smoothness::C1) && any_of(domains.begin(), domains.end(),
                    [&](Domain domain) { return find(descriptor.domains.begin(), descriptor.domains.end(), domain) != descriptor.domains.end(); }))
                possible.push_back(&descriptor);
        return possible[uniform_int_distribution<size_t>(0, possible.size()-1)(kinds)];
    }

    void addCoupling() {
        const TransformerDescriptor* descriptor = (anyTransformer ? drawTransformer() : nullptr);
        if (descriptor != nullptr)
            addFormulaTransformer(*descriptor);
        else
            addSmoothMixture();
    }

    void addFormulaTransformer(const TransformerDescriptor& descriptor) {
        version = 2;
        vector<int> coordinates(domains.size());
        iota(coordinates.begin(), coordinates.end(), 0);
        shuffle(coordinates);
        const auto end = stable_partition(coordinates.begin(), coordinates.end(), [&](int c) {
            return find(descriptor.domains.begin(), descriptor.domains.end(), domains[c]) != descriptor.domains.end();
        });
        CouplingLayer coupling;
        coupling.transformed.assign(coordinates.begin(), coordinates.begin()+integer(1, (int) (end-coordinates.begin())));
        vector<int> rest(coordinates.begin()+coupling.transformed.size(), coordinates.end());
        shuffle(rest);
        if (!rest.empty())
            rest.resize(integer(1, (int) rest.size()));
        const Direction closedForm = choose(options.closedForm, {Direction::Density, Direction::Sampling});
        FormulaTransformer transformer = {&descriptor, closedForm, 1, {}};
        json settings = {{"type", descriptor.name}, {"closedForm", closedForm == Direction::Density ? "density" : "sampling"}};
        if (descriptor.sizeName != nullptr) {
            transformer.size = max(descriptor.smallestSize, options.components.value_or(integer(descriptor.smallestSize, 5)));
            settings[descriptor.sizeName] = transformer.size;
        }
        // Minima that leave no steep places, and moderate bounds.
        for (const TransformerDescriptor::Setting& setting : descriptor.settings) {
            const double upper = min(setting.upper(transformer.size), 2.0);
            settings[setting.name] = upper*(string(setting.name).rfind("minimum", 0) == 0 ? real(0.1, 0.5) : real(0.2, 0.5));
        }
        coupling.transformer = transformer;
        const ActivationType activation = choose(options.activation, {ActivationType::SiLU, ActivationType::Tanh,
                ActivationType::Sin, ActivationType::GELU, ActivationType::Softplus});
        // Real coordinates are bonds in nm and angles: they must stay where molecules have them.
        const double outputScale = (domains[coupling.transformed.front()] == Domain::Real ? 0.003 : 1);
        json networks = addNetworks("layers."+to_string(layers.size()), rest, rawBlockLengths(coupling, domains), outputScale);
        layers.push_back({{"type", "coupling"}, {"transformed", coupling.transformed}, {"conditionedOn", rest}, {"transformer", settings},
                {"conditioner", {{"activation", name(activation)}, {"networks", networks}}}});
    }

    void addSmoothMixture() {
        // Any number of the coordinates that are not real, conditioned on any number of the rest.
        vector<int> coordinates(domains.size());
        iota(coordinates.begin(), coordinates.end(), 0);
        shuffle(coordinates);
        auto firstReal = stable_partition(coordinates.begin(), coordinates.end(),
                [&](int c) { return domains[c] != Domain::Real; });
        const int numTransformed = integer(1, (int) (firstReal-coordinates.begin()));
        vector<int> transformed(coordinates.begin(), coordinates.begin()+numTransformed);
        vector<int> conditionedOn(coordinates.begin()+numTransformed, coordinates.end());
        shuffle(conditionedOn);
        if (!conditionedOn.empty())
            conditionedOn.resize(integer(1, (int) conditionedOn.size()));

        const int exponent = choose(options.exponent, {1, 2});
        const int components = options.components.value_or(integer(1, 8));
        const MixtureHead head = choose(options.head, {MixtureHead::Free, MixtureHead::Published});
        const Direction closedForm = choose(options.closedForm, {Direction::Density, Direction::Sampling});
        const ActivationType activation = choose(options.activation, {ActivationType::SiLU, ActivationType::Tanh,
                ActivationType::Sin, ActivationType::GELU, ActivationType::Softplus});
        json networks = addNetworks("layers."+to_string(layers.size()), conditionedOn, vector<int>(5, numTransformed*components), 1);
        layers.push_back({
            {"type", "coupling"}, {"transformed", transformed}, {"conditionedOn", conditionedOn},
            {"transformer", {
                {"type", "smoothMixture"}, {"head", head == MixtureHead::Free ? "free" : "published"},
                {"closedForm", closedForm == Direction::Density ? "density" : "sampling"}, {"components", components},
                {"exponent", exponent}, {"alphaOffset", exponent == 1 ? real(0.8656721, 1) : real(0.3052033, 0.5)},
                {"alphaRange", real(0, 10)}, {"logSteepnessBound", real(0.5, 2)}, {"minimumFloor", pow(10.0, real(-6, -1))}
            }},
            {"conditioner", {{"activation", name(activation)}, {"networks", networks}}}
        });
    }

    /** The hidden widths of the networks of a conditioner, whose tensors are added. */
    json addNetworks(const string& prefix, const vector<int>& conditionedOn, const vector<int>& blockLengths, double outputScale) {
        int numFeatures = 0;
        for (int coordinate : conditionedOn)
            numFeatures += (domains[coordinate] == Domain::Circle ? 2 : 1);
        // Every network computes some of the blocks, at least one that is not empty.
        const int numBlocks = (int) (blockLengths.size()-count(blockLengths.begin(), blockLengths.end(), 0));
        const int numNetworks = min(choose(options.numNetworks, {1, 3}), numBlocks);
        vector<int> ends, inner;
        for (size_t b = 0; b < blockLengths.size(); b++)
            if (blockLengths[b] > 0)
                ends.push_back((int) b);
        inner.assign(ends.begin()+1, ends.end());
        shuffle(inner);
        vector<int> cuts(inner.begin(), inner.begin()+numNetworks-1);
        cuts.insert(cuts.end(), {0, (int) blockLengths.size()});
        sort(cuts.begin(), cuts.end());
        json networks = json::array();
        for (int n = 0; n < numNetworks; n++) {
            const int numHidden = (conditionedOn.empty() ? 0 : options.numHiddenLayers.value_or(integer(0, 3)));
            vector<int> widths = {numFeatures};
            for (int m = 0; m < numHidden; m++)
                widths.push_back(options.hiddenWidth.value_or(integer(3, 12)));
            networks.push_back(vector<int>(widths.begin()+1, widths.end()));
            widths.push_back(accumulate(blockLengths.begin()+cuts[n], blockLengths.begin()+cuts[n+1], 0));
            for (size_t m = 0; m+1 < widths.size(); m++) {
                const string layer = prefix+".networks."+to_string(n)+"."+to_string(m);
                const double scale = (m+2 == widths.size() ? outputScale : 1);
                addTensor(layer+".weight", {widths[m+1], widths[m]}, normals(widths[m+1]*widths[m], scale*1.2/sqrt(max(widths[m], 1))));
                addTensor(layer+".bias", {widths[m+1]}, normals(widths[m+1], scale*0.5));
            }
        }
        return networks;
    }

    vector<double> normals(int count, double deviation) {
        normal_distribution<double> normal(0, deviation);
        vector<double> values(count);
        generate(values.begin(), values.end(), [&] { return normal(random); });
        return values;
    }

    const RandomModelOptions& options;
    const unsigned seed;
    mt19937 random, kinds;    // kinds: of transformers, so that models of smooth mixtures do not depend on the others
    bool anyTransformer;
    int version = 1;
    int numParticles = 0, numBonds = 0, numAngles = 0;
    bool elementwise = false;
    TensorType type = TensorType::Float64;
    vector<Domain> domains;    // at the end of layers, as the next
    vector<CoordinateOrigin> origins;
    json layers;
    ModelParts parts;
};

/** The middle of where a distribution has its mass. */
pair<double, double> middleOf(const CoordinateDistributions& distributions, size_t i) {
    if (distributions.distribution == Distribution::Normal)
        return {distributions.mean.values[i]-distributions.std.values[i],
                distributions.mean.values[i]+distributions.std.values[i]};
    double lower = distributions.lower.values[i], upper = distributions.upper.values[i];
    return {lower+0.2*(upper-lower), upper-0.2*(upper-lower)};
}

/** Of bonds (nm), angles/pi and coordinates of a block: [coordinate]. Those that stay as they are have theirs from the base density. */
vector<pair<double, double>> middles(const Architecture& architecture) {
    vector<pair<double, double>> result(architecture.numCoordinates());
    // Couplings of real coordinates leave them about where they are.
    Architecture withoutCouplings = architecture;
    for (Layer& layer : withoutCouplings.layers)
        if (CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            coupling->transformed.clear();
    const vector<vector<CoordinateOrigin>> origins = coordinateOrigins(withoutCouplings);
    auto enter = [&](const CoordinateDistributions& distributions, const vector<CoordinateOrigin>& known) {
        for (size_t i = 0; i < distributions.coordinates.size(); i++) {
            const CoordinateOrigin& origin = known[distributions.coordinates[i]];
            const auto [lower, upper] = middleOf(distributions, i);
            if (origin.known)
                result[origin.coordinate] = {origin.scale*lower+origin.shift, origin.scale*upper+origin.shift};
        }
    };
    for (const CoordinateDistributions& base : architecture.base)
        if (base.distribution == Distribution::Normal)
            enter(base, origins.back());
    for (size_t l = 1; l < architecture.layers.size(); l++)
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&architecture.layers[l]))
            enter(*marginal, origins[l-1]);
    return result;
}

/** Places particles by the rows of a Z-matrix. */
class Placement {
public:
    Placement(const Architecture& architecture, mt19937& random) :
            architecture(architecture), block(get_if<MixedCoordinatesLayer>(&architecture.layers.front())),
            zMatrix(block ? block->zMatrix : get<InternalCoordinatesLayer>(architecture.layers.front()).zMatrix),
            middle(middles(architecture)), random(random), positions(architecture.numParticles), placed(positions.size(), false) {
    }

    const vector<Point>& place() {
        if (block)
            placeBlock();
        for (size_t count = 0; count < zMatrix.size(); ) {
            int full = 0;
            for (const array<int, 4>& row : zMatrix) {
                full += (row[3] >= 0);
                bool ready = !placed[row[0]] && all_of(row.begin()+1, row.end(), [&](int p) { return p < 0 || placed[p]; });
                if (ready) {
                    placeRow(row, full-1);
                    placed[row[0]] = true;
                    count++;
                }
            }
        }
        return positions;
    }

    /** The smallest sine of an angle jkl of a row (i, j, k, l). */
    double smallestTorsionSine() const {
        double smallest = 1;
        for (const auto& [i, j, k, l] : zMatrix)
            if (l >= 0) {
                Point n = cross(unit(positions[j]-positions[k]), unit(positions[l]-positions[k]));
                smallest = min(smallest, sqrt(dot(n, n)));
            }
        return smallest;
    }

private:
    double draw(int coordinate) {
        return uniform_real_distribution<double>(middle[coordinate].first, middle[coordinate].second)(random);
    }

    Point direction() {
        normal_distribution<double> normal;
        return unit({normal(random), normal(random), normal(random)});
    }

    /** Near the reference; turned and shifted at random, if that makes no difference. */
    void placeBlock() {
        const BlockWhitening whitening(*block, architecture.measure, "block");
        const int n = whitening.dimensions;
        vector<double> a = whitening.reference;
        for (int d = 0; d < n; d++) {
            const double w = draw(architecture.numCoordinates()-n+d);
            for (size_t i = 0; i < a.size(); i++)
                a[i] += whitening.unwhitening[i*n+d]*w;
        }
        Point x = {1, 0, 0}, y = {0, 1, 0}, z = {0, 0, 1}, origin = {0, 0, 0};
        if (whitening.aligned) {
            x = direction();
            y = unit(cross(x, direction()));
            z = cross(x, y);
            origin = direction();
        }
        for (size_t i = 0; i < block->block.size(); i++) {
            positions[block->block[i]] = origin+a[3*i]*x+a[3*i+1]*y+a[3*i+2]*z;
            placed[block->block[i]] = true;
        }
    }

    /** @param full  index of the row among the full ones */
    void placeRow(const array<int, 4>& row, int full) {
        const auto [i, j, k, l] = row;
        const int frame = (block ? 0 : 1);
        if (j < 0)
            positions[i] = direction();
        else if (k < 0)
            positions[i] = positions[j]+draw(0)*direction();
        else {
            double bond = draw(l < 0 ? 1 : 2*frame+full), angle = PI*draw(architecture.numBonds()+(l < 0 ? 0 : frame+full));
            double torsion = uniform_real_distribution<double>(-PI, PI)(random);
            Point axis = unit(positions[j]-positions[k]);
            Point side = (l < 0 ? direction() : positions[l]-positions[k]);
            Point cis = unit(side-dot(side, axis)*axis);
            positions[i] = positions[j]+bond*((-cos(angle))*axis+sin(angle)*(cos(torsion)*cis+sin(torsion)*cross(axis, cis)));
        }
    }

    const Architecture& architecture;
    const MixedCoordinatesLayer* const block;
    const vector<array<int, 4>>& zMatrix;
    const vector<pair<double, double>> middle;
    mt19937& random;
    vector<Point> positions;
    vector<char> placed;
};

} // namespace

string ModelParts::toBytes() const {
    map<string, const Tensor*> pointers;
    for (const auto& [name, tensor] : tensors)
        pointers[name] = &tensor;
    return writeModelFile(architecture.dump(), pointers);
}

ModelParts OpenMMFlow::randomModelParts(const RandomModelOptions& options, unsigned seed) {
    return ModelBuilder(options, seed).build();
}

FlowModel OpenMMFlow::randomModel(const RandomModelOptions& options, unsigned seed) {
    return FlowModel::fromBytes(randomModelParts(options, seed).toBytes());
}

vector<double> OpenMMFlow::randomConformation(const FlowModel& model, mt19937& random) {
    while (true) {
        Placement placement(model.getArchitecture(), random);
        const vector<Point>& points = placement.place();
        // What is placed from a block is seen under small angles from its far side.
        const bool hasBlock = holds_alternative<MixedCoordinatesLayer>(model.getArchitecture().layers.front());
        if (placement.smallestTorsionSine() < (hasBlock ? 0.2 : 0.3))
            continue;
        vector<double> positions;
        for (const Point& point : points)
            positions.insert(positions.end(), point.begin(), point.end());
        return positions;
    }
}
