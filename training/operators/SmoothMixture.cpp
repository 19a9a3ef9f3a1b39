// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/Operators.h"

#include "operators/Differentiable.h"
#include "operators/Lanes.h"
#include "operators/SmoothMixtureKernel.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>

namespace OpenMMFlow {

using at::Tensor;

namespace {

/** Inputs x (D, N) and raw (5, D, K, N); outputs y and ln|dy/dx|, (D, N) each. */
class SmoothMixtureOperator : public DifferentiableOperator {
public:
    SmoothMixtureOperator(const SmoothMixtureSettings& settings, std::vector<int64_t> circular) :
            settings(settings), circular(std::move(circular)) {
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
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            scalar_t* y = outputs.first.data_ptr<scalar_t>();
            scalar_t* logDensity = outputs.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(layout.coordinates, layout.samples, [&](auto lane, int64_t d, int64_t sample) {
                using Real = decltype(lane);
                auto& kernel = workspace<Real>(layout.components);
                const int64_t at = d*layout.samples+sample;
                kernel.evaluate(loadLane<Real>(x+at), [&](int block, int64_t k) {
                    return loadLane<Real>(raw+layout.raw(block, d, k)+sample);
                }, circular[d]);
                storeLane(y+at, kernel.y);
                storeLane(logDensity+at, Real(log(kernel.density)));
            });
        });
        return outputs;
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        Pair gradients = {at::empty_like(inputs.first), at::empty_like(inputs.second)};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "smooth_mixture", [&] {
            const Layout layout(inputs);
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            const scalar_t* vY = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vL = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* gX = gradients.first.data_ptr<scalar_t>();
            scalar_t* gRaw = gradients.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(layout.coordinates, layout.samples, [&](auto lane, int64_t d, int64_t sample) {
                using Real = decltype(lane);
                auto& kernel = workspace<Real>(layout.components);
                const int64_t at = d*layout.samples+sample;
                const Real position = loadLane<Real>(x+at);
                kernel.evaluate(position, [&](int block, int64_t k) {
                    return loadLane<Real>(raw+layout.raw(block, d, k)+sample);
                }, circular[d]);
                storeLane(gX+at, kernel.gradient(position, loadLane<Real>(vY+at), loadLane<Real>(vL+at), circular[d],
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
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            const scalar_t* xTangent = direction.first.const_data_ptr<scalar_t>();
            const scalar_t* rawTangent = direction.second.const_data_ptr<scalar_t>();
            const scalar_t* vY = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vL = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* gX = result.gradientTangents.first.data_ptr<scalar_t>();
            scalar_t* gRaw = result.gradientTangents.second.data_ptr<scalar_t>();
            scalar_t* y = result.outputTangents.first.data_ptr<scalar_t>();
            scalar_t* logDensity = result.outputTangents.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(layout.coordinates, layout.samples, [&](auto lane, int64_t d, int64_t sample) {
                using T = decltype(lane);
                using Real = Dual<T>;
                auto& kernel = workspace<Real>(layout.components);
                const int64_t at = d*layout.samples+sample;
                const Real position = loadLane<Real>(x, xTangent, at);
                kernel.evaluate(position, [&](int block, int64_t k) {
                    return loadLane<Real>(raw, rawTangent, layout.raw(block, d, k)+sample);
                }, circular[d]);
                const Real vYConstant(loadLane<T>(vY+at), (T) 0), vLConstant(loadLane<T>(vL+at), (T) 0);
                storeLane(gX+at, kernel.gradient(position, vYConstant, vLConstant, circular[d],
                        [&](int block, int64_t k, const Real& g) {
                    storeLane(gRaw+layout.raw(block, d, k)+sample, g.tangent);
                }).tangent);
                storeLane(y+at, kernel.y.tangent);
                storeLane(logDensity+at, T(kernel.density.tangent/kernel.density.value));
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

    /** Room for the components of one lane, kept by each thread. */
    template <class Real>
    SmoothMixtureKernel<Real>& workspace(int64_t components) const {
        thread_local SmoothMixtureKernel<Real> kernel;
        kernel.configure(settings, components);
        return kernel;
    }

    SmoothMixtureSettings settings;
    std::vector<int64_t> circular;
};

} // namespace

std::tuple<Tensor, Tensor> smoothMixture(const Tensor& x, const Tensor& raw, at::IntArrayRef circular, bool published,
        int64_t exponent, double alphaOffset, double alphaRange, double logSteepnessBound, double minimumFloor) {
    TORCH_CHECK(x.dim() == 2 && raw.dim() == 4 && raw.size(0) == 5 && raw.size(1) == x.size(0) && raw.size(3) == x.size(1),
            "smooth_mixture: x must have shape (D, N) and raw (5, D, K, N), got ", x.sizes(), " and ", raw.sizes());
    TORCH_CHECK(x.scalar_type() == raw.scalar_type(), "smooth_mixture: x is ", x.scalar_type(), " and raw is ", raw.scalar_type(),
            "; both must have one type");
    TORCH_CHECK(x.device().is_cpu() && raw.device().is_cpu(), "smooth_mixture runs on the CPU; move the module there");
    TORCH_CHECK((int64_t) circular.size() == x.size(0), "smooth_mixture: circular needs one entry for each of the ", x.size(0),
            " coordinates, got ", circular.size());
    TORCH_CHECK(exponent == 1 || exponent == 2, "smooth_mixture: exponent must be 1 or 2, got ", exponent);
    const SmoothMixtureSettings settings = {published, (int) exponent, alphaOffset, alphaRange, logSteepnessBound, minimumFloor};
    auto result = applyOperator(c10::make_intrusive<SmoothMixtureOperator>(settings, circular.vec()), {x, raw});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
