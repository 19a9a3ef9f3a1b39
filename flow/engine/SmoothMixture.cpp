// SPDX-License-Identifier: MIT
#include "engine/SmoothMixture.h"

#include <algorithm>
#include <cmath>

using namespace OpenMMFlow;
using namespace std;

using F = Formulas<double>;

SmoothMixture::SmoothMixture(const SmoothMixtureTransformer& description, const vector<Domain>& domains) :
        description(description) {
    for (Domain domain : domains)
        circular.push_back(domain == Domain::Circle);
}

SmoothMixture::State SmoothMixture::createState() const {
    State state;
    state.components.resize(circular.size()*description.components);
    state.argument.resize(circular.size());
    state.mixture.resize(circular.size());
    return state;
}

int SmoothMixture::getNumRawParameters() const {
    return 5*getNumCoordinates()*description.components;
}

/** Numerically stable softmax of values[0..n), written through a member access. */
template <class Write>
static void softmax(const double* values, int n, Write write) {
    double largest = *max_element(values, values+n);
    double sum = 0;
    for (int k = 0; k < n; k++)
        sum += exp(values[k]-largest);
    for (int k = 0; k < n; k++)
        write(k, exp(values[k]-largest)/sum);
}

void SmoothMixture::evaluateHead(int coordinate, const double* raw, Component* components) const {
    const int K = description.components;
    const int block = getNumCoordinates()*K;
    const double* row = raw+coordinate*K;
    const double* centres = row+2*block;
    softmax(row, K, [&](int k, double share) { components[k].weight = share; });
    if (description.head == MixtureHead::Published)
        softmax(centres, K, [&](int k, double share) { components[k].centreShare = share; });
    double centre = 0;
    for (int k = 0; k < K; k++) {
        Component& c = components[k];
        c.alpha = F::headLogistic(row[block+k], description.alphaOffset, description.alphaRange);
        c.floor = F::headLogistic(row[4*block+k], description.minimumFloor, 1-description.minimumFloor);
        double rawSteepness = row[3*block+k];
        double prior = (k+0.5)/K;
        if (description.head == MixtureHead::Published) {
            centre += c.centreShare;
            c.mu = centre;
            if (circular[coordinate]) {
                c.sigma = F::headSteepnessOnCircle(-description.logSteepnessBound, description.logSteepnessBound);
                c.sigma.d1 = 0;
            }
            else
                c.sigma = F::headSteepnessOnInterval(rawSteepness, description.logSteepnessBound, 1);
        }
        else if (circular[coordinate]) {
            c.mu = prior+centres[k];
            c.dMu = 1;
            c.sigma = F::headSteepnessOnCircle(rawSteepness, description.logSteepnessBound);
        }
        else {
            F::HeadParameter mu = F::headCentreOnInterval(centres[k], prior);
            c.mu = mu.value;
            c.dMu = mu.d1;
            c.sigma = F::headSteepnessOnInterval(rawSteepness, description.logSteepnessBound, 1/description.logSteepnessBound);
        }
        c.ends = F::mixtureComponentEnds(c.mu, c.sigma.value, c.alpha.value, description.exponent, circular[coordinate]);
    }
}

F::MixtureComponent SmoothMixture::evaluateMixture(int coordinate, double x, Component* components) const {
    F::MixtureComponent sum = {0, 0, 0};
    for (int k = 0; k < description.components; k++) {
        Component& c = components[k];
        c.argument = F::mixtureComponentArgument(x, c.mu, c.sigma.value, circular[coordinate]);
        c.winding = F::mixtureComponentWinding(x, c.mu, c.sigma.value, circular[coordinate]);
        c.sigmoid = F::smoothSigmoid(c.argument, c.alpha.value, description.exponent);
        c.value = F::mixtureComponent(x, c.sigma.value, c.floor.value, c.sigmoid, c.ends, c.winding);
        sum.value += c.weight*c.value.value;
        sum.d1 += c.weight*c.value.d1;
        sum.d2 += c.weight*c.value.d2;
    }
    return sum;
}

/**
 * The root x of F(x) = y in [0,1] by Newton's method within a bracket, bisecting wherever a step leaves the bracket or does not
 * halve the residual. F is strictly increasing with F(0) = 0 and F(1) = 1, so the bracket always holds the root.
 */
