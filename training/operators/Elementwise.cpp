// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "model/Architecture.h"
#include "operators/CoordinateMapOperator.h"
#include "operators/Operators.h"

#include <cmath>

namespace OpenMMFlow {

namespace {

/** An elementwise layer of one coordinate, ready for evaluation. */
struct ElementwiseCoordinate {
    ElementwiseMap map;
    double shift = 0, inverseScale = 1, logInverseScale = 0;

    template <class Real>
    typename Formulas<Real>::MarginalValue evaluate(const Real& x) const {
        switch (map) {
            case ElementwiseMap::AffineNormalization:
                return Formulas<Real>::uniformMarginal(x, (Real) shift, (Real) inverseScale, (Real) logInverseScale);
            case ElementwiseMap::Logit: return Formulas<Real>::logitMap(x);
            case ElementwiseMap::Logistic: return Formulas<Real>::logisticMap(x);
            default: return Formulas<Real>::circularShiftMap(x, (Real) shift);
        }
    }
};

ElementwiseMap mapOf(c10::string_view type) {
    if (type == "affineNormalization")
        return ElementwiseMap::AffineNormalization;
    if (type == "logit")
        return ElementwiseMap::Logit;
    if (type == "logistic")
        return ElementwiseMap::Logistic;
    TORCH_CHECK(type == "circularShift", "elementwise: unknown map \"", type,
            "\"; known are affineNormalization, logit, logistic and circularShift");
    return ElementwiseMap::CircularShift;
}

} // namespace

c10::intrusive_ptr<DifferentiableOperator> makeElementwise(int64_t size, c10::string_view type, const std::optional<at::Tensor>& shift,
        const std::optional<at::Tensor>& scale) {
    const ElementwiseMap map = mapOf(type);
    std::vector<ElementwiseCoordinate> coordinates(size, {map});
    if (map == ElementwiseMap::AffineNormalization || map == ElementwiseMap::CircularShift) {
        const auto shifts = coordinateValues(shift, size, "elementwise: this map needs a shift");
        for (int64_t d = 0; d < size; d++)
            coordinates[d].shift = shifts[d];
    }
    if (map == ElementwiseMap::AffineNormalization) {
        const auto scales = coordinateValues(scale, size, "elementwise: this map needs a scale");
        for (int64_t d = 0; d < size; d++) {
            coordinates[d].inverseScale = 1/scales[d];
            coordinates[d].logInverseScale = -std::log(scales[d]);
        }
    }
    return c10::make_intrusive<CoordinateMapOperator<ElementwiseCoordinate>>(std::move(coordinates));
}

std::tuple<at::Tensor, at::Tensor> elementwise(const at::Tensor& x, c10::string_view type, const std::optional<at::Tensor>& shift,
        const std::optional<at::Tensor>& scale) {
    TORCH_CHECK(x.dim() == 2, "elementwise: x must have shape (D, N), got ", x.sizes());
    TORCH_CHECK(x.device().is_cpu(), "elementwise runs on the CPU; move the module there");
    auto result = applyOperator(makeElementwise(x.size(0), type, shift, scale), {x, at::Tensor()});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
