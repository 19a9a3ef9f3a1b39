// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COORDINATEMAPOPERATOR_H_
#define OPENMMFLOW_COORDINATEMAPOPERATOR_H_

#include "operators/Differentiable.h"
#include "operators/Lanes.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace OpenMMFlow {

/**
 * A map of each of D coordinates by itself: input x (D, N); outputs the coordinates that they become and ln of their derivatives, (D, N) each.
 *
 * Coordinate is one map; its evaluate(x) returns a MarginalValue of the formula text for any number type.
 */
template <class Coordinate>
class CoordinateMapOperator : public DifferentiableOperator {
public:
    explicit CoordinateMapOperator(std::vector<Coordinate> coordinates) : coordinates(std::move(coordinates)) {
    }

    int numInputs() const override {
        return 1;
    }
    int numOutputs() const override {
        return 2;
    }

    Pair value(const Pair& inputs) const override {
        Pair outputs = {at::empty_like(inputs.first), at::empty_like(inputs.first)};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "coordinate map", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            scalar_t* y = outputs.first.data_ptr<scalar_t>();
            scalar_t* logDensity = outputs.second.data_ptr<scalar_t>();
            const std::int64_t samples = inputs.first.size(1);
            forEachLane<scalar_t>(coordinates.size(), samples, [&](auto lane, std::int64_t d, std::int64_t sample) {
                using Real = decltype(lane);
                const std::int64_t at = d*samples+sample;
                auto m = coordinates[d].evaluate(loadLane<Real>(x+at));
                storeLane(y+at, m.value);
                storeLane(logDensity+at, m.logDensity);
            });
        });
        return outputs;
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        at::Tensor result = at::empty_like(inputs.first);
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "coordinate map", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* vY = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vL = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* g = result.data_ptr<scalar_t>();
            const std::int64_t samples = inputs.first.size(1);
            forEachLane<scalar_t>(coordinates.size(), samples, [&](auto lane, std::int64_t d, std::int64_t sample) {
                using Real = decltype(lane);
                const std::int64_t at = d*samples+sample;
                auto m = coordinates[d].evaluate(loadLane<Real>(x+at));
                storeLane(g+at, Real(loadLane<Real>(vY+at)*exp(m.logDensity)+loadLane<Real>(vL+at)*m.dLogDensity));
            });
        });
        return {result, at::Tensor()};
    }

    SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const override {
        SecondOrder result = {{at::empty_like(inputs.first), at::Tensor()}, {at::empty_like(inputs.first), at::empty_like(inputs.first)}};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "coordinate map", [&] {
            const scalar_t* x = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* xTangent = direction.first.const_data_ptr<scalar_t>();
            const scalar_t* vY = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vL = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* g = result.gradientTangents.first.data_ptr<scalar_t>();
            scalar_t* y = result.outputTangents.first.data_ptr<scalar_t>();
            scalar_t* logDensity = result.outputTangents.second.data_ptr<scalar_t>();
            const std::int64_t samples = inputs.first.size(1);
            forEachLane<scalar_t>(coordinates.size(), samples, [&](auto lane, std::int64_t d, std::int64_t sample) {
                using T = decltype(lane);
                const std::int64_t at = d*samples+sample;
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
    std::vector<Coordinate> coordinates;
};

/** One number for each of the coordinates from a tensor of shape (size); raises with the message `missing` if there are not as many. */
inline std::vector<double> coordinateValues(const std::optional<at::Tensor>& tensor, std::int64_t size, const std::string& missing) {
    TORCH_CHECK(tensor.has_value() && tensor->dim() == 1 && tensor->size(0) == size, missing, " with one value for each of the ", size,
            " coordinates");
    const at::Tensor values = tensor->detach().to(at::kCPU, at::kDouble).contiguous();
    const double* begin = values.const_data_ptr<double>();
    return std::vector<double>(begin, begin+size);
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COORDINATEMAPOPERATOR_H_
