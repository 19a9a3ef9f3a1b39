// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/Operators.h"

#include "operators/Differentiable.h"
#include "operators/Lanes.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>

#include <vector>

namespace OpenMMFlow {

using at::Tensor;

namespace {

/** The marginal of one coordinate, ready for evaluation. */
struct MarginalCoordinate {
    bool uniform;
    double lower, inverseWidth;
    double mean, inverseStd, cdfLower, inverseMass;
    double logNorm;

    template <class Real>
    typename Formulas<Real>::MarginalValue evaluate(const Real& x) const {
        if (uniform)
            return Formulas<Real>::uniformMarginal(x, (Real) lower, (Real) inverseWidth, (Real) logNorm);
        return Formulas<Real>::normalMarginal(x, (Real) mean, (Real) inverseStd, (Real) cdfLower, (Real) inverseMass, (Real) logNorm);
    }
};

MarginalCoordinate uniformCoordinate(double lower, double upper) {
    MarginalCoordinate c = {};
    c.uniform = true;
    c.lower = lower;
    c.inverseWidth = 1/(upper-lower);
    c.logNorm = -std::log(upper-lower);
    return c;
}

MarginalCoordinate normalCoordinate(double mean, double std, double cdfLower, double mass) {
    const double halfLogTwoPi = 0.91893853320467274;
    MarginalCoordinate c = {};
    c.uniform = false;
    c.mean = mean;
    c.inverseStd = 1/std;
    c.cdfLower = cdfLower;
    c.inverseMass = 1/mass;
    c.logNorm = -std::log(std)-halfLogTwoPi-std::log(mass);
    return c;
}

std::vector<double> coordinateValues(const std::optional<Tensor>& tensor, const char* name, c10::string_view distribution, int64_t size) {
    TORCH_CHECK(tensor.has_value() && tensor->dim() == 1 && tensor->size(0) == size,
            "marginal: distribution \"", distribution, "\" needs ", name, " with one value for each of the ", size, " coordinates");
    const Tensor values = tensor->detach().to(at::kCPU, at::kDouble).contiguous();
    const double* begin = values.const_data_ptr<double>();
    return std::vector<double>(begin, begin+size);
}

/** Input x (D, N); outputs the cumulative distribution and ln of the density, (D, N) each. */
class MarginalOperator : public DifferentiableOperator {
public:
    explicit MarginalOperator(std::vector<MarginalCoordinate> coordinates) : coordinates(std::move(coordinates)) {
    }

    int numInputs() const override {
        return 1;
    }
    int numOutputs() const override {
        return 2;
    }

