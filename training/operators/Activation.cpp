// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/Operators.h"

#include "operators/Differentiable.h"
#include "operators/Lanes.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>

namespace OpenMMFlow {

using at::Tensor;

namespace {

enum class ActivationFunction { SiLU, Tanh, Sin, GELU, Softplus };

ActivationFunction activationFunction(c10::string_view type) {
    if (type == "silu") return ActivationFunction::SiLU;
    if (type == "tanh") return ActivationFunction::Tanh;
    if (type == "sin") return ActivationFunction::Sin;
    if (type == "gelu") return ActivationFunction::GELU;
    if (type == "softplus") return ActivationFunction::Softplus;
    TORCH_CHECK(false, "Unknown activation \"", type, "\"; known are silu, tanh, sin, gelu and softplus");
}

template <class Real>
typename Formulas<Real>::Activation evaluate(ActivationFunction function, const Real& x) {
    using Formula = Formulas<Real>;
    switch (function) {
        case ActivationFunction::SiLU: return Formula::activationSiLU(x);
        case ActivationFunction::Tanh: return Formula::activationTanh(x);
        case ActivationFunction::Sin: return Formula::activationSin(x);
        case ActivationFunction::GELU: return Formula::activationGELU(x);
        default: return Formula::activationSoftplus(x);
    }
}

/** Input x of any shape, output of the same shape. */
class ActivationOperator : public DifferentiableOperator {
public:
    explicit ActivationOperator(ActivationFunction function) : function(function) {
    }

    int numInputs() const override {
        return 1;
    }
    int numOutputs() const override {
        return 1;
    }

    Pair value(const Pair& inputs) const override {
        Tensor output = at::empty_like(inputs.first);
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "activation", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            scalar_t* y = output.data_ptr<scalar_t>();
            forEachLane<scalar_t>(1, inputs.first.numel(), [&](auto lane, int64_t, int64_t i) {
                using Real = decltype(lane);
                storeLane(y+i, evaluate(function, loadLane<Real>(x+i)).value);
            });
        });
        return {output, Tensor()};
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        Tensor output = at::empty_like(inputs.first);
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "activation", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* v = cotangents.first.const_data_ptr<scalar_t>();
            scalar_t* g = output.data_ptr<scalar_t>();
            forEachLane<scalar_t>(1, inputs.first.numel(), [&](auto lane, int64_t, int64_t i) {
                using Real = decltype(lane);
                storeLane(g+i, Real(loadLane<Real>(v+i)*evaluate(function, loadLane<Real>(x+i)).d1));
            });
        });
        return {output, Tensor()};
    }

    SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const override {
        SecondOrder result = {{at::empty_like(inputs.first), Tensor()}, {at::empty_like(inputs.first), Tensor()}};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "activation", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* xTangent = direction.first.const_data_ptr<scalar_t>();
            const scalar_t* v = cotangents.first.const_data_ptr<scalar_t>();
            scalar_t* g = result.gradientTangents.first.data_ptr<scalar_t>();
            scalar_t* y = result.outputTangents.first.data_ptr<scalar_t>();
            forEachLane<scalar_t>(1, inputs.first.numel(), [&](auto lane, int64_t, int64_t i) {
                using T = decltype(lane);
                auto a = evaluate(function, loadLane<Dual<T>>(x, xTangent, i));
                storeLane(g+i, T(loadLane<T>(v+i)*a.d1.tangent));
                storeLane(y+i, a.value.tangent);
            });
        });
        return result;
    }

private:
    ActivationFunction function;
};

} // namespace

c10::intrusive_ptr<DifferentiableOperator> makeActivation(c10::string_view type) {
    return c10::make_intrusive<ActivationOperator>(activationFunction(type));
}

Tensor activation(const Tensor& x, c10::string_view type) {
    TORCH_CHECK(x.device().is_cpu(), "activation runs on the CPU; move the module there");
    return applyOperator(makeActivation(type), {x, Tensor()}).first;
}

} // namespace OpenMMFlow
