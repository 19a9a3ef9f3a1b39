// SPDX-License-Identifier: MIT
#include "DevicePlan.h"
#include "DeviceProducts.h"
#include "engine/Elementwise.h"
#include "engine/InternalCoordinates.h"
#include "engine/LogProbBound.h"
#include "engine/Marginals.h"
#include "engine/SupportContinuation.h"
#include "engine/TransformerLayout.h"
#include "formulas/Formulas.h"
#include "internal/MoleculeGatherer.h"
#include "internal/ThermalEnergy.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace OpenMMFlow {

namespace {

/** Append values to an array and say where they begin. */
template <class T, class Values>
int append(std::vector<T>& array, const Values& values) {
    const int place = static_cast<int>(array.size());
    array.insert(array.end(), std::begin(values), std::end(values));
    return place;
}

template <class T>
int append(std::vector<T>& array, std::initializer_list<T> values) {
    return append<T, std::initializer_list<T>>(array, values);
}

} // namespace

class DevicePlan::Builder {
public:
    Builder(DevicePlan& plan, const FlowForce& force, const Shape& shape) :
            plan(plan), force(force), architecture(withoutPermutations(force.getModel().getArchitecture()).architecture), shape(shape),
            products(plan, shape, architecture) {
    }

    void build() {
        addGeometry();
        for (const Layer& layer : architecture.layers)
            if (const CouplingLayer* coupling = std::get_if<CouplingLayer>(&layer)) {
                plan.numCouplings++;
                numRealRows = std::max(numRealRows, numTemporaryRows(*coupling));
            }
        operation(FLOW_GATHER);
        if (force.usesPeriodicBoundaryConditions())
            operation(FLOW_UNWRAP);
        const bool hasBlock = (layout().numBlock > 0);
        if (hasBlock)
            for (int code : {FLOW_ALIGN, FLOW_WHITEN})
                operation(code);
        for (int code : {FLOW_BONDS_AND_ANGLES, FLOW_SUM_CONTINUATION, FLOW_FINISH_CONTINUATION, FLOW_TORSIONS})
            operation(code);
        const std::vector<std::vector<Domain>> domains = coordinateDomains(architecture);
        for (std::size_t i = 1; i < architecture.layers.size(); i++)
            if (const CouplingLayer* coupling = std::get_if<CouplingLayer>(&architecture.layers[i]))
                addCoupling(*coupling, domains[i-1]);
            else if (const MarginalLayer* marginal = std::get_if<MarginalLayer>(&architecture.layers[i]))
                addSingle(Marginals(*marginal));
            else if (const ElementwiseLayer* elementwise = std::get_if<ElementwiseLayer>(&architecture.layers[i]))
                addSingle(Elementwise(*elementwise));
        addBase();
        for (int code : {FLOW_SUM_LOG_PROB, FLOW_FINISH_LOG_PROB, FLOW_ENERGY})
            operation(code);
        layout().numForwardOperations = static_cast<int>(program.size());
        // The layers backwards, the operations of each in the order that they were noted in.
        for (auto layer = wayBack.rbegin(); layer != wayBack.rend(); ++layer)
            append(program, *layer);
        if (hasBlock)
            for (int code : {FLOW_WHITEN_BACKWARD, FLOW_BLOCK_GRADIENT, FLOW_BLOCK_TURN, FLOW_BLOCK_FORCES})
                if (code != FLOW_BLOCK_TURN || layout().blockIsAligned)
                    operation(code);
        operation(FLOW_FORCES);
        layout().numOperations = static_cast<int>(program.size());
        layout().numTerms = numTerms;
        layout().termRow = mixedRows(numTerms);
        layout().baseTermRow += layout().termRow;
        for (FlowStage& stage : stages)
            stage.termRow += layout().termRow;
        products.finish();
        layout().partialRow = realRows(products.getMostPartialSums());
        layout().numMixedRows = numMixedRows;
        layout().numRealRows = numRealRows;
        layout().numKeptRows = numKeptRows;
        layout().programTable = numbersOf<FlowLayout>(1);
        layout().stagesTable = layout().programTable+numbersOf<FlowOperation>(program.size());
        layout().stepsTable = layout().stagesTable+numbersOf<FlowStage>(stages.size());
        layout().productsTable = layout().stepsTable+numbersOf<FlowStep>(products.getSteps().size());
        layout().roundsTable = layout().productsTable+numbersOf<FlowProduct>(products.getProducts().size());
        layout().indicesTable = layout().roundsTable+numbersOf<FlowRound>(products.getRounds().size());
        appendNumbers(std::vector<FlowLayout>{plan.layout});
        appendNumbers(program);
        appendNumbers(stages);
        appendNumbers(products.getSteps());
        appendNumbers(products.getProducts());
        appendNumbers(products.getRounds());
        appendNumbers(indices);
        findParts();
    }

private:
    template <class T>
    static int numbersOf(std::size_t count) {
        static_assert(sizeof(T)%sizeof(int) == 0);
        return static_cast<int>(count*sizeof(T)/sizeof(int));
    }

