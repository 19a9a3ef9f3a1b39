// SPDX-License-Identifier: MIT
#include "model/Architecture.h"

#include <algorithm>
#include <numeric>

using namespace OpenMMFlow;
using namespace std;

namespace {

/** Of the first layer; null before it has been read. */
const MixedCoordinatesLayer* mixedCoordinates(const Architecture& architecture) {
    return architecture.layers.empty() ? nullptr : get_if<MixedCoordinatesLayer>(&architecture.layers.front());
}

/** Elements in another order: result[i] = values[order[i]]. */
template <class T>
vector<T> reordered(const vector<T>& values, const vector<int>& order) {
    vector<T> result;
    for (int i : order)
        result.push_back(values[i]);
    return result;
}

double valueOr(const Tensor& tensor, size_t index, double fallback) {
    return index < tensor.values.size() ? tensor.values[index] : fallback;
}

/** From before the layer to after it. */
void changeOrigins(const Layer& layer, vector<CoordinateOrigin>& origins) {
    const auto forget = [&](const vector<int>& coordinates) {
        for (int coordinate : coordinates)
            origins[coordinate].known = false;
    };
    if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
        forget(marginal->coordinates);
    else if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
        forget(coupling->transformed);
    else if (const PermutationLayer* permutation = get_if<PermutationLayer>(&layer))
        origins = reordered(origins, permutation->order);
    else if (const ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layer)) {
        if (elementwise->map != ElementwiseMap::AffineNormalization)
            forget(elementwise->coordinates);
        else
            for (size_t i = 0; i < elementwise->coordinates.size(); i++) {
                CoordinateOrigin& origin = origins[elementwise->coordinates[i]];
                origin.shift += origin.scale*valueOr(elementwise->shift, i, 0);
                origin.scale *= valueOr(elementwise->scale, i, 1);
            }
    }
}

void changeDomains(const Layer& layer, vector<Domain>& domains) {
    if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
        for (int coordinate : marginal->coordinates)
            domains[coordinate] = Domain::Interval;
    else if (const PermutationLayer* permutation = get_if<PermutationLayer>(&layer))
        domains = reordered(domains, permutation->order);
    else if (const ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layer)) {
        if (elementwise->map == ElementwiseMap::Logit || elementwise->map == ElementwiseMap::Logistic)
            for (int coordinate : elementwise->coordinates)
                domains[coordinate] = (elementwise->map == ElementwiseMap::Logit ? Domain::Real : Domain::Interval);
    }
}

} // namespace

int Architecture::numCoordinates() const {
    const MixedCoordinatesLayer* mixed = mixedCoordinates(*this);
    return mixed == nullptr ? 3*numParticles-6 : 3*(int) mixed->zMatrix.size()+mixed->blockDimensions;
}

int Architecture::numBonds() const {
    const MixedCoordinatesLayer* mixed = mixedCoordinates(*this);
    return mixed == nullptr ? numParticles-1 : (int) mixed->zMatrix.size();
}

int Architecture::numAngles() const {
    const MixedCoordinatesLayer* mixed = mixedCoordinates(*this);
    return mixed == nullptr ? numParticles-2 : (int) mixed->zMatrix.size();
}

int Architecture::numTorsions() const {
    const MixedCoordinatesLayer* mixed = mixedCoordinates(*this);
    return mixed == nullptr ? numParticles-3 : (int) mixed->zMatrix.size();
}

vector<vector<Domain>> OpenMMFlow::coordinateDomains(const Architecture& architecture) {
    vector<Domain> domains(architecture.numCoordinates(), Domain::Real);
    const auto firstTorsion = domains.begin()+architecture.numBonds()+architecture.numAngles();
    fill(firstTorsion, firstTorsion+architecture.numTorsions(), Domain::Circle);
    vector<vector<Domain>> result;
    for (const Layer& layer : architecture.layers) {
        changeDomains(layer, domains);
        result.push_back(domains);
    }
    return result;
}

vector<int> OpenMMFlow::rawBlockLengths(const CouplingLayer& coupling, const vector<Domain>& domains) {
    const int D = static_cast<int>(coupling.transformed.size());
    if (const SmoothMixtureTransformer* mixture = get_if<SmoothMixtureTransformer>(&coupling.transformer))
        return vector<int>(5, D*mixture->components);
    const int numIntervals = static_cast<int>(count_if(coupling.transformed.begin(), coupling.transformed.end(),
            [&](int coordinate) { return domains[coordinate] == Domain::Interval; }));
    const FormulaTransformer& transformer = get<FormulaTransformer>(coupling.transformer);
    vector<int> lengths;
    for (const TransformerDescriptor::Block& block : transformer.descriptor->blocks)
        lengths.push_back(transformer.descriptor->numRows(block, transformer.size)*(block.ofIntervals ? numIntervals : D));
    return lengths;
}

Smoothness OpenMMFlow::smoothness(const Architecture& architecture, string* leastSmooth) {
    Smoothness result = Smoothness::Infinite;
    for (const Layer& layer : architecture.layers)
        if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            if (const FormulaTransformer* transformer = get_if<FormulaTransformer>(&coupling->transformer))
                if (transformer->descriptor->smoothness < result) {
                    result = transformer->descriptor->smoothness;
                    if (leastSmooth != nullptr)
                        *leastSmooth = transformer->descriptor->name;
                }
    return result;
}

vector<vector<CoordinateOrigin>> OpenMMFlow::coordinateOrigins(const Architecture& architecture) {
    vector<CoordinateOrigin> origins;
    for (int i = 0; i < architecture.numCoordinates(); i++)
        origins.push_back({true, i, 1.0, 0.0});
    vector<vector<CoordinateOrigin>> result;
    for (const Layer& layer : architecture.layers) {
        changeOrigins(layer, origins);
        result.push_back(origins);
    }
    return result;
}

UnpermutedArchitecture OpenMMFlow::withoutPermutations(const Architecture& architecture) {
    UnpermutedArchitecture result = {architecture, vector<int>(architecture.numCoordinates())};
    vector<int>& order = result.latentOrder;
    iota(order.begin(), order.end(), 0);
    for (Layer& layer : result.architecture.layers) {
        if (MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            marginal->coordinates = reordered(order, marginal->coordinates);
        else if (ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layer))
            elementwise->coordinates = reordered(order, elementwise->coordinates);
        else if (CouplingLayer* coupling = get_if<CouplingLayer>(&layer)) {
            coupling->transformed = reordered(order, coupling->transformed);
            coupling->conditionedOn = reordered(order, coupling->conditionedOn);
        }
        else if (PermutationLayer* permutation = get_if<PermutationLayer>(&layer)) {
            order = reordered(order, permutation->order);
            iota(permutation->order.begin(), permutation->order.end(), 0);
        }
    }
    for (CoordinateDistributions& base : result.architecture.base)
        base.coordinates = reordered(order, base.coordinates);
    return result;
}
