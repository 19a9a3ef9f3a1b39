// SPDX-License-Identifier: MIT
#include "operators/InternalCoordinatesKernel.h"
#include "operators/Operators.h"
#include "operators/PlacementOperator.h"

#include <algorithm>
#include <stdexcept>

namespace OpenMMFlow {

using at::Tensor;

ZMatrix::ZMatrix(const std::vector<ZMatrixRow>& rows, bool frameMeasure) : second(), third(), frameMeasure(frameMeasure) {
    int count[4] = {0, 0, 0, 0};
    for (const ZMatrixRow& row : rows) {
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

c10::intrusive_ptr<DifferentiableOperator> makeInternalCoordinates(at::IntArrayRef zMatrix, bool frame) {
    TORCH_CHECK(zMatrix.size()%4 == 0 && zMatrix.size() >= 12, "internal_coordinates: the Z-matrix must have rows of four, got ",
            zMatrix.size(), " numbers");
    return c10::make_intrusive<PlacementOperator<ZMatrix, InternalCoordinatesKernel>>(ZMatrix(zMatrixRows(zMatrix), frame));
}

std::tuple<Tensor, Tensor> internalCoordinates(const Tensor& positions, at::IntArrayRef zMatrix, bool frame) {
    const auto op = makeInternalCoordinates(zMatrix, frame);
    checkPositions(positions, zMatrix.size()/4, "internal_coordinates");
    auto result = applyOperator(op, {positions, Tensor()});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
