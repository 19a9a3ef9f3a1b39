// SPDX-License-Identifier: MIT
#include "RandomModels.h"
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

/** Draws one model. */
class ModelBuilder {
public:
    ModelBuilder(const RandomModelOptions& options, unsigned seed) : options(options), random(seed), kinds(seed+1) {
        anyTransformer = !(options.head || options.exponent) &&
                !options.smoothMixtures.value_or(uniform_int_distribution<int>(0, 1)(kinds) == 1);
    }

    ModelParts build() {
        numParticles = options.numParticles.value_or(integer(4, 12));
        numBonds = numParticles-1;
        numCoordinates = 3*numParticles-6;
        domains.assign(numCoordinates, Domain::Real);
        fill(domains.begin()+2*numParticles-3, domains.end(), Domain::Circle);
        type = options.tensorType.value_or(flip() ? TensorType::Float32 : TensorType::Float64);

        json zMatrix = drawZMatrix();
        json bonds = json::array();
        for (const json& row : zMatrix)
            if (row[1] >= 0)
                bonds.push_back({row[0], row[1]});
        layers.push_back({{"type", "internalCoordinates"}, {"zMatrix", zMatrix}});
        addMarginals();
        int numCouplings = options.numCouplings.value_or(integer(1, 4));
        for (int i = 0; i < numCouplings; i++)
            addCoupling();
        json base = drawBase();

        bool cartesian = (options.measure ? *options.measure == Measure::Cartesian : flip());
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
    json drawZMatrix() {
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
            bool isBond = (coordinate < numBonds), isLatent = (isBase && domains[coordinate] != Domain::Real);
            double low = (isLatent ? 0 : isBond ? real(0.08, 0.1) : real(0.25, 0.4));
            double high = (isLatent ? 1 : isBond ? real(0.15, 0.2) : real(0.75, 0.9));
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

    void addMarginals() {
        vector<int> coordinates(2*numParticles-3);
        iota(coordinates.begin(), coordinates.end(), 0);
        shuffle(coordinates);
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
            for (int coordinate : group)
                domains[coordinate] = Domain::Interval;
        }
    }

    json drawBase() {
        vector<int> coordinates[3];    // by distribution
        for (int i = 0; i < numCoordinates; i++) {
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
        vector<int> coordinates(numCoordinates);
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
        vector<int> coordinates(numCoordinates);
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
    mt19937 random, kinds;    // kinds: of transformers, so that models of smooth mixtures do not depend on the others
    bool anyTransformer;
    int version = 1;
    int numParticles = 0, numBonds = 0, numCoordinates = 0;
    TensorType type = TensorType::Float64;
    vector<Domain> domains;    // at the end of layers
    json layers;
    ModelParts parts;
};

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

/** The middle of where a distribution has its mass. */
pair<double, double> middleOf(const CoordinateDistributions& distributions, size_t i) {
    if (distributions.distribution == Distribution::Normal)
        return {distributions.mean.values[i]-distributions.std.values[i],
                distributions.mean.values[i]+distributions.std.values[i]};
    double lower = distributions.lower.values[i], upper = distributions.upper.values[i];
    return {lower+0.2*(upper-lower), upper-0.2*(upper-lower)};
}

/** Of bonds (nm) and angles/pi: [coordinate]. Coordinates that stay real have theirs from the base density. */
vector<pair<double, double>> middles(const Architecture& architecture) {
    vector<pair<double, double>> result(architecture.numCoordinates());
    auto enter = [&](const CoordinateDistributions& distributions) {
        for (size_t i = 0; i < distributions.coordinates.size(); i++)
            result[distributions.coordinates[i]] = middleOf(distributions, i);
    };
    for (const CoordinateDistributions& base : architecture.base)
        if (base.distribution == Distribution::Normal)
            enter(base);
    for (const Layer& layer : architecture.layers)
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            enter(*marginal);
    return result;
}

/** Places particles by the rows of a Z-matrix. */
class Placement {
public:
    Placement(const Architecture& architecture, mt19937& random) :
            zMatrix(get<InternalCoordinatesLayer>(architecture.layers.front()).zMatrix), middle(middles(architecture)),
            random(random), positions(zMatrix.size()), placed(zMatrix.size(), false) {
    }

    const vector<Point>& place() {
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

    /** @param full  index of the row among the full ones */
    void placeRow(const array<int, 4>& row, int full) {
        const int numParticles = (int) zMatrix.size();
        const auto [i, j, k, l] = row;
        if (j < 0)
            positions[i] = direction();
        else if (k < 0)
            positions[i] = positions[j]+draw(0)*direction();
        else {
            double bond = draw(l < 0 ? 1 : 2+full), angle = PI*draw(numParticles-1+(l < 0 ? 0 : 1+full));
            double torsion = uniform_real_distribution<double>(-PI, PI)(random);
            Point axis = unit(positions[j]-positions[k]);
            Point side = (l < 0 ? direction() : positions[l]-positions[k]);
            Point cis = unit(side-dot(side, axis)*axis);
            positions[i] = positions[j]+bond*((-cos(angle))*axis+sin(angle)*(cos(torsion)*cis+sin(torsion)*cross(axis, cis)));
        }
    }

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
        if (placement.smallestTorsionSine() < 0.3)
            continue;
        vector<double> positions;
        for (const Point& point : points)
            positions.insert(positions.end(), point.begin(), point.end());
        return positions;
    }
}