double SmoothMixture::solve(int coordinate, double y, Component* components, F::MixtureComponent& mixture) const {
    double low = 0, high = 1;
    double x = y;
    double lastResidual = 2;
    // 2^-60 of the bracket is reached by bisection alone.
    for (int iteration = 0; iteration < 128; iteration++) {
        mixture = evaluateMixture(coordinate, x, components);
        double residual = mixture.value-y;
        if (residual == 0)
            break;
        (residual > 0 ? high : low) = x;
        double next = x-residual/mixture.d1;
        if (!(next > low && next < high) || abs(residual) > 0.5*abs(lastResidual))
            next = (abs(next-x) < 4e-16 ? x : 0.5*(low+high));
        if (next == x || high-low < 1e-17)
            break;
        lastResidual = residual;
        x = next;
    }
    return x;
}

double SmoothMixture::forward(const double* x, const double* raw, double* y, State& state) const {
    double logDerivative = 0;
    for (int d = 0; d < getNumCoordinates(); d++) {
        Component* components = &state.components[d*description.components];
        evaluateHead(d, raw, components);
        if (description.closedForm == Direction::Density) {
            state.argument[d] = x[d];
            state.mixture[d] = evaluateMixture(d, x[d], components);
            y[d] = state.mixture[d].value;
            logDerivative += log(state.mixture[d].d1);
        }
        else {
            // Outside of [0,1], where rounding or another turn of a circle may lie, F continues periodically up to whole turns.
            double turns = floor(x[d]);
            double within = x[d]-turns;
            if (x[d] == 1) {
                within = 1;
                turns = 0;
            }
            state.argument[d] = solve(d, within, components, state.mixture[d]);
            y[d] = state.argument[d]+turns;
            logDerivative -= log(state.mixture[d].d1);
        }
    }
    return logDerivative;
}

void SmoothMixture::backward(const double* yGradient, double* xGradient, double* rawGradient, const State& state) const {
    const int K = description.components;
    const int block = getNumCoordinates()*K;
    for (int d = 0; d < getNumCoordinates(); d++) {
        const Component* components = &state.components[d*K];
        const F::MixtureComponent& mixture = state.mixture[d];
        const double x = state.argument[d];
        // vF and vD: derivatives of L with respect to F and F' at fixed x.
        double vF, vD;
        if (description.closedForm == Direction::Density) {
            vF = yGradient[d];
            vD = 1/mixture.d1;
            xGradient[d] = vF*mixture.d1+vD*mixture.d2;
        }
        else {
            // Inverse function theorem at the root: dy/dx = 1/F', dy/dtheta = -F_theta/F', ln|dy/dx| = -ln F'.
            double total = yGradient[d]-mixture.d2/mixture.d1;
            xGradient[d] = total/mixture.d1;
            vF = -xGradient[d];
            vD = -1/mixture.d1;
        }
        double* row = rawGradient+d*K;
        double meanWeightGradient = 0;
        for (int k = 0; k < K; k++) {
            const Component& c = components[k];
            double weightGradient = vF*c.value.value+vD*c.value.d1;
            meanWeightGradient += c.weight*weightGradient;
            row[k] = weightGradient;
            F::MixtureComponentGradient g = F::mixtureComponentGradient(x, c.argument, c.sigma.value, c.floor.value, c.sigmoid,
                    c.ends, c.winding, circular[d], vF, vD);
            row[block+k] = c.weight*g.alpha*c.alpha.d1;
            row[2*block+k] = c.weight*g.mu*c.dMu;
            row[3*block+k] = c.weight*g.sigma*c.sigma.d1;
            row[4*block+k] = c.weight*g.floor*c.floor.d1;
            if (description.head == MixtureHead::Published)
                row[2*block+k] = c.weight*g.mu;
        }
        for (int k = 0; k < K; k++)
            row[k] = components[k].weight*(row[k]-meanWeightGradient);
        if (description.head == MixtureHead::Published) {
            // mu_k = share_0+...+share_k, share = softmax(raw)
            double* centres = row+2*block;
            for (int k = K-2; k >= 0; k--)
                centres[k] += centres[k+1];
            double mean = 0;
            for (int k = 0; k < K; k++)
                mean += components[k].centreShare*centres[k];
            for (int k = 0; k < K; k++)
                centres[k] = components[k].centreShare*(centres[k]-mean);
        }
    }
}

double SmoothMixture::getLowerBound() const {
    return getNumCoordinates()*log(description.minimumFloor);
}
