// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/Operators.h"

#include "operators/Differentiable.h"
#include "operators/InternalCoordinatesKernel.h"
#include "operators/Lanes.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <stdexcept>

namespace OpenMMFlow {

using at::Tensor;

ZMatrix::ZMatrix(const std::vector<Row>& rows, bool frameMeasure) : second(), third(), frameMeasure(frameMeasure) {
    int count[4] = {0, 0, 0, 0};
    for (const Row& row : rows) {
        const auto missing = std::count(row.begin(), row.end(), -1);
        if (missing < 4)
            count[missing]++;
        if (missing == 0)
            full.push_back(row);
        else if (missing == 1)
            third = row;
        else if (missing == 2)
            second = row;
        for (size_t i = 0; i < row.size(); i++)
            if (row[i] >= (std::int64_t) rows.size() || row[i] < -1 || (row[i] == -1) != (i >= row.size()-missing))
                throw std::invalid_argument("a row of the Z-matrix names particles that do not exist");
    }
    if (count[1] != 1 || count[2] != 1 || count[3] != 1)
        throw std::invalid_argument("a Z-matrix needs one row each with three, two and one entries of -1");
}

namespace {

/** Input positions (N, P, 3); outputs coordinates (3P-6, N) and ln|det J| (N). */
class InternalCoordinatesOperator : public DifferentiableOperator {
public:
    explicit InternalCoordinatesOperator(ZMatrix zMatrix) : zMatrix(std::move(zMatrix)) {
    }

    int numInputs() const override {
        return 1;
    }
    int numOutputs() const override {
        return 2;
    }

    Pair value(const Pair& inputs) const override {
        Pair outputs = emptyOutputs(inputs.first);
        const int64_t samples = inputs.first.size(0);
        double* coordinates = outputs.first.data_ptr<double>();
        double* logDet = outputs.second.data_ptr<double>();
        forEachGroup(samples, [&](auto lane, int64_t sample) {
            using Real = decltype(lane);
            auto& kernel = workspace<Real>();
            loadPositions(kernel, inputs.first, Tensor(), sample);
            kernel.evaluate();
            for (int64_t i = 0; i < zMatrix.numCoordinates(); i++)
                storeLane(coordinates+i*samples+sample, kernel.coordinates[i]);
            storeLane(logDet+sample, kernel.logDet);
        });
        return outputs;
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        Tensor result = at::empty_like(inputs.first);
        forEachGroup(inputs.first.size(0), [&](auto lane, int64_t sample) {
            using Real = decltype(lane);
            auto& kernel = workspace<Real>();
            loadPositions(kernel, inputs.first, Tensor(), sample);
            loadCotangents(kernel, cotangents, sample, inputs.first.size(0));
            kernel.evaluate();
            storeGradient<Real>(result, sample, [&](int64_t atom) { return kernel.gradient[atom]; });
        });
        return {result, Tensor()};
    }

    SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const override {
        const int64_t samples = inputs.first.size(0);
        SecondOrder result = {{at::empty_like(inputs.first), Tensor()}, emptyOutputs(inputs.first)};
        double* coordinates = result.outputTangents.first.data_ptr<double>();
        double* logDet = result.outputTangents.second.data_ptr<double>();
        forEachGroup(samples, [&](auto lane, int64_t sample) {
            using T = decltype(lane);
            auto& kernel = workspace<Dual<T>>();
            loadPositions(kernel, inputs.first, direction.first, sample);
            loadCotangents(kernel, cotangents, sample, samples);
            kernel.evaluate();
            storeGradient<T>(result.gradientTangents.first, sample, [&](int64_t atom) {
                const auto& g = kernel.gradient[atom];
                return typename Formulas<T>::Vector{g.x.tangent, g.y.tangent, g.z.tangent};
            });
            for (int64_t i = 0; i < zMatrix.numCoordinates(); i++)
                storeLane(coordinates+i*samples+sample, kernel.coordinates[i].tangent);
            storeLane(logDet+sample, kernel.logDet.tangent);
        });
        return result;
    }

private:
    Pair emptyOutputs(const Tensor& positions) const {
        const int64_t samples = positions.size(0);
        return {at::empty({zMatrix.numCoordinates(), samples}, positions.options()), at::empty({samples}, positions.options())};
    }

