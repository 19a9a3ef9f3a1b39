// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COUPLINGSTAGE_H_
#define OPENMMFLOW_COUPLINGSTAGE_H_

#include "module/DenseConditioner.h"
#include "module/Stage.h"
#include "operators/Differentiable.h"

namespace OpenMMFlow {

/** Some coordinates through a transformer whose raw parameters a conditioner computes from others. */
class CouplingStage : public Stage {
public:
    /**
     * @param conditioner  of coordinates that are not transformed
     * @param transformer  inputs x (D, N) and raw parameters; outputs y and ln|dy/dx|, (D, N) each
     * @param rawShape     the shape that the transformer expects of raw parameters, N as -1
     * @param transformed  (D), indices of coordinates
     */
    CouplingStage(DenseConditioner conditioner, c10::intrusive_ptr<DifferentiableOperator> transformer, std::vector<std::int64_t> rawShape,
            at::Tensor transformed);
    RecordPointer value(State& state, const TensorList& tensors) const override;
    RecordPointer gradient(Variation& cotangent, const Point& point, TensorList* gradients) const override;
    RecordPointer tangent(Variation& tangent, const Point& point, const Direction& direction) const override;
    void gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
            TensorList* gradients) const override;

private:
    DifferentiableOperator::Pair outputCotangents(const Variation& cotangent) const;

    DenseConditioner conditioner;
    c10::intrusive_ptr<DifferentiableOperator> transformer;
    std::vector<std::int64_t> rawShape;
    at::Tensor transformed;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COUPLINGSTAGE_H_