    template <class T>
    void appendNumbers(const std::vector<T>& items) {
        const std::size_t place = plan.table.size();
        plan.table.resize(place+numbersOf<T>(items.size()));
        if (!items.empty())
            std::memcpy(plan.table.data()+place, items.data(), items.size()*sizeof(T));
    }

    /** What of the kernel this model needs. */
    void findParts() {
        FlowKernelParts& parts = plan.parts;
        std::set<int> types, activations;
        std::set<FlowKernelMixtures> mixtures;
        parts.block = (layout().numBlock > 0);
        for (const FlowOperation& operation : program) {
            if (operation.code == FLOW_MIXTURE || operation.code == FLOW_MIXTURE_IN_WARPS) {
                const FlowStage& stage = stages[operation.index];
                mixtures.insert({stage.components, stage.log2Components, stage.exponent, stage.published != 0});
            }
            parts.mixtureRoots = parts.mixtureRoots || operation.code == FLOW_SOLVE;
            if (operation.code == FLOW_TRANSFORM)
                types.insert(stages[operation.index].transformerType);
            if (operation.code == FLOW_PRODUCT)
                activations.insert(products.getSteps()[operation.index].activation);
            if (operation.code == FLOW_PRODUCTS_IN_WARPS)
                activations.insert(products.getRounds()[operation.index].activation);
        }
        parts.mixtures = !mixtures.empty();
        parts.transformers = !types.empty();
        if (types.size() == 1)
            parts.transformerType = *types.begin();
        if (activations.size() == 1)
            parts.activation = *activations.begin();
        if (mixtures.size() == 1)
            parts.alikeMixtures = *mixtures.begin();
        for (const FlowStage& stage : stages) {
            Formulas<double>::TransformerSettings settings = {};
            settings.type = stage.transformerType;
            settings.size = stage.transformerSize;
            const bool hasInverse = (stage.transformerType >= 0 && Formulas<double>::transformerHasInverse(settings));
            plan.findsRoots = plan.findsRoots || (stage.inverse && !hasInverse);
        }
    }

    FlowLayout& layout() {
        return plan.layout;
    }

    void operation(int code, int index = 0) {
        program.push_back({code, index});
    }

    int mixedRows(int count) {
        numMixedRows += count;
        return numMixedRows-count;
    }

    int realRows(int count) {
        numRealRows += count;
        return numRealRows-count;
    }

    /** Rows that do not outlive a pass through one coupling; all couplings share them. */
    int temporaryRows(int count) {
        nextTemporaryRow += count;
        return nextTemporaryRow-count;
    }

    int keptRows(int count) {
        if (!shape.keepsApart)
            return realRows(count);
        numKeptRows += count;
        return numKeptRows-count;
    }

    static int numRaw(const CouplingLayer& layer) {
        int rows = 0;
        for (const std::vector<DenseLayer>& network : layer.conditioner.networks)
            rows += static_cast<int>(network.back().bias.values.size());
        return rows;
    }