    template <class Body>
    static void forEachGroup(int64_t samples, const Body& body) {
        forEachLane<double>(1, samples, [&](auto lane, int64_t, int64_t sample) {
            body(lane, sample);
        });
    }

    /** Room for the coordinates of one group of molecules, kept by each thread. */
    template <class Real>
    InternalCoordinatesKernel<Real>& workspace() const {
        thread_local InternalCoordinatesKernel<Real> kernel;
        kernel.configure(zMatrix);
        return kernel;
    }

    int64_t stride() const {
        return 3*zMatrix.numParticles();
    }

    template <class Real>
    void loadPositions(InternalCoordinatesKernel<Real>& kernel, const Tensor& positions, const Tensor& tangents, int64_t sample) const {
        const double* x = positions.const_data_ptr<double>()+sample*stride();
        const double* t = tangents.defined() ? tangents.const_data_ptr<double>()+sample*stride() : x;
        for (auto& position : kernel.positions) {
            position = {loadStrided<Real>(x, t, stride()), loadStrided<Real>(x+1, t+1, stride()), loadStrided<Real>(x+2, t+2, stride())};
            x += 3;
            t += 3;
        }
    }

    template <class Real>
    void loadCotangents(InternalCoordinatesKernel<Real>& kernel, const Pair& cotangents, int64_t sample, int64_t samples) const {
        using T = typename Tangent<Real>::Plain;
        const double* v = cotangents.first.const_data_ptr<double>();
        for (int64_t i = 0; i < zMatrix.numCoordinates(); i++)
            kernel.vCoordinates[i] = constant<Real>(loadLane<T>(v+i*samples+sample));
        kernel.vLogDet = constant<Real>(loadLane<T>(cotangents.second.const_data_ptr<double>()+sample));
    }

    template <class T, class Gradient>
    void storeGradient(Tensor& result, int64_t sample, const Gradient& gradient) const {
        double* out = result.data_ptr<double>()+sample*stride();
        for (int64_t atom = 0; atom < zMatrix.numParticles(); atom++, out += 3) {
            const auto g = gradient(atom);
            storeStrided<T>(out, stride(), g.x);
            storeStrided<T>(out+1, stride(), g.y);
            storeStrided<T>(out+2, stride(), g.z);
        }
    }

    ZMatrix zMatrix;
};

} // namespace

c10::intrusive_ptr<DifferentiableOperator> makeInternalCoordinates(at::IntArrayRef zMatrix, bool frame) {
    TORCH_CHECK(zMatrix.size()%4 == 0 && zMatrix.size() >= 12, "internal_coordinates: the Z-matrix must have rows of four, got ",
            zMatrix.size(), " numbers");
    std::vector<ZMatrix::Row> rows;
    for (size_t row = 0; row < zMatrix.size(); row += 4)
        rows.push_back({zMatrix[row], zMatrix[row+1], zMatrix[row+2], zMatrix[row+3]});
    return c10::make_intrusive<InternalCoordinatesOperator>(ZMatrix(rows, frame));
}

std::tuple<Tensor, Tensor> internalCoordinates(const Tensor& positions, at::IntArrayRef zMatrix, bool frame) {
    const auto op = makeInternalCoordinates(zMatrix, frame);
    const int64_t numParticles = zMatrix.size()/4;
    TORCH_CHECK(positions.dim() == 3 && positions.size(1) == numParticles && positions.size(2) == 3,
            "internal_coordinates: positions must have shape (N, ", numParticles, ", 3), got ", positions.sizes());
    TORCH_CHECK(positions.scalar_type() == at::kDouble && positions.device().is_cpu(),
            "internal_coordinates: positions must be of type float64 on the CPU, got ", positions.scalar_type());
    auto result = applyOperator(op, {positions, Tensor()});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
