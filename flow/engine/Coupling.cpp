// SPDX-License-Identifier: MIT
#include "engine/Coupling.h"
#include "formulas/Formulas.h"

#include <algorithm>
#include <cmath>
#include <numeric>

using namespace OpenMMFlow;
using namespace std;

namespace {

/** Offsets for arrays in the arena, each at a cache line and followed by a whole vector of slack, which padded loads and stores may touch. */
template <class Real>
class ArenaLayout {
public:
    size_t add(size_t size) {
        const size_t line = AlignedArray<Real>::ALIGNMENT/sizeof(Real);
        size_t offset = end;
        end += (size+line-1)/line*line+line;
        return offset;
    }
    size_t size() const {
        return end;
    }

private:
    size_t end = 0;
};

} // namespace

template <class Real>
int Coupling<Real>::blockSize() {
    return 2*selectCouplingKernels<Real>().vectorLength;
}

template <class Real>
Coupling<Real>::Coupling(const CouplingLayer& layer, const vector<Domain>& domains) :
        kernels(selectCouplingKernels<Real>()), transformer(layer.transformer), activation(layer.conditioner.activation) {
    for (int i : layer.conditionedOn)
        (domains[i] == Domain::Circle ? circularFeatures : plain).push_back(i);
    real = (domains[layer.transformed.front()] == Domain::Real);
    if (const SmoothMixtureTransformer* mixture = get_if<SmoothMixtureTransformer>(&transformer))
        packMixture(layer, *mixture, domains);
    else
        packTransformer(layer, domains);
    single = layOut(1);
    half = layOut(blockSize()/2);
    block = layOut(blockSize());
}