    int numTemporaryRows(const CouplingLayer& layer) const {
        int rows = (hasTemporaryRaw(layer) ? numRaw(layer) : 0);
        if (const SmoothMixtureTransformer* mixture = std::get_if<SmoothMixtureTransformer>(&layer.transformer))
            if (mixture->closedForm == Direction::Sampling)
                rows += 7*static_cast<int>(layer.transformed.size())*mixture->components;
        for (const std::vector<DenseLayer>& network : layer.conditioner.networks) {
            rows += static_cast<int>(network.back().bias.values.size());
            rows += static_cast<int>(network.front().weight.shape[1]);
            for (std::size_t i = 0; i+1 < network.size(); i++)
                rows += 2*static_cast<int>(network[i].bias.values.size());
        }
        return rows;
    }

    int terms(int count) {
        numTerms += count;
        return numTerms-count;
    }

    void addGeometry() {
        const int P = architecture.numParticles;
        const InternalCoordinates coordinates(architecture);
        const SupportContinuation continuation(force.getModel(), force.getMargins(), logProbLowerBound(architecture));
        GeometryPlan geometry = {};
        coordinates.describe(geometry);
        continuation.describe(geometry);
        FlowLayout& l = layout();
        l.numParticles = P;
        l.numBonds = geometry.numBonds;
        l.numAngles = geometry.numAngles;
        l.numTorsions = geometry.numTorsions;
        l.numCoordinates = architecture.numCoordinates();
        l.treeIndex = static_cast<int>(indices.size());
        const MoleculeGatherer gatherer(architecture);
        for (const MoleculeGatherer::TreeBond& bond : gatherer.getTree())
            append(indices, {bond.parent, bond.child});
        l.bondIndex = appendAtoms(geometry.bonds, 2*l.numBonds);
        l.angleIndex = appendAtoms(geometry.angles, 3*l.numAngles);
        l.torsionIndex = appendAtoms(geometry.torsions, 4*l.numTorsions);
        l.thermalEnergyConstant = append(plan.constants, {thermalEnergy(force.getTemperature())});
        l.ceilingConstant = append(plan.constants, {geometry.ceiling});
        l.logConstant = append(plan.constants, {geometry.logConstant});
        l.rangeConstant = static_cast<int>(plan.constants.size());
        for (int i = 0; i < l.numBonds; i++)
            addRange(geometry.bondRanges[i], geometry.hasFrame && !geometry.cartesian && i < 2 ? i : 2);
        for (int i = 0; i < l.numAngles; i++)
            addRange(geometry.angleRanges[i], geometry.hasFrame && !geometry.cartesian && i == 0 ? 0 : 1);
        for (int i = 0; i < l.numTorsions; i++)
            addRange(geometry.torsionAngleRanges[i], 0);
        l.numRanges = l.numBonds+l.numAngles+l.numTorsions;
        l.positionRow = mixedRows(3*P);
        l.originRow = mixedRows(3);
        terms(l.numBonds+l.numAngles);
        if (geometry.block.numBlock > 0)
            addBlock(geometry.block);
        l.coordinateRow = mixedRows(l.numCoordinates);
        l.gradientRow = mixedRows(l.numCoordinates);
        l.chiRow = mixedRows(l.numRanges);
        l.wallRow = mixedRows(l.numRanges);
        l.outsideRow = mixedRows(l.numRanges);
        l.scratchRow = mixedRows(3*flowKernelSumSlices);
        l.totalRow = mixedRows(6);
    }

