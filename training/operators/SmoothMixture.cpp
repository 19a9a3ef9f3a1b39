// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/Operators.h"

#include "operators/Differentiable.h"
#include "operators/Lanes.h"
#include "operators/SmoothMixtureKernel.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>

#include <limits>

namespace OpenMMFlow {

using at::Tensor;

namespace {

/**
 * Inputs x (D, N) and raw (5, D, K, N); outputs y and ln|dy/dx|, (D, N) each.
 *
 * Inverse: inputs y and raw, outputs x and ln|dx/dy| at the root F(x) = y. Nothing is differentiated through the iterations; by the
 * inverse function theorem, with q = (vX - vL F''/F')/F',
 *     dPhi/dy = q,   dPhi/draw = -q dF/draw - vL d(ln F')/draw,
 * the latter is the gradient of the closed form at the root with cotangents -q and -vL.
 */
class SmoothMixtureOperator : public DifferentiableOperator {
public:
    SmoothMixtureOperator(const SmoothMixtureSettings& settings, std::vector<int64_t> circular, bool inverse) :
            settings(settings), circular(std::move(circular)), inverse(inverse) {
    }

    int numInputs() const override {
        return 2;
    }
    int numOutputs() const override {
        return 2;
    }

    Pair value(const Pair& inputs) const override {
        Pair outputs = {at::empty_like(inputs.first), at::empty_like(inputs.first)};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "smooth_mixture", [&] {
            const Layout layout(inputs);
            const scalar_t* input = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            scalar_t* output = outputs.first.data_ptr<scalar_t>();
            scalar_t* logDensity = outputs.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(layout.coordinates, layout.samples, [&](auto lane, int64_t d, int64_t sample) {
                using Real = decltype(lane);
                auto& kernel = workspace<Real>(layout.components);
                const int64_t at = d*layout.samples+sample;
                const Real argument = loadLane<Real>(input+at);
                const auto rawAt = [&](int block, int64_t k) {
                    return loadLane<Real>(raw+layout.raw(block, d, k)+sample);
                };
                if (inverse)
                    storeLane(output+at, evaluateAtRoot<scalar_t>(kernel, argument, rawAt, circular[d]));
                else {
                    kernel.evaluate(argument, rawAt, circular[d]);
                    storeLane(output+at, kernel.y);
                }
                const Real logSlope = log(kernel.density);
                storeLane(logDensity+at, inverse ? Real(-logSlope) : logSlope);
            });
        });
        return outputs;
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        Pair gradients = {at::empty_like(inputs.first), at::empty_like(inputs.second)};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "smooth_mixture", [&] {
            const Layout layout(inputs);
            const scalar_t* input = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            const scalar_t* vOutput = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vLog = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* gInput = gradients.first.data_ptr<scalar_t>();
            scalar_t* gRaw = gradients.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(layout.coordinates, layout.samples, [&](auto lane, int64_t d, int64_t sample) {
                using Real = decltype(lane);
                auto& kernel = workspace<Real>(layout.components);
                const int64_t at = d*layout.samples+sample;
                const Real argument = loadLane<Real>(input+at);
                const auto rawAt = [&](int block, int64_t k) {
                    return loadLane<Real>(raw+layout.raw(block, d, k)+sample);
                };
                Real x = argument;
                if (inverse)
                    x = evaluateAtRoot<scalar_t>(kernel, argument, rawAt, circular[d]);
                else
                    kernel.evaluate(x, rawAt, circular[d]);
                storeLane(gInput+at, gradientAt(kernel, x, loadLane<Real>(vOutput+at), loadLane<Real>(vLog+at), circular[d],
                        [&](int block, int64_t k, const Real& g) {
                    storeLane(gRaw+layout.raw(block, d, k)+sample, g);
                }));
            });
        });
        return gradients;
    }

    SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const override {
        SecondOrder result = {{at::empty_like(inputs.first), at::empty_like(inputs.second)},
                              {at::empty_like(inputs.first), at::empty_like(inputs.first)}};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "smooth_mixture", [&] {
            const Layout layout(inputs);
            const scalar_t* input = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            const scalar_t* inputTangent = direction.first.const_data_ptr<scalar_t>();
            const scalar_t* rawTangent = direction.second.const_data_ptr<scalar_t>();
            const scalar_t* vOutput = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vLog = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* gInput = result.gradientTangents.first.data_ptr<scalar_t>();
            scalar_t* gRaw = result.gradientTangents.second.data_ptr<scalar_t>();
            scalar_t* output = result.outputTangents.first.data_ptr<scalar_t>();
            scalar_t* logDensity = result.outputTangents.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(layout.coordinates, layout.samples, [&](auto lane, int64_t d, int64_t sample) {
                using T = decltype(lane);
                using Real = Dual<T>;
                auto& kernel = workspace<Real>(layout.components);
                const int64_t at = d*layout.samples+sample;
                const Real argument = loadLane<Real>(input, inputTangent, at);
                const auto rawAt = [&](int block, int64_t k) {
                    return loadLane<Real>(raw, rawTangent, layout.raw(block, d, k)+sample);
                };
                Real x = argument;
                if (inverse) {
                    const T root = evaluateAtRoot<scalar_t>(workspace<T>(layout.components), argument.value, [&](int block, int64_t k) {
                        return loadLane<T>(raw+layout.raw(block, d, k)+sample);
                    }, circular[d]);
                    // dx = (dy - dF at fixed x)/F'
                    kernel.evaluate(Real(root, (T) 0), rawAt, circular[d]);
                    x = Real(root, (argument.tangent-kernel.y.tangent)/kernel.density.value);
                }
                kernel.evaluate(x, rawAt, circular[d]);
                const Real vOutputConstant(loadLane<T>(vOutput+at), (T) 0), vLogConstant(loadLane<T>(vLog+at), (T) 0);
                storeLane(gInput+at, gradientAt(kernel, x, vOutputConstant, vLogConstant, circular[d],
                        [&](int block, int64_t k, const Real& g) {
                    storeLane(gRaw+layout.raw(block, d, k)+sample, g.tangent);
                }).tangent);
                const T logSlope = kernel.density.tangent/kernel.density.value;
                storeLane(output+at, inverse ? x.tangent : kernel.y.tangent);
                storeLane(logDensity+at, inverse ? T(-logSlope) : logSlope);
            });
        });
        return result;
    }

