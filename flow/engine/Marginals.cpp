// SPDX-License-Identifier: MIT
#include "engine/Marginals.h"

#include <cmath>
#include <limits>

using namespace OpenMMFlow;
using namespace std;

using F = Formulas<double>;

static const double HALF_LOG_2PI = 0.91893853320467274178;

/** Value of a tensor that may be absent, as it is for a base density on [0,1]. */
static double valueOr(const Tensor& tensor, int index, double fallback) {
    return tensor.values.empty() ? fallback : tensor.values[index];
}

double Marginals::lowerEdge(const CoordinateDistributions& distributions, int index) {
    return distributions.distribution == Distribution::Normal ? -numeric_limits<double>::infinity() :
            valueOr(distributions.lower, index, 0);
}

double Marginals::upperEdge(const CoordinateDistributions& distributions, int index) {
    return distributions.distribution == Distribution::Normal ? numeric_limits<double>::infinity() :
            valueOr(distributions.upper, index, 1);
}

Marginals::Marginals(const CoordinateDistributions& source) :
        distribution(source.distribution), coordinates(source.coordinates) {
    for (int i = 0; i < static_cast<int>(coordinates.size()); i++) {
        const double lower = lowerEdge(source, i), upper = upperEdge(source, i);
        MarginalPlan::Parameters p = {};
        if (distribution == Distribution::Uniform) {
            p.lower = lower;
            p.inverseWidth = 1/(upper-lower);
            p.logInverseWidth = -log(upper-lower);
        }
        else {
            p.mean = source.mean.values[i];
            p.inverseStd = 1/source.std.values[i];
            p.cdfLower = F::standardNormalCdf((lower-p.mean)*p.inverseStd);
            p.inverseMass = 1/(F::standardNormalCdf((upper-p.mean)*p.inverseStd)-p.cdfLower);
            p.logNorm = log(p.inverseStd*p.inverseMass)-HALF_LOG_2PI;
        }
        parameters.push_back(p);
    }
}

MarginalPlan Marginals::plan() const {
    return {distribution == Distribution::Uniform ? MarginalPlan::Map::Uniform : MarginalPlan::Map::Normal, static_cast<int>(coordinates.size()), coordinates.data(), parameters.data()};
}

F::MarginalValue Marginals::evaluate(int index, double x) const {
    const MarginalPlan::Parameters& p = parameters[index];
    if (distribution == Distribution::Uniform)
        return F::uniformMarginal(x, p.lower, p.inverseWidth, p.logInverseWidth);
    return F::normalMarginal(x, p.mean, p.inverseStd, p.cdfLower, p.inverseMass, p.logNorm);
}

double Marginals::quantile(int index, double p) const {
    const MarginalPlan::Parameters& q = parameters[index];
    if (distribution == Distribution::Uniform)
        return q.lower+p/q.inverseWidth;
    // The tails are infinitely long; no sample lies beyond 37 standard deviations.
    const double cdf = min(max(q.cdfLower+p/q.inverseMass, 1e-300), 1-1e-16);
    return q.mean+F::standardNormalQuantile(cdf)/q.inverseStd;
}

void Marginals::sample(int M, double* x, double* logDet) const {
    for (size_t i = 0; i < coordinates.size(); i++)
        for (int m = 0; m < M; m++) {
            double& value = x[coordinates[i]*M+m];
            value = quantile(static_cast<int>(i), value);
            logDet[m] += evaluate(static_cast<int>(i), value).logDensity;
        }
}

void Marginals::sampleLatent(int M, double* latent) const {
    for (size_t i = 0; i < coordinates.size(); i++)
        for (int m = 0; m < M; m++)
            latent[coordinates[i]*M+m] = quantile(static_cast<int>(i), latent[coordinates[i]*M+m]);
}

void Marginals::addLogDensity(int M, const double* latent, double* logDensity) const {
    if (distribution == Distribution::Uniform)
        return;    // density 1 on [0,1]
    for (size_t i = 0; i < coordinates.size(); i++)
        for (int m = 0; m < M; m++)
            logDensity[m] += evaluate(static_cast<int>(i), latent[coordinates[i]*M+m]).logDensity;
}

void Marginals::addLogDensityGradient(int M, const double* latent, double* gradient) const {
    if (distribution == Distribution::Uniform)
        return;
    for (size_t i = 0; i < coordinates.size(); i++)
        for (int m = 0; m < M; m++)
            gradient[coordinates[i]*M+m] += evaluate(static_cast<int>(i), latent[coordinates[i]*M+m]).dLogDensity;
}