    /** After the other ranges and terms. */
    void addBlock(const BlockPlan& block) {
        FlowLayout& l = layout();
        const int size = 3*block.numBlock;
        l.numBlock = block.numBlock;
        l.blockDimensions = block.dimensions;
        l.blockIsAligned = block.aligned;
        for (int i = 0; i < block.dimensions; i++)
            addRange(block.ranges[i], 0);
        l.numRanges += block.dimensions;
        if (block.aligned) {
            SupportRange alignment = block.determinantRatio;
            alignment.wallLower = block.radius.wallLower;
            alignment.wallUpper = block.radius.wallUpper;
            alignment.inverseWallWidth = block.radius.inverseWallWidth;
            addRange(alignment, 0);
            l.numRanges++;
            terms(1);
        }
        l.blockIndex = appendAtoms(block.block, block.numBlock);
        l.referenceConstant = appendConstants(block.reference, size);
        l.whiteningConstant = appendConstants(block.whitening, block.dimensions*size);
        l.inverseReferenceDeterminantConstant = append(plan.constants, {block.inverseReferenceDeterminant});
        l.alignedRow = mixedRows(size);
        l.whitenedRow = mixedRows(block.dimensions);
        l.blockGradientRow = mixedRows(size);
        l.rotationRow = mixedRows(9+6);
        l.determinantRatioRow = mixedRows(1);
        l.radiusFactorRow = mixedRows(1);
        l.turnRow = mixedRows(3);
    }

    int appendConstants(const double* values, int count) {
        plan.constants.insert(plan.constants.end(), values, values+count);
        return static_cast<int>(plan.constants.size())-count;
    }

    int appendAtoms(const int* atoms, int count) {
        indices.insert(indices.end(), atoms, atoms+count);
        return static_cast<int>(indices.size())-count;
    }

    /** @param volumePower  of the bond or of the sine of the angle in the volume element */
    void addRange(const SupportRange& r, double volumePower) {
        const FlowRange range = {r.lower, r.upper, r.margin, r.wallLower, r.wallUpper, r.inverseWallWidth, r.chiLow0,
                r.inverseChiLow, r.chiHigh0, r.inverseChiHigh, volumePower};
        const double* values = &range.lower;
        plan.constants.insert(plan.constants.end(), values, values+sizeof(FlowRange)/sizeof(double));
    }

    /** A layer of single coordinates. */
    template <class Single>
    void addSingle(const Single& layer) {
        FlowStage stage = {};
        stage.map = mapNumber(layer.plan().map);
        stage.count = static_cast<int>(layer.getCoordinates().size());
        stage.coordinateIndex = append(indices, layer.getCoordinates());
        stage.parameterConstant = addParameters(layer.plan());
        stage.termRow = terms(stage.count);
        stage.densityRow = mixedRows(stage.count);
        stage.slopeRow = mixedRows(stage.count);
        const int index = static_cast<int>(stages.size());
        operation(FLOW_MARGINAL, index);
        wayBack.push_back({{FLOW_MARGINAL_BACKWARD, index}});
        stages.push_back(stage);
    }

    static int mapNumber(MarginalPlan::Map map) {
        switch (map) {
            // Which differ in that a uniform distribution has edges, and what is continued never reaches them.
            case MarginalPlan::Map::Uniform:
            case MarginalPlan::Map::AffineNormalization: return FLOW_MAP_AFFINE;
            case MarginalPlan::Map::Logit: return FLOW_MAP_LOGIT;
            case MarginalPlan::Map::Logistic: return FLOW_MAP_LOGISTIC;
            case MarginalPlan::Map::CircularShift: return FLOW_MAP_CIRCULAR_SHIFT;
            default: return FLOW_MAP_NORMAL;
        }
    }

    int addParameters(const MarginalPlan& layer) {
        const int place = static_cast<int>(plan.constants.size());
        for (int i = 0; i < layer.numCoordinates; i++) {
            const MarginalPlan::Parameters& p = layer.parameters[i];
            if (layer.map == MarginalPlan::Map::Normal)
                append(plan.constants, {p.mean, p.inverseStd, p.cdfLower, p.inverseMass, p.logNorm});
            else
                append(plan.constants, {p.lower, p.inverseWidth, p.logInverseWidth, 0.0, 0.0});
        }
        return place;
    }