private:
    struct Layout {
        explicit Layout(const Pair& inputs) :
                coordinates(inputs.first.size(0)), samples(inputs.first.size(1)), components(inputs.second.size(2)) {
        }
        int64_t raw(int block, int64_t coordinate, int64_t component) const {
            return ((block*coordinates+coordinate)*components+component)*samples;
        }
        int64_t coordinates, samples, components;
    };

    /**
     * The root x of F(x) = y, and the kernel evaluated there: Newton's method in a bracket that starts as [0,1], bisection where it
     * leaves the bracket and, after a while, every other step, which bounds the number of steps.
     */
    template <class Scalar, class Real, class Raw>
    static Real evaluateAtRoot(SmoothMixtureKernel<Real>& kernel, const Real& y, const Raw& raw, bool circular) {
        const int newtonSteps = 30, maxSteps = newtonSteps+2*std::numeric_limits<Scalar>::digits;
        const Real tolerance = (Real) std::numeric_limits<Scalar>::epsilon();
        Real low = (Real) 0, high = (Real) 1, x = y;
        for (int step = 0; step < maxSteps; step++) {
            kernel.evaluate(x, raw, circular);
            const Real residual = kernel.y-y;
            low = select(residual < (Real) 0, x, low);
            high = select(residual < (Real) 0, high, x);
            const Real middle = (Real) 0.5*(low+high);
            Real next = x-residual/kernel.density;
            next = select(next < low, middle, next);
            next = select(next > high, middle, next);
            if (step > newtonSteps && step%2 == 0)
                next = middle;
            const Real change = abs(next-x);
            x = next;
            if (!anyLane(change > tolerance))
                break;
        }
        kernel.evaluate(x, raw, circular);
        return x;
    }

    /** With the kernel evaluated at x: the gradient of Phi with respect to the input; write receives that for the raw parameters. */
    template <class Real, class Write>
    Real gradientAt(SmoothMixtureKernel<Real>& kernel, const Real& x, const Real& vOutput, const Real& vLog, bool isCircle,
            const Write& write) const {
        if (!inverse)
            return kernel.gradient(x, vOutput, vLog, isCircle, write);
        const Real q = (vOutput-vLog*kernel.curvature()/kernel.density)/kernel.density;
        kernel.gradient(x, Real(-q), Real(-vLog), isCircle, write);
        return q;
    }

    /** Room for the components of one lane, kept by each thread. */
    template <class Real>
    SmoothMixtureKernel<Real>& workspace(int64_t components) const {
        thread_local SmoothMixtureKernel<Real> kernel;
        kernel.configure(settings, components);
        return kernel;
    }

    SmoothMixtureSettings settings;
    std::vector<int64_t> circular;
    bool inverse;
};

} // namespace

c10::intrusive_ptr<DifferentiableOperator> makeSmoothMixture(at::IntArrayRef circular, bool inverse, bool published, int64_t exponent,
        double alphaOffset, double alphaRange, double logSteepnessBound, double minimumFloor) {
    TORCH_CHECK(exponent == 1 || exponent == 2, "smooth_mixture: exponent must be 1 or 2, got ", exponent);
    const SmoothMixtureSettings settings = {published, (int) exponent, alphaOffset, alphaRange, logSteepnessBound, minimumFloor};
    return c10::make_intrusive<SmoothMixtureOperator>(settings, circular.vec(), inverse);
}

std::tuple<Tensor, Tensor> smoothMixture(const Tensor& x, const Tensor& raw, at::IntArrayRef circular, bool inverse,
        bool published, int64_t exponent, double alphaOffset, double alphaRange, double logSteepnessBound, double minimumFloor) {
    TORCH_CHECK(x.dim() == 2 && raw.dim() == 4 && raw.size(0) == 5 && raw.size(1) == x.size(0) && raw.size(3) == x.size(1),
            "smooth_mixture: x must have shape (D, N) and raw (5, D, K, N), got ", x.sizes(), " and ", raw.sizes());
    TORCH_CHECK(x.scalar_type() == raw.scalar_type(), "smooth_mixture: x is ", x.scalar_type(), " and raw is ", raw.scalar_type(),
            "; both must have one type");
    TORCH_CHECK(x.device().is_cpu() && raw.device().is_cpu(), "smooth_mixture runs on the CPU; move the module there");
    TORCH_CHECK((int64_t) circular.size() == x.size(0), "smooth_mixture: circular needs one entry for each of the ", x.size(0),
            " coordinates, got ", circular.size());
    auto result = applyOperator(makeSmoothMixture(circular, inverse, published, exponent, alphaOffset, alphaRange, logSteepnessBound,
            minimumFloor), {x, raw});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
