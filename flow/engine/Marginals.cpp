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
        Parameters p = {};
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

Marginals::State Marginals::createState() const {
    State state;
    state.values.resize(coordinates.size());
    return state;
}

F::MarginalValue Marginals::evaluate(int index, double x) const {
    const Parameters& p = parameters[index];
    if (distribution == Distribution::Uniform)
        return F::uniformMarginal(x, p.lower, p.inverseWidth, p.logInverseWidth);
    return F::normalMarginal(x, p.mean, p.inverseStd, p.cdfLower, p.inverseMass, p.logNorm);
}

double Marginals::forward(double* q, State& state) const {
    double logDet = 0;
    for (size_t i = 0; i < coordinates.size(); i++) {
        F::MarginalValue& m = state.values[i];
        m = evaluate(static_cast<int>(i), q[coordinates[i]]);
        if (!(m.value >= 0 && m.value <= 1))
            return -numeric_limits<double>::infinity();
        q[coordinates[i]] = m.value;
        logDet += m.logDensity;
    }
    return logDet;
}

void Marginals::backward(double* gradient, const State& state) const {
    for (size_t i = 0; i < coordinates.size(); i++) {
        const F::MarginalValue& m = state.values[i];
        double& g = gradient[coordinates[i]];
        g = g*exp(m.logDensity)+m.dLogDensity;
    }
}

double Marginals::logDensity(const double* latent, double* gradient) const {
    double sum = 0;
    for (size_t i = 0; i < coordinates.size(); i++) {
        F::MarginalValue m = evaluate(static_cast<int>(i), latent[coordinates[i]]);
        sum += m.logDensity;
        if (gradient != nullptr)
            gradient[coordinates[i]] += m.dLogDensity;
    }
    return sum;
}