    void addBase() {
        // A uniform base density is 1.
        std::vector<int> numbers(architecture.numCoordinates(), -1);
        int count = 0;
        layout().baseConstant = static_cast<int>(plan.constants.size());
        for (const CoordinateDistributions& base : architecture.base)
            if (base.distribution != Distribution::Uniform) {
                for (int coordinate : base.coordinates)
                    numbers[coordinate] = count++;
                addParameters(Marginals(base).plan());
            }
        layout().baseIndex = append(indices, numbers);
        layout().baseTermRow = terms(count);
        operation(FLOW_BASE);
    }

    void addCoupling(const CouplingLayer& layer, const std::vector<Domain>& domains) {
        FlowStage stage = {};
        std::vector<int> plain, circular;
        for (int i : layer.conditionedOn)
            (domains[i] == Domain::Circle ? circular : plain).push_back(i);
        stage.numPlain = static_cast<int>(plain.size());
        stage.numCircularFeatures = static_cast<int>(circular.size());
        stage.plainIndex = append(indices, plain);
        stage.circularIndex = append(indices, circular);
        stage.termRow = terms(static_cast<int>(layer.transformed.size()));
        if (const SmoothMixtureTransformer* mixture = std::get_if<SmoothMixtureTransformer>(&layer.transformer))
            addMixture(layer, *mixture, domains, stage);
        else
            addTransformer(layer, std::get<FormulaTransformer>(layer.transformer), domains, stage);
    }

    /** Rows of a coupling with D transformed coordinates that no transformer does without. */
    void addCouplingRows(const CouplingLayer& layer, int D, FlowStage& stage) {
        const int numFeatures = stage.numPlain+2*stage.numCircularFeatures;
        stage.numNetworks = static_cast<int>(layer.conditioner.networks.size());
        stage.featureRow = realRows(numFeatures);
        stage.argumentRow = realRows(D);
        stage.valueRow = realRows(D);
        stage.mixtureSlopeRow = realRows(D);
        stage.curvatureRow = realRows(D);
        nextTemporaryRow = 0;
        stage.featureGradientRow = temporaryRows(stage.numNetworks*numFeatures);
        stage.numRaw = numRaw(layer);
        stage.rawGradientRow = temporaryRows(stage.numRaw);
        if (isMixtureInWarps(layer))
            stage.keptRow = keptRows(2*MIXTURE_PARAMETERS*D<<log2Components(layer));
        else
            stage.keptRow = keptRows(stage.numRaw);
        stage.rawRow = (hasTemporaryRaw(layer) ? temporaryRows(stage.numRaw) : stage.keptRow);
    }

    /** Whether components of a coordinate are work-items of a warp. */
    bool isMixtureInWarps(const CouplingLayer& layer) const {
        const SmoothMixtureTransformer* mixture = std::get_if<SmoothMixtureTransformer>(&layer.transformer);
        return shape.sumsInWarps && mixture != nullptr && mixture->components <= flowKernelWarp && mixture->closedForm != Direction::Sampling;
    }

    static int log2Components(const CouplingLayer& layer) {
        int log2 = 0;
        while (1<<log2 < std::get<SmoothMixtureTransformer>(layer.transformer).components)
            log2++;
        return log2;
    }

    /** Whether raw parameters do not outlive a pass through their coupling. */
    bool hasTemporaryRaw(const CouplingLayer& layer) const {
        return shape.keepsApart || isMixtureInWarps(layer);
    }

