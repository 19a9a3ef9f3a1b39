// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_PLACEMENTOPERATOR_H_
#define OPENMMFLOW_PLACEMENTOPERATOR_H_

#include "operators/CoordinateKernel.h"
#include "operators/Differentiable.h"
#include "operators/Lanes.h"

#include <ATen/Functions.h>

#include <utility>

namespace OpenMMFlow {

/**
 * The first layer of a flow as an operator: input positions (N, P, 3); outputs coordinates (rows, N) and ln|det J| (N).
 *
 * Layout knows numParticles() and numCoordinates(); Kernel is a CoordinateKernel of it.
 */
template <class Layout, template <class> class Kernel>
class PlacementOperator : public DifferentiableOperator {
public:
    explicit PlacementOperator(Layout layout) : layout(std::move(layout)) {
    }

    int numInputs() const override {
        return 1;
    }
    int numOutputs() const override {
        return 2;
    }

    Pair value(const Pair& inputs) const override {
        Pair outputs = emptyOutputs(inputs.first);
        const std::int64_t samples = inputs.first.size(0);
        double* coordinates = outputs.first.data_ptr<double>();
        double* logDet = outputs.second.data_ptr<double>();
        forEachGroup(samples, [&](auto lane, std::int64_t sample) {
            using Real = decltype(lane);
            auto& kernel = workspace<Real>();
            loadPositions(kernel, inputs.first, at::Tensor(), sample);
            kernel.evaluate();
            for (std::int64_t i = 0; i < layout.numCoordinates(); i++)
                storeLane(coordinates+i*samples+sample, kernel.coordinates[i]);
            storeLane(logDet+sample, kernel.logDet);
        });
        return outputs;
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        at::Tensor result = at::empty_like(inputs.first);
        forEachGroup(inputs.first.size(0), [&](auto lane, std::int64_t sample) {
            using Real = decltype(lane);
            auto& kernel = workspace<Real>();
            loadPositions(kernel, inputs.first, at::Tensor(), sample);
            loadCotangents(kernel, cotangents, sample, inputs.first.size(0));
            kernel.evaluate();
            storeGradient<Real>(result, sample, [&](std::int64_t atom) { return kernel.gradient[atom]; });
        });
        return {result, at::Tensor()};
    }

    SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const override {
        const std::int64_t samples = inputs.first.size(0);
        SecondOrder result = {{at::empty_like(inputs.first), at::Tensor()}, emptyOutputs(inputs.first)};
        double* coordinates = result.outputTangents.first.data_ptr<double>();
        double* logDet = result.outputTangents.second.data_ptr<double>();
        forEachGroup(samples, [&](auto lane, std::int64_t sample) {
            using T = decltype(lane);
            auto& kernel = workspace<Dual<T>>();
            loadPositions(kernel, inputs.first, direction.first, sample);
            loadCotangents(kernel, cotangents, sample, samples);
            kernel.evaluate();
            storeGradient<T>(result.gradientTangents.first, sample, [&](std::int64_t atom) {
                const auto& g = kernel.gradient[atom];
                return typename Formulas<T>::Vector{g.x.tangent, g.y.tangent, g.z.tangent};
            });
            for (std::int64_t i = 0; i < layout.numCoordinates(); i++)
                storeLane(coordinates+i*samples+sample, kernel.coordinates[i].tangent);
            storeLane(logDet+sample, kernel.logDet.tangent);
        });
        return result;
    }

private:
    Pair emptyOutputs(const at::Tensor& positions) const {
        const std::int64_t samples = positions.size(0);
        return {at::empty({layout.numCoordinates(), samples}, positions.options()), at::empty({samples}, positions.options())};
    }

    template <class Body>
    static void forEachGroup(std::int64_t samples, const Body& body) {
        forEachLane<double>(1, samples, [&](auto lane, std::int64_t, std::int64_t sample) {
            body(lane, sample);
        });
    }

    /** Room for the coordinates of one group of molecules, kept by each thread. */
    template <class Real>
    Kernel<Real>& workspace() const {
        thread_local Kernel<Real> kernel;
        kernel.configure(layout);
        return kernel;
    }

    std::int64_t stride() const {
        return 3*layout.numParticles();
    }

    template <class Real>
    void loadPositions(Kernel<Real>& kernel, const at::Tensor& positions, const at::Tensor& tangents, std::int64_t sample) const {
        const double* x = positions.const_data_ptr<double>()+sample*stride();
        const double* t = tangents.defined() ? tangents.const_data_ptr<double>()+sample*stride() : x;
        for (auto& position : kernel.positions) {
            position = {loadStrided<Real>(x, t, stride()), loadStrided<Real>(x+1, t+1, stride()), loadStrided<Real>(x+2, t+2, stride())};
            x += 3;
            t += 3;
        }
    }

    template <class Real>
    void loadCotangents(Kernel<Real>& kernel, const Pair& cotangents, std::int64_t sample, std::int64_t samples) const {
        using T = typename Tangent<Real>::Plain;
        const double* v = cotangents.first.const_data_ptr<double>();
        for (std::int64_t i = 0; i < layout.numCoordinates(); i++)
            kernel.vCoordinates[i] = constant<Real>(loadLane<T>(v+i*samples+sample));
        kernel.vLogDet = constant<Real>(loadLane<T>(cotangents.second.const_data_ptr<double>()+sample));
    }

    template <class T, class Gradient>
    void storeGradient(at::Tensor& result, std::int64_t sample, const Gradient& gradient) const {
        double* out = result.data_ptr<double>()+sample*stride();
        for (std::int64_t atom = 0; atom < layout.numParticles(); atom++, out += 3) {
            const auto g = gradient(atom);
            storeStrided<T>(out, stride(), g.x);
            storeStrided<T>(out+1, stride(), g.y);
            storeStrided<T>(out+2, stride(), g.z);
        }
    }

    Layout layout;
};

/** What Python hands over. Raises unless positions are (N, numParticles, 3) in double on the CPU; `name` is that of the operator. */
inline void checkPositions(const at::Tensor& positions, std::int64_t numParticles, const char* name) {
    TORCH_CHECK(positions.dim() == 3 && positions.size(1) == numParticles && positions.size(2) == 3,
            name, ": positions must have shape (N, ", numParticles, ", 3), got ", positions.sizes());
    TORCH_CHECK(positions.scalar_type() == at::kDouble && positions.device().is_cpu(),
            name, ": positions must be of type float64 on the CPU, got ", positions.scalar_type());
}

/** Rows of four from a flat list. */
inline std::vector<ZMatrixRow> zMatrixRows(at::IntArrayRef flat) {
    std::vector<ZMatrixRow> rows;
    for (std::size_t i = 0; i+3 < flat.size(); i += 4)
        rows.push_back({flat[i], flat[i+1], flat[i+2], flat[i+3]});
    return rows;
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_PLACEMENTOPERATOR_H_