    Pair value(const Pair& inputs) const override {
        Pair outputs = {at::empty_like(inputs.first), at::empty_like(inputs.first)};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "marginal", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            scalar_t* y = outputs.first.data_ptr<scalar_t>();
            scalar_t* logDensity = outputs.second.data_ptr<scalar_t>();
            const int64_t samples = inputs.first.size(1);
            forEachLane<scalar_t>(coordinates.size(), samples, [&](auto lane, int64_t d, int64_t sample) {
                using Real = decltype(lane);
                const int64_t at = d*samples+sample;
                auto m = coordinates[d].evaluate(loadLane<Real>(x+at));
                storeLane(y+at, m.value);
                storeLane(logDensity+at, m.logDensity);
            });
        });
        return outputs;
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        Tensor result = at::empty_like(inputs.first);
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "marginal", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* vY = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vL = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* g = result.data_ptr<scalar_t>();
            const int64_t samples = inputs.first.size(1);
            forEachLane<scalar_t>(coordinates.size(), samples, [&](auto lane, int64_t d, int64_t sample) {
                using Real = decltype(lane);
                const int64_t at = d*samples+sample;
                auto m = coordinates[d].evaluate(loadLane<Real>(x+at));
                storeLane(g+at, Real(loadLane<Real>(vY+at)*exp(m.logDensity)+loadLane<Real>(vL+at)*m.dLogDensity));
            });
        });
        return {result, Tensor()};
    }

    SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const override {
        SecondOrder result = {{at::empty_like(inputs.first), Tensor()}, {at::empty_like(inputs.first), at::empty_like(inputs.first)}};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "marginal", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* xTangent = direction.first.const_data_ptr<scalar_t>();
            const scalar_t* vY = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vL = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* g = result.gradientTangents.first.data_ptr<scalar_t>();
            scalar_t* y = result.outputTangents.first.data_ptr<scalar_t>();
            scalar_t* logDensity = result.outputTangents.second.data_ptr<scalar_t>();
            const int64_t samples = inputs.first.size(1);
            forEachLane<scalar_t>(coordinates.size(), samples, [&](auto lane, int64_t d, int64_t sample) {
                using T = decltype(lane);
                const int64_t at = d*samples+sample;
                auto m = coordinates[d].evaluate(loadLane<Dual<T>>(x, xTangent, at));
                const T density = exp(m.logDensity.value);
                storeLane(g+at, T(loadLane<T>(vY+at)*density*m.logDensity.tangent+loadLane<T>(vL+at)*m.dLogDensity.tangent));
                storeLane(y+at, m.value.tangent);
                storeLane(logDensity+at, m.logDensity.tangent);
            });
        });
        return result;
    }

private:
    std::vector<MarginalCoordinate> coordinates;
};

} // namespace

c10::intrusive_ptr<DifferentiableOperator> makeMarginal(int64_t size, c10::string_view distribution, const std::optional<Tensor>& lower,
        const std::optional<Tensor>& upper, const std::optional<Tensor>& mean, const std::optional<Tensor>& std) {
    std::vector<MarginalCoordinate> coordinates;
    auto values = [&](const std::optional<Tensor>& tensor, const char* name) {
        return coordinateValues(tensor, name, distribution, size);
    };
    if (distribution == "uniform") {
        const auto lowers = values(lower, "lower"), uppers = values(upper, "upper");
        for (int64_t d = 0; d < size; d++)
            coordinates.push_back(uniformCoordinate(lowers[d], uppers[d]));
    }
    else if (distribution == "normal") {
        const auto means = values(mean, "mean"), stds = values(std, "std");
        for (int64_t d = 0; d < size; d++)
            coordinates.push_back(normalCoordinate(means[d], stds[d], 0, 1));
    }
    else if (distribution == "truncatedNormal") {
        const auto means = values(mean, "mean"), stds = values(std, "std");
        const auto lowers = values(lower, "lower"), uppers = values(upper, "upper");
        for (int64_t d = 0; d < size; d++) {
            const double cdfLower = Formulas<double>::standardNormalCdf((lowers[d]-means[d])/stds[d]);
            const double cdfUpper = Formulas<double>::standardNormalCdf((uppers[d]-means[d])/stds[d]);
            coordinates.push_back(normalCoordinate(means[d], stds[d], cdfLower, cdfUpper-cdfLower));
        }
    }
    else
        TORCH_CHECK(false, "marginal: unknown distribution \"", distribution, "\"; known are uniform, normal and truncatedNormal");
    return c10::make_intrusive<MarginalOperator>(std::move(coordinates));
}

std::tuple<Tensor, Tensor> marginal(const Tensor& x, c10::string_view distribution, const std::optional<Tensor>& lower,
        const std::optional<Tensor>& upper, const std::optional<Tensor>& mean, const std::optional<Tensor>& std) {
    TORCH_CHECK(x.dim() == 2, "marginal: x must have shape (D, N), got ", x.sizes());
    TORCH_CHECK(x.device().is_cpu(), "marginal runs on the CPU; move the module there");
    auto result = applyOperator(makeMarginal(x.size(0), distribution, lower, upper, mean, std), {x, Tensor()});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