    void addTransformer(const CouplingLayer& layer, const FormulaTransformer& transformer, const std::vector<Domain>& domains,
            FlowStage& stage) {
        const TransformerLayout order(layer, domains);
        const int D = static_cast<int>(order.transformed.size());
        stage.transformedIndex = append(indices, order.transformed);
        stage.numCircles = order.numCircles;
        stage.numIntervals = D-order.numCircles;
        stage.onRealLine = (domains[order.transformed.front()] == Domain::Real);
        stage.transformerType = transformer.descriptor->number;
        stage.transformerSize = transformer.size;
        stage.inverse = (transformer.closedForm == Direction::Sampling);
        std::vector<double> settings = transformer.settings;
        settings.resize(TransformerDescriptor::MAX_SETTINGS);
        stage.headConstant = append(plan.constants, settings);
        stage.otherOffsetIndex = append(indices, order.otherOffsets);
        // Those of the first coordinate on a circle.
        stage.circleOffsetIndex = append(indices, order.circleOffsets);
        addCouplingRows(layer, D, stage);
        const int index = static_cast<int>(stages.size());
        operation(FLOW_FEATURES, index);
        wayBack.emplace_back();
        if (shape.keepsApart)
            wayBack.back().push_back({FLOW_RECALL, index});
        wayBack.back().push_back({FLOW_TRANSFORM_BACKWARD, index});
        addNetworks(layer.conditioner, order.outputs, stage);
        wayBack.back().push_back({FLOW_FEATURES_BACKWARD, index});
        operation(FLOW_TRANSFORM, index);
        if (shape.keepsApart)
            operation(FLOW_KEEP, index);
        stages.push_back(stage);
    }

    void addMixture(const CouplingLayer& layer, const SmoothMixtureTransformer& transformer, const std::vector<Domain>& domains,
            FlowStage& stage) {
        // Intervals first, then circles; order[d] is the place of d in the file.
        const int D = static_cast<int>(layer.transformed.size()), K = transformer.components;
        std::vector<int> order;
        stage.transformedIndex = static_cast<int>(indices.size());
        for (Domain domain : {Domain::Interval, Domain::Circle})
            for (int d = 0; d < D; d++)
                if (domains[layer.transformed[d]] == domain) {
                    order.push_back(d);
                    indices.push_back(layer.transformed[d]);
                    (domain == Domain::Interval ? stage.numIntervals : stage.numCircles)++;
                }
        stage.transformerType = -1;
        stage.components = K;
        stage.exponent = transformer.exponent;
        stage.published = (transformer.head == MixtureHead::Published);
        stage.inverse = (transformer.closedForm == Direction::Sampling);
        stage.headConstant = append(plan.constants, {transformer.alphaOffset, transformer.alphaRange, transformer.logSteepnessBound,
                transformer.minimumFloor});
        addCouplingRows(layer, D, stage);
        // One of them is of the way forward, the other one of the way back.
        stage.componentRow = stage.rawGradientRow;
        if (stage.inverse)
            stage.parameterRow = temporaryRows(7*K*D);
        const int index = static_cast<int>(stages.size());
        const bool inWarps = isMixtureInWarps(layer);
        operation(FLOW_FEATURES, index);
        wayBack.emplace_back();
        if (inWarps)
            wayBack.back().push_back({FLOW_MIXTURE_BACKWARD_IN_WARPS, index});
        else {
            if (shape.keepsApart)
                wayBack.back().push_back({FLOW_RECALL, index});
            for (int code : {FLOW_COMPONENTS_BACKWARD, FLOW_MIXTURE_BACKWARD})
                wayBack.back().push_back({code, index});
        }
        // Rows of the raw parameters are (5, K, D) here and (5, D, K) in the file.
        std::vector<std::vector<int>> outputs;
        for (const std::vector<DenseLayer>& network : layer.conditioner.networks) {
            std::vector<int>& rows = outputs.emplace_back(network.back().bias.values.size());
            for (int o = 0; o < static_cast<int>(rows.size()); o++)
                rows[o] = o/(D*K)*D*K+order[o%D]*K+o/D%K;
        }
        addNetworks(layer.conditioner, outputs, stage);
        wayBack.back().push_back({FLOW_FEATURES_BACKWARD, index});
        stage.log2Components = log2Components(layer);
        if (inWarps)
            operation(FLOW_MIXTURE_IN_WARPS, index);
        else {
            operation(FLOW_SOFTMAX, index);
            if (stage.inverse)
                for (int code : {FLOW_PARAMETERS, FLOW_SOLVE})
                    operation(code, index);
            for (int code : {FLOW_COMPONENTS, FLOW_MIXTURE})
                operation(code, index);
            if (shape.keepsApart)
                operation(FLOW_KEEP, index);
        }
        stages.push_back(stage);
    }