template <class Real>
void Coupling<Real>::packTransformer(const CouplingLayer& layer, const vector<Domain>& domains) {
    const TransformerLayout& order = transformerLayout.emplace(layer, domains);
    transformed = order.transformed;
    numCircles = order.numCircles;
    numIntervals = static_cast<int>(transformed.size())-numCircles;
    int first = 0;
    for (size_t n = 0; n < order.outputs.size(); n++) {
        packNetwork(layer.conditioner.networks[n], first, order.outputs[n]);
        first += static_cast<int>(order.outputs[n].size());
    }
    for (int circular : {0, 1}) {
        const vector<int>& offsets = (circular ? order.circleOffsets : order.otherOffsets);
        for (size_t i = 0; i < offsets.size(); i++)
            transformerRows.push_back({offsets[i], circular, static_cast<int>(i)});
    }
    sort(transformerRows.begin(), transformerRows.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
}

template <class Real>
void Coupling<Real>::packMixture(const CouplingLayer& layer, const SmoothMixtureTransformer& transformer, const vector<Domain>& domains) {
    // Intervals first, then circles; order[d] is the place of d in the file.
    const int D = static_cast<int>(layer.transformed.size()), K = transformer.components;
    vector<int> order;
    for (Domain domain : {Domain::Interval, Domain::Circle})
        for (int d = 0; d < D; d++)
            if (domains[layer.transformed[d]] == domain)
                order.push_back(d);
    for (int d : order)
        transformed.push_back(layer.transformed[d]);
    numCircles = static_cast<int>(count_if(transformed.begin(), transformed.end(),
            [&](int i) { return domains[i] == Domain::Circle; }));
    numIntervals = D-numCircles;

    // A network owns whole blocks p of the raw parameters (5, D, K) of the file; its rows become (blocks, K, D) here, so that D is
    // contiguous and all components of a block follow each other. The published head makes no use of the steepness on circles (p = 3).
    const bool constantSteepness = (transformer.head == MixtureHead::Published && numIntervals == 0);
    rawRows.assign(5*K, -1);
    const int blockLength = D*K;
    int firstBlock = 0, first = 0;
    for (const vector<DenseLayer>& network : layer.conditioner.networks) {
        vector<int> blocks(network.back().bias.values.size()/blockLength);
        iota(blocks.begin(), blocks.end(), firstBlock);
        firstBlock += static_cast<int>(blocks.size());
        vector<int> outputRows;
        const int fileBlock = blocks.front();
        if (constantSteepness)
            blocks.erase(remove(blocks.begin(), blocks.end(), 3), blocks.end());
        if (blocks.empty())
            continue;
        for (int p : blocks)
            for (int k = 0; k < K; k++) {
                rawRows[5*k+p] = first+static_cast<int>(outputRows.size());
                for (int d = 0; d < D; d++)
                    outputRows.push_back((p-fileBlock)*blockLength+order[d]*K+k);
            }
        packNetwork(network, first, outputRows);
        first += static_cast<int>(outputRows.size());
    }
    numRawRows = first/D;
    for (int i = 0; i < 5*K; i++)
        if (rawRows[i] >= 0)
            rawOrder.push_back(i);
    sort(rawOrder.begin(), rawOrder.end(), [&](int a, int b) { return rawRows[a] < rawRows[b]; });
    for (int k = 0; k < K; k++)
        priors.resize((k+1)*static_cast<size_t>(D), static_cast<Real>((k+0.5)/K));
    priors.resize(priors.size()+kernels.vectorLength);
    circleSteepness = static_cast<Real>(Formulas<double>::headSteepnessOnCircle(-transformer.logSteepnessBound,
            transformer.logSteepnessBound).value);
}

/** @param values  (rows, columns) */
template <class Real>
PackedMatrix<Real> Coupling<Real>::pack(int rows, int columns, const vector<double>& values) {
    const int L = kernels.vectorLength;
    const int paddedColumns = (columns+L-1)/L*L;
    AlignedArray<Real> packed(static_cast<size_t>(rows)*paddedColumns);
    Real* next = packed.data();
    for (int group = 0; group < rows; group += L)
        for (int tile = 0; tile < paddedColumns; tile += 4*L)
            for (int row = group; row < min(group+L, rows); row++)
                for (int column = tile; column < min(tile+4*L, paddedColumns); column++)
                    *next++ = static_cast<Real>(column < columns ? values[static_cast<size_t>(row)*columns+column] : 0.0);
    weights.push_back(move(packed));
    return {rows, columns, weights.back().data()};
}

/** @param outputRows  which of the last layer's outputs stands at each place of the raw parameters; others are left out */
template <class Real>
void Coupling<Real>::packNetwork(const vector<DenseLayer>& network, int firstRawRow, const vector<int>& outputRows) {
    layers.emplace_back();
    firstRawRows.push_back(firstRawRow);
    for (const DenseLayer& layer : network) {
        const bool last = (&layer == &network.back());
        const int numOutputs = static_cast<int>(last ? outputRows.size() : layer.weight.shape[0]);
        const int numInputs = static_cast<int>(layer.weight.shape[1]);
        vector<double> matrix(static_cast<size_t>(numInputs)*numOutputs);
        AlignedArray<Real> bias(numOutputs+4*kernels.vectorLength);
        for (int o = 0; o < numOutputs; o++) {
            const int source = (last ? outputRows[o] : o);
            bias.data()[o] = static_cast<Real>(layer.bias.values[source]);
            for (int i = 0; i < numInputs; i++)
                matrix[static_cast<size_t>(i)*numOutputs+o] = layer.weight.values[static_cast<size_t>(source)*numInputs+i];
        }
        PackedLayer<Real> packed = {};
        packed.matrix = pack(numInputs, numOutputs, matrix);
        packed.bias = bias.data();
        weights.push_back(move(bias));
        layers.back().push_back(packed);
    }
}

template <class Real>
typename Coupling<Real>::Layout Coupling<Real>::layOut(int M) const {
    const int L = kernels.vectorLength;
    const auto padded = [L](int length) { return (length+L-1)/L*L; };
    const int D = numIntervals+numCircles;
    ArenaLayout<Real> arena;
    Layout layout;
    layout.layers = layers;
    size_t widest = 1;
    for (size_t n = 0; n < layers.size(); n++) {
        vector<PackedLayer<Real>>& network = layout.layers[n];
        for (PackedLayer<Real>& layer : network) {
            widest = max<size_t>({widest, static_cast<size_t>(layer.matrix.rows), static_cast<size_t>(layer.matrix.columns)});
            if (&layer != &network.back()) {
                layer.values = arena.add(static_cast<size_t>(layer.matrix.columns)*M);
                layer.slopes = arena.add(static_cast<size_t>(layer.matrix.columns)*M);
            }
        }
    }
    for (size_t n = 0; n < layers.size(); n++)
        layout.networks.push_back({static_cast<int>(layers[n].size()), layout.layers[n].data(), firstRawRows[n]});
    CouplingPlan<Real>& plan = layout.plan;
    plan = {};
    plan.numNetworks = static_cast<int>(layout.networks.size());
    plan.networks = layout.networks.data();
    plan.numPlain = static_cast<int>(plain.size());
    plan.plain = plain.data();
    plan.numCircularFeatures = static_cast<int>(circularFeatures.size());
    plan.circularFeatures = circularFeatures.data();
    plan.activation = activation;
    plan.numIntervals = numIntervals;
    plan.numCircles = numCircles;
    plan.transformed = transformed.data();
    plan.transformer.type = -1;
    if (const SmoothMixtureTransformer* mixture = get_if<SmoothMixtureTransformer>(&transformer))
        describeMixture(*mixture, plan);
    else
        describeTransformer(get<FormulaTransformer>(transformer), plan);
    const size_t K = plan.components;
    plan.paddedLength = padded(numIntervals*M)+padded(numCircles*M);
    const size_t E = plan.paddedLength, numFeatures = plain.size()+2*circularFeatures.size();
    plan.features = arena.add(numFeatures*M);
    plan.featureGradient = arena.add(numFeatures*M);
    plan.raw = arena.add((static_cast<size_t>(numRawRows)*D+plan.transformer.numOutputs)*M);
    plan.rawGradient = plan.raw;    // which is not read again on the way back
    plan.hidden = arena.add(widest*M);
    plan.nextHidden = arena.add(widest*M);
    plan.x = arena.add(E);
    plan.y = arena.add(E);
    plan.logDerivative = arena.add(E);
    plan.slope = arena.add(E);
    plan.curvature = arena.add(E);
    plan.valueJacobian = arena.add(5*K*E);
    plan.slopeJacobian = arena.add(5*K*E);
    plan.centreShares = arena.add(K*E);
    plan.transformer.parameters = arena.add(plan.transformer.mostParameters*E);
    plan.scratch = arena.add(max(K*kernels.scratchSize, 2*plan.transformer.mostParameters*kernels.vectorSize)/sizeof(Real));
    for (size_t& array : plan.flat)
        array = arena.add(M == 1 ? K*E : 0);
    layout.arenaSize = arena.size();
    return layout;
}

template <class Real>
void Coupling<Real>::describeMixture(const SmoothMixtureTransformer& mixture, CouplingPlan<Real>& plan) const {
    plan.components = mixture.components;
    plan.exponent = mixture.exponent;
    plan.published = (mixture.head == MixtureHead::Published);
    plan.inverse = (mixture.closedForm == Direction::Sampling);
    plan.alphaOffset = static_cast<Real>(mixture.alphaOffset);
    plan.alphaRange = static_cast<Real>(mixture.alphaRange);
    plan.logSteepnessBound = static_cast<Real>(mixture.logSteepnessBound);
    plan.minimumFloor = static_cast<Real>(mixture.minimumFloor);
    plan.rawRows = rawRows.data();
    plan.rawOrder = rawOrder.data();
    plan.numRawRows = numRawRows;
    plan.priors = priors.data();
    plan.circleSteepness = circleSteepness;
}

template <class Real>
void Coupling<Real>::describeTransformer(const FormulaTransformer& formula, CouplingPlan<Real>& plan) const {
    TransformerPlan<Real>& t = plan.transformer;
    t.type = formula.descriptor->number;
    t.size = formula.size;
    for (size_t i = 0; i < formula.settings.size(); i++)
        t.settings[i] = static_cast<Real>(formula.settings[i]);
    t.real = real;
    const vector<int>* offsets[] = {&transformerLayout->otherOffsets, &transformerLayout->circleOffsets};
    for (int circular : {0, 1}) {
        t.numParameters[circular] = static_cast<int>(offsets[circular]->size());
        t.offsets[circular] = offsets[circular]->data();
    }
    t.mostParameters = max(t.numParameters[0], t.numParameters[1]);
    t.rows = transformerRows.data();
    t.numRows = static_cast<int>(transformerRows.size());
    t.numOutputs = transformerLayout->numOutputs;
    plan.inverse = (formula.closedForm == Direction::Sampling);
}

template <class Real>
AlignedArray<Real> Coupling<Real>::createArena(int numMolecules) const {
    return AlignedArray<Real>(layoutFor(numMolecules).arenaSize);
}

template <class Real>
void Coupling<Real>::forward(int M, bool withGradient, double* coordinates, double* logDet, Real* arena, RootFinding& roots) const {
    kernels.forward(layoutFor(M).plan, M, withGradient, coordinates, logDet, arena, roots);
}

template <class Real>
void Coupling<Real>::backward(int M, double* gradient, Real* arena) const {
    kernels.backward(layoutFor(M).plan, M, gradient, arena);
}

template <class Real>
void Coupling<Real>::sample(int M, double* coordinates, double* logDet, Real* arena, RootFinding& roots) const {
    // The conditioning coordinates are the same on both sides: only the transformer turns round.
    CouplingPlan<Real> plan = layoutFor(M).plan;
    plan.inverse = !plan.inverse;
    for (int m = 0; m < M; m++)
        logDet[m] = -logDet[m];
    kernels.forward(plan, M, false, coordinates, logDet, arena, roots);
    for (int m = 0; m < M; m++)
        logDet[m] = -logDet[m];
}

namespace OpenMMFlow {
template class Coupling<float>;
template class Coupling<double>;
} // namespace OpenMMFlow
