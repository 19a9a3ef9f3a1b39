// SPDX-License-Identifier: MIT
#include "engine/LogProbBound.h"
#include "engine/ConditionerBound.h"
#include "engine/Marginals.h"

#include <algorithm>
#include <cmath>
#include <utility>

using namespace OpenMMFlow;
using namespace std;

static const double NORMAL_WIDTHS = 8;

using Range = pair<double, double>;

/**
 * Smallest log density within the support, of normal distributions within 8 standard deviations.
 *
 * @param ranges  of coordinates on the real line, whose base density is as low as they reach; null for a marginal
 */
static double lowestLogDensity(const CoordinateDistributions& distributions, const vector<Range>* ranges) {
    const Marginals marginals(distributions);
    double sum = 0;
    for (size_t i = 0; i < distributions.coordinates.size(); i++) {
        Range edges = {Marginals::lowerEdge(distributions, i), Marginals::upperEdge(distributions, i)};
        if (distributions.distribution == Distribution::Normal) {
            if (ranges != nullptr)
                edges = (*ranges)[distributions.coordinates[i]];
            else
                edges = {distributions.mean.values[i]-NORMAL_WIDTHS*distributions.std.values[i],
                        distributions.mean.values[i]+NORMAL_WIDTHS*distributions.std.values[i]};
        }
        sum += min(marginals.evaluate(i, edges.first).logDensity, marginals.evaluate(i, edges.second).logDensity);
    }
    return sum;
}

/** Of ln|dy/dx| in density direction for each transformed coordinate; also where real coordinates get to. */
static double lowestLogSlope(const CouplingLayer& coupling, const vector<Domain>& domains, vector<Range>& ranges) {
    if (const SmoothMixtureTransformer* mixture = get_if<SmoothMixtureTransformer>(&coupling.transformer))
        return log(mixture->minimumFloor);
    const FormulaTransformer& transformer = get<FormulaTransformer>(coupling.transformer);
    const double largestRaw = largestRawParameter(coupling, domains, ranges);
    const Range logSlope = transformer.descriptor->logSlopeRange(transformer.size, transformer.settings, largestRaw);
    const bool inverse = (transformer.closedForm == Direction::Sampling);
    const double steepest = exp(inverse ? -logSlope.first : logSlope.second);
    for (int i : coupling.transformed)
        if (domains[i] == Domain::Real) {
            // F maps 0 to a raw parameter: the shift.
            const double farthest = max(abs(ranges[i].first), abs(ranges[i].second));
            const double reach = (inverse ? steepest*(farthest+largestRaw) : steepest*farthest+largestRaw);
            ranges[i] = {-reach, reach};
        }
    return inverse ? -logSlope.second : logSlope.first;
}

/** The same of a layer without a network. */
static double lowestLogSlope(const ElementwiseLayer& layer, vector<Range>& ranges) {
    // ln of the smallest number that a probability is away from 0 and 1.
    const double farthestLogit = 40;
    double sum = 0;
    for (size_t i = 0; i < layer.coordinates.size(); i++) {
        Range& range = ranges[layer.coordinates[i]];
        switch (layer.map) {
            case ElementwiseMap::AffineNormalization: {
                const double shift = layer.shift.values[i], scale = layer.scale.values[i];
                range = {(range.first-shift)/scale, (range.second-shift)/scale};
                sum -= log(scale);
                break;
            }
            case ElementwiseMap::Logit:
                // Its slope is at least 4.
                range = {-farthestLogit, farthestLogit};
                break;
            case ElementwiseMap::Logistic:
                sum -= max(abs(range.first), abs(range.second))+2*log(2.0);
                range = {0, 1};
                break;
            case ElementwiseMap::CircularShift:
                break;
        }
    }
    return sum;
}

double OpenMMFlow::logProbLowerBound(const Architecture& architecture) {
    double bound = 0;
    const vector<vector<Domain>> domains = coordinateDomains(architecture);
    // Bonds up to 1 nm, angles divided by pi, turns; what is of a block is whitened.
    vector<Range> ranges(architecture.numCoordinates(), {0, 1});
    fill(ranges.begin()+architecture.numBonds()+architecture.numAngles()+architecture.numTorsions(), ranges.end(),
            Range(-NORMAL_WIDTHS, NORMAL_WIDTHS));
    for (size_t l = 1; l < architecture.layers.size(); l++) {
        const Layer& layer = architecture.layers[l];
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer)) {
            bound += lowestLogDensity(*marginal, nullptr);
            for (int i : marginal->coordinates)
                ranges[i] = {0, 1};
        }
        else if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            bound += coupling->transformed.size()*lowestLogSlope(*coupling, domains[l-1], ranges);
        else if (const ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layer))
            bound += lowestLogSlope(*elementwise, ranges);
        else if (const PermutationLayer* permutation = get_if<PermutationLayer>(&layer)) {
            const vector<Range> before = ranges;
            for (size_t i = 0; i < ranges.size(); i++)
                ranges[i] = before[permutation->order[i]];
        }
    }
    for (const CoordinateDistributions& base : architecture.base)
        bound += lowestLogDensity(base, &ranges);
    // normalization of angles, torsions and orientation
    return bound-log(2*3.14159265358979323846)*(2*architecture.numParticles);
}