    /**
     * Layers of the same depth, counted from the first, make one step; backward, counted from the last.
     *
     * @param outputsOfFile  for each network: which of its outputs stands at each place
     */
    void addNetworks(const Conditioner& conditioner, const std::vector<std::vector<int>>& outputsOfFile, const FlowStage& stage) {
        const std::vector<std::vector<DenseLayer>>& networks = conditioner.networks;
        const int numFeatures = stage.numPlain+2*stage.numCircularFeatures;
        std::size_t depth = 0;
        for (const auto& network : networks)
            depth = std::max(depth, network.size());
        std::vector<std::vector<DeviceProducts::Product>> forward(depth), backward(depth);
        int firstRawRow = 0;
        for (std::size_t n = 0; n < networks.size(); n++) {
            const std::vector<DenseLayer>& network = networks[n];
            int source = stage.featureRow, slopes = -1;
            std::vector<DeviceProducts::Product> onTheWayBack(network.size());
            for (std::size_t i = 0; i < network.size(); i++) {
                const DenseLayer& dense = network[i];
                const int outputs = static_cast<int>(dense.weight.shape[0]), inputs = static_cast<int>(dense.weight.shape[1]);
                const bool last = (i+1 == network.size());
                std::vector<int> rows(outputs);    // of the file
                for (int o = 0; o < outputs; o++)
                    rows[o] = (last ? outputsOfFile[n][o] : o);
                FlowProduct product = {};
                product.inputs = inputs;
                product.outputs = outputs;
                product.sourceRow = source;
                const auto weight = [&values = dense.weight.values, rows, inputs](int o, int j) {
                    return values[static_cast<std::size_t>(rows[o])*inputs+j];
                };
                product.biasWeight = static_cast<int>(plan.weights.size());
                for (int o = 0; o < outputs; o++)
                    plan.weights.push_back(dense.bias.values[rows[o]]);
                product.activated = !last;
                product.slopeRow = (last ? -1 : keptRows(outputs));
                product.targetRow = (last ? stage.rawRow+firstRawRow : temporaryRows(outputs));
                forward[i].push_back({product, [weight](int j, int o) {
                    return weight(o, j);
                }});

                FlowProduct& transposed = onTheWayBack[i].product;
                transposed = {};
                transposed.inputs = outputs;
                transposed.outputs = inputs;
                transposed.sourceRow = (last ? stage.rawGradientRow+firstRawRow : temporaryRows(outputs));
                onTheWayBack[i].matrix = weight;
                transposed.biasWeight = -1;
                transposed.slopeRow = slopes;
                source = product.targetRow;
                slopes = product.slopeRow;
            }
            for (std::size_t i = 0; i < network.size(); i++) {
                onTheWayBack[i].product.targetRow = (i > 0 ? onTheWayBack[i-1].product.sourceRow :
                        stage.featureGradientRow+static_cast<int>(n)*numFeatures);
                backward[network.size()-1-i].push_back(onTheWayBack[i]);
            }
            firstRawRow += static_cast<int>(network.back().bias.values.size());
        }
        products.add(forward, conditioner.activation, program);
        products.add(backward, conditioner.activation, wayBack.back());
    }

    DevicePlan& plan;
    const FlowForce& force;
    const Architecture architecture;    // without permutations
    const Shape shape;
    DeviceProducts products;
    std::vector<FlowOperation> program;
    std::vector<FlowStage> stages;
    std::vector<int> indices;
    std::vector<std::vector<FlowOperation>> wayBack;    // of each layer
    int numMixedRows = 0, numRealRows = 0, numKeptRows = 0, nextTemporaryRow = 0, numTerms = 0;
};

DevicePlan::DevicePlan(const FlowForce& force, const Shape& shape) {
    Builder(*this, force, shape).build();
}

} // namespace OpenMMFlow
