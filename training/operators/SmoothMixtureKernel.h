// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_SMOOTHMIXTUREKERNEL_H_
#define OPENMMFLOW_SMOOTHMIXTUREKERNEL_H_

#include "formulas/Formulas.h"

#include <vector>

namespace OpenMMFlow {

/** The settings of a smooth mixture transformer: docs/model_format.md. */
struct SmoothMixtureSettings {
    bool published;
    int exponent;
    double alphaOffset, alphaRange, logSteepnessBound, minimumFloor;
};

/**
 * The smooth mixture transformer of one coordinate: head, components and their sum. Real is a scalar, a SIMD vector or a dual
 * number of either. The raw parameters are the blocks [weight | alpha | mu | ln sigma | floor], each of length K.
 */
template <class Real>
class SmoothMixtureKernel {
public:
    using Formula = Formulas<Real>;
    enum Block { Weight, Alpha, Mu, LogSigma, Floor, numBlocks };

    /** Keeps its room when it is configured again: an object can serve one transformer after the other. */
    void configure(const SmoothMixtureSettings& newSettings, size_t numComponents) {
        settings = newSettings;
        components.resize(numComponents);
    }

    /** raw(block, k) returns a raw parameter. Afterwards `y` and `density` = dy/dx hold the values. */
    template <class Raw>
    void evaluate(Real x, const Raw& raw, bool circular) {
        computeWeights(raw);
        computeCentres(raw, circular);
        y = (Real) 0;
        density = (Real) 0;
        for (size_t k = 0; k < components.size(); k++) {
            Component& c = components[k];
            c.alpha = Formula::headLogistic(raw(Alpha, k), (Real) settings.alphaOffset, (Real) settings.alphaRange);
            c.sigma = steepness(raw(LogSigma, k), circular);
            c.floor = Formula::headLogistic(raw(Floor, k), (Real) settings.minimumFloor, (Real) (1-settings.minimumFloor));
            c.ends = Formula::mixtureComponentEnds(c.mu.value, c.sigma.value, c.alpha.value, settings.exponent, circular);
            c.u = Formula::mixtureComponentArgument(x, c.mu.value, c.sigma.value, circular);
            c.winding = Formula::mixtureComponentWinding(x, c.mu.value, c.sigma.value, circular);
            c.sigmoid = Formula::smoothSigmoid(c.u, c.alpha.value, settings.exponent);
            c.value = Formula::mixtureComponent(x, c.sigma.value, c.floor.value, c.sigmoid, c.ends, c.winding);
            y = y+c.weight*c.value.value;
            density = density+c.weight*c.value.d1;
        }
    }

    /** There is no closed form. */
    template <class Raw>
    Real inverse(Real target, const Raw&, bool) const {
        return target;
    }

    /** After evaluate: d2y/dx2. */
    Real curvature() const {
        Real sum = (Real) 0;
        for (const Component& c : components)
            sum = sum+c.weight*c.value.d2;
        return sum;
    }

    /**
     * After evaluate: the gradient of Phi = vY y + vL ln(dy/dx). Returns dPhi/dx and calls write(block, k, dPhi/d raw).
     */
    template <class Write>
    Real gradient(Real x, Real vY, Real vL, bool circular, const Write& write) {
        const Real vDensity = vL/density;
        for (size_t k = 0; k < components.size(); k++) {
            Component& c = components[k];
            write(Weight, k, c.weight*(vY*(c.value.value-y)+vDensity*(c.value.d1-density)));
            auto g = Formula::mixtureComponentGradient(x, c.u, c.sigma.value, c.floor.value, c.sigmoid, c.ends, c.winding, circular,
                    vY*c.weight, vDensity*c.weight);
            write(Alpha, k, g.alpha*c.alpha.d1);
            write(LogSigma, k, g.sigma*c.sigma.d1);
            write(Floor, k, g.floor*c.floor.d1);
            c.vMu = g.mu;
        }
        if (settings.published)
            gradientOfCumulativeCentres(write);
        else
            for (size_t k = 0; k < components.size(); k++)
                write(Mu, k, components[k].vMu*components[k].mu.d1);
        return vY*density+vDensity*curvature();
    }

    Real y, density;

private:
    struct Component {
        Real weight;
        Real gap;     // published head: the softmax whose cumulative sum is mu
        Real vMu;
        typename Formula::HeadParameter alpha, mu, sigma, floor;
        typename Formula::MixtureComponentEnds ends;
        typename Formula::SmoothSigmoid sigmoid;
        typename Formula::MixtureComponent value;
        Real u, winding;
    };

    template <class Raw>
    void softmax(const Raw& raw, Block block, Real Component::*result) {
        Real largest = raw(block, 0);
        for (size_t k = 1; k < components.size(); k++)
            largest = select(largest < raw(block, k), Real(raw(block, k)), largest);
        Real sum = (Real) 0;
        for (size_t k = 0; k < components.size(); k++) {
            components[k].*result = exp(Real(raw(block, k)-largest));
            sum = sum+components[k].*result;
        }
        Real inverse = (Real) 1/sum;
        for (Component& c : components)
            c.*result = c.*result*inverse;
    }

    template <class Raw>
    void computeWeights(const Raw& raw) {
        softmax(raw, Weight, &Component::weight);
    }

    template <class Raw>
    void computeCentres(const Raw& raw, bool circular) {
        const double numComponents = (double) components.size();
        if (settings.published) {
            softmax(raw, Mu, &Component::gap);
            Real sum = (Real) 0;
            for (Component& c : components) {
                sum = sum+c.gap;
                c.mu.value = sum;
            }
            return;
        }
        for (size_t k = 0; k < components.size(); k++) {
            const Real prior = (Real) ((k+0.5)/numComponents);
            components[k].mu = circular ? Formula::headCentreOnCircle(raw(Mu, k), prior) : Formula::headCentreOnInterval(raw(Mu, k), prior);
        }
    }

    typename Formula::HeadParameter steepness(Real raw, bool circular) const {
        const double bound = settings.logSteepnessBound;
        if (!circular)
            return Formula::headSteepnessOnInterval(raw, (Real) bound, (Real) (settings.published ? 1.0 : 1.0/bound));
        if (!settings.published)
            return Formula::headSteepnessOnCircle(raw, (Real) bound);
        typename Formula::HeadParameter sigma;
        sigma.value = (Real) std::exp(bound/(1+std::exp(bound)));
        sigma.d1 = (Real) 0;
        return sigma;
    }

    /** mu_k is the sum of the gaps up to k, the gaps are a softmax. */
    template <class Write>
    void gradientOfCumulativeCentres(const Write& write) {
        Real vGap = (Real) 0;
        Real mean = (Real) 0;
        for (size_t k = components.size(); k-- > 0;) {
            vGap = vGap+components[k].vMu;
            components[k].vMu = vGap;
            mean = mean+components[k].gap*vGap;
        }
        for (size_t k = 0; k < components.size(); k++)
            write(Mu, k, components[k].gap*(components[k].vMu-mean));
    }

    SmoothMixtureSettings settings;
    std::vector<Component> components;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_SMOOTHMIXTUREKERNEL_H_
