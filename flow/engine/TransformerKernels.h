// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_TRANSFORMERKERNELS_H_
#define OPENMMFLOW_TRANSFORMERKERNELS_H_

#include "engine/CouplingKernels.h"

namespace OpenMMFlow {

/**
 * The transformers of formulas/Transformers.h along the flat axis of a coupling, all by one text. Parameters of a vector of
 * elements are gathered into an array of vectors, which the formulas work on.
 */
template <class V>
struct TransformerKernels {
    using K = Kernels<V>;
    using Real = typename V::value_type;
    using F = Formulas<V>;
    using Plan = CouplingPlan<Real>;
    using Segment = typename K::Segment;
    static constexpr int L = K::L;

    static typename F::TransformerSettings settings(const Plan& plan) {
        const TransformerPlan<Real>& t = plan.transformer;
        return {t.type, t.size, V(t.settings[0]), V(t.settings[1]), V(t.settings[2]), V(t.settings[3])};
    }

    /** Room for the parameters of a vector of elements, and for as many derivatives. */
    static V* scratch(const Plan& plan, Real* arena) {
        return reinterpret_cast<V*>(arena+plan.scratch);
    }

    static void forward(const Plan& plan, int M, bool withGradient, Real* arena, RootFinding& roots) {
        const typename F::TransformerSettings s = settings(plan);
        V* parameters = scratch(plan, arena);
        const std::size_t E = plan.paddedLength;
        Segment both[2];
        K::segments(plan, M, both);
        for (const Segment& segment : both) {
            const bool circular = segment.circular;
            const int numParameters = plan.transformer.numParameters[circular];
            const int* offsets = plan.transformer.offsets[circular];
            for (int start = 0; start < segment.length; start += L) {
                const int e = segment.padded+start;
                for (int i = 0; i < numParameters; i++)
                    parameters[i] = K::load(arena+plan.raw+offsets[i]*static_cast<std::size_t>(M)+start);
                F::transformerHead(s, circular, parameters);
                if (withGradient)
                    for (int i = 0; i < numParameters; i++)
                        K::store(arena+plan.transformer.parameters+i*E+e, parameters[i]);
                const V input = K::load(arena+plan.x+e);
                V x = (circular ? input-xsimd::floor(input) : input);
                if (plan.inverse)
                    x = inverse(plan, s, circular, x, parameters, roots);
                const typename F::TransformerValue value = F::transformerValue(s, circular, x, parameters);
                const V logSlope = xsimd::log(value.d1);
                K::store(arena+plan.x+e, x);
                const V y = (plan.inverse ? x : value.value);
                K::store(arena+plan.y+e, circular ? y-xsimd::floor(y) : plan.transformer.real ? y : clamp(y));
                K::store(arena+plan.logDerivative+e, plan.inverse ? -logSlope : logSlope);
                K::store(arena+plan.slope+e, value.d1);
                K::store(arena+plan.curvature+e, value.d2);
            }
        }
    }

    /** Rounding may leave [0,1]; nothing else does, and what is no number stays none. */
    static V clamp(V y) {
        const V one(Real(1)), tolerance(16*std::numeric_limits<Real>::epsilon());
        y = xsimd::select((y > one) & (y <= one+tolerance), one, y);
        return xsimd::select((y < V(Real(0))) & (y >= -tolerance), V(Real(0)), y);
    }

    /** The x at which F is y; no number outside of [0,1], unless the coordinate is real. */
    static V inverse(const Plan& plan, const typename F::TransformerSettings& s, bool circular, V y, V* parameters, RootFinding& roots) {
        if (plan.transformer.real)
            return F::transformerInverse(s, circular, y, parameters);
        // What is no number stays none; the padding of a row may hold anything.
        const auto isValue = (y >= V(Real(0))) & (y <= V(Real(1)));
        const V value = xsimd::select(isValue, y, V(Real(0.5)));
        const V x = (F::transformerHasInverse(s) ? F::transformerInverse(s, circular, value, parameters) :
                K::solve([&](V at) { return F::transformerValue(s, circular, at, parameters); }, value, roots));
        return xsimd::select(isValue, x, V(std::numeric_limits<Real>::quiet_NaN()));
    }

    /** dL/dy in `y`; leaves dL/dx in `x` and the raw parameters' gradient in compact rows. L has ln|dy/dx| as a term. */
    static void backward(const Plan& plan, int M, Real* arena) {
        const typename F::TransformerSettings s = settings(plan);
        V* parameters = scratch(plan, arena);
        V* gradient = parameters+plan.transformer.mostParameters;
        const std::size_t E = plan.paddedLength;
        Segment both[2];
        K::segments(plan, M, both);
        for (const Segment& segment : both) {
            const bool circular = segment.circular;
            const int numParameters = plan.transformer.numParameters[circular];
            for (int start = 0; start < segment.length; start += L) {
                const int e = segment.padded+start;
                const V yGradient = K::load(arena+plan.y+e), d1 = K::load(arena+plan.slope+e), d2 = K::load(arena+plan.curvature+e);
                const typename K::Cotangents v = K::cotangents(plan, yGradient, d1, d2);
                for (int i = 0; i < numParameters; i++)
                    parameters[i] = K::load(arena+plan.transformer.parameters+i*E+e);
                F::transformerGradient(s, circular, K::load(arena+plan.x+e), v.value, v.slope, parameters, gradient);
                for (int i = 0; i < numParameters; i++)
                    K::store(arena+plan.transformer.parameters+i*E+e, gradient[i]);
                K::store(arena+plan.x+e, v.x);
            }
        }
        // In ascending order, so that the padding of a row is overwritten by the next row.
        for (int i = 0; i < plan.transformer.numRows; i++) {
            const typename TransformerPlan<Real>::Row row = plan.transformer.rows[i];
            const Segment& segment = both[row.circular];
            Real* target = arena+plan.rawGradient+row.offset*static_cast<std::size_t>(M);
            const Real* source = arena+plan.transformer.parameters+row.parameter*E+segment.padded;
            for (int start = 0; start < segment.length; start += L)
                K::store(target+start, K::load(source+start));
        }
        // What follows the last row meets weights that are 0, and must be finite for it.
        K::store(arena+plan.rawGradient+plan.transformer.numOutputs*static_cast<std::size_t>(M), V(Real(0)));
    }
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TRANSFORMERKERNELS_H_
