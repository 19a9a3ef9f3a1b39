// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/Operators.h"

#include "operators/Differentiable.h"
#include "operators/Dual.h"
#include "operators/InternalCoordinatesKernel.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

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
        const int64_t samples = inputs.first.size(0);
        Pair outputs = emptyOutputs(inputs.first);
        double* coordinates = outputs.first.data_ptr<double>();
        double* logDet = outputs.second.data_ptr<double>();
        forEachMolecule<double>(samples, [&](InternalCoordinatesKernel<double>& kernel, int64_t sample) {
            loadPositions(kernel, inputs.first, Tensor(), sample);
            kernel.evaluate();
            for (int64_t i = 0; i < zMatrix.numCoordinates(); i++)
                coordinates[i*samples+sample] = kernel.coordinates[i];
            logDet[sample] = kernel.logDet;
        });
        return outputs;
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        const int64_t samples = inputs.first.size(0);
        Tensor result = at::empty_like(inputs.first);
        double* gradient = result.data_ptr<double>();
        forEachMolecule<double>(samples, [&](InternalCoordinatesKernel<double>& kernel, int64_t sample) {
            loadPositions(kernel, inputs.first, Tensor(), sample);
            loadCotangents(kernel, cotangents, sample, samples);
            kernel.evaluate();
            for (const auto& g : kernel.gradient) {
                const int64_t atom = &g-kernel.gradient.data();
                double* out = gradient+3*(sample*zMatrix.numParticles()+atom);
                out[0] = g.x;
                out[1] = g.y;
                out[2] = g.z;
            }
        });
        return {result, Tensor()};
    }

    SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const override {
        const int64_t samples = inputs.first.size(0);
        SecondOrder result = {{at::empty_like(inputs.first), Tensor()}, emptyOutputs(inputs.first)};
        double* gradient = result.gradientTangents.first.data_ptr<double>();
        double* coordinates = result.outputTangents.first.data_ptr<double>();
        double* logDet = result.outputTangents.second.data_ptr<double>();
        forEachMolecule<Dual<double>>(samples, [&](InternalCoordinatesKernel<Dual<double>>& kernel, int64_t sample) {
            loadPositions(kernel, inputs.first, direction.first, sample);
            loadCotangents(kernel, cotangents, sample, samples);
            kernel.evaluate();
            for (int64_t atom = 0; atom < zMatrix.numParticles(); atom++) {
                double* out = gradient+3*(sample*zMatrix.numParticles()+atom);
                out[0] = kernel.gradient[atom].x.tangent;
                out[1] = kernel.gradient[atom].y.tangent;
                out[2] = kernel.gradient[atom].z.tangent;
            }
            for (int64_t i = 0; i < zMatrix.numCoordinates(); i++)
                coordinates[i*samples+sample] = kernel.coordinates[i].tangent;
            logDet[sample] = kernel.logDet.tangent;
        });
        return result;
    }

private:
    Pair emptyOutputs(const Tensor& positions) const {
        const int64_t samples = positions.size(0);
        return {at::empty({zMatrix.numCoordinates(), samples}, positions.options()), at::empty({samples}, positions.options())};
    }

    template <class Real, class Body>
    void forEachMolecule(int64_t samples, const Body& body) const {
        at::parallel_for(0, samples, 32, [&](int64_t begin, int64_t end) {
            InternalCoordinatesKernel<Real> kernel(zMatrix);
            for (int64_t sample = begin; sample < end; sample++)
                body(kernel, sample);
        });
    }

    static double real(const double* value, const double*, double) {
        return *value;
    }
    static Dual<double> real(const double* value, const double* tangent, Dual<double>) {
        return {*value, *tangent};
    }

    template <class Real>
    void loadPositions(InternalCoordinatesKernel<Real>& kernel, const Tensor& positions, const Tensor& tangents, int64_t sample) const {
        const int64_t offset = 3*sample*zMatrix.numParticles();
        const double* x = positions.const_data_ptr<double>()+offset;
        const double* t = tangents.defined() ? tangents.const_data_ptr<double>()+offset : x;
        for (int64_t atom = 0; atom < zMatrix.numParticles(); atom++, x += 3, t += 3)
            kernel.positions[atom] = {real(x, t, Real()), real(x+1, t+1, Real()), real(x+2, t+2, Real())};
    }

    template <class Real>
    void loadCotangents(InternalCoordinatesKernel<Real>& kernel, const Pair& cotangents, int64_t sample, int64_t samples) const {
        const double* v = cotangents.first.const_data_ptr<double>();
        for (int64_t i = 0; i < zMatrix.numCoordinates(); i++)
            kernel.vCoordinates[i] = Real(v[i*samples+sample]);
        kernel.vLogDet = Real(cotangents.second.const_data_ptr<double>()[sample]);
    }

    ZMatrix zMatrix;
};

} // namespace

std::tuple<Tensor, Tensor> internalCoordinates(const Tensor& positions, at::IntArrayRef zMatrix, bool frame) {
    TORCH_CHECK(zMatrix.size()%4 == 0 && zMatrix.size() >= 12, "internal_coordinates: the Z-matrix must have rows of four, got ",
            zMatrix.size(), " numbers");
    const int64_t numParticles = zMatrix.size()/4;
    TORCH_CHECK(positions.dim() == 3 && positions.size(1) == numParticles && positions.size(2) == 3,
            "internal_coordinates: positions must have shape (N, ", numParticles, ", 3), got ", positions.sizes());
    TORCH_CHECK(positions.scalar_type() == at::kDouble && positions.device().is_cpu(),
            "internal_coordinates: positions must be of type float64 on the CPU, got ", positions.scalar_type());
    std::vector<ZMatrix::Row> rows;
    for (int64_t row = 0; row < numParticles; row++)
        rows.push_back({zMatrix[4*row], zMatrix[4*row+1], zMatrix[4*row+2], zMatrix[4*row+3]});
    auto result = applyOperator(c10::make_intrusive<InternalCoordinatesOperator>(ZMatrix(rows, frame)), {positions, Tensor()});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
