// SPDX-License-Identifier: MIT
#include "engine/LogProbBound.h"
#include "engine/Marginals.h"

#include <algorithm>
#include <cmath>

using namespace OpenMMFlow;
using namespace std;

/** Smallest log density within the support, normal distributions within 8 standard deviations. */
static double lowestLogDensity(const CoordinateDistributions& distributions) {
    const Marginals marginals(distributions);
    double sum = 0;
    for (size_t i = 0; i < distributions.coordinates.size(); i++) {
        double edges[2] = {Marginals::lowerEdge(distributions, i), Marginals::upperEdge(distributions, i)};
        if (distributions.distribution == Distribution::Normal) {
            edges[0] = distributions.mean.values[i]-8*distributions.std.values[i];
            edges[1] = distributions.mean.values[i]+8*distributions.std.values[i];
        }
        sum += min(marginals.evaluate(i, edges[0]).logDensity, marginals.evaluate(i, edges[1]).logDensity);
    }
    return sum;
}

double OpenMMFlow::logProbLowerBound(const Architecture& architecture) {
    double bound = 0;
    for (const Layer& layer : architecture.layers) {
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            bound += lowestLogDensity(*marginal);
        else if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            bound += coupling->transformed.size()*log(coupling->transformer.minimumFloor);
    }
    for (const CoordinateDistributions& base : architecture.base)
        bound += lowestLogDensity(base);
    // normalization of angles, torsions and orientation
    return bound-log(2*3.14159265358979323846)*(2*architecture.numParticles);
}
