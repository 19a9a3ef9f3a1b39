// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COORDINATESTAGES_H_
#define OPENMMFLOW_COORDINATESTAGES_H_

#include "module/Stage.h"
#include "operators/Differentiable.h"

#include <functional>

namespace OpenMMFlow {

using OperatorPointer = c10::intrusive_ptr<DifferentiableOperator>;

/** The first stage: positions to coordinates by an operator with outputs (rows, N) and ln|det J| (N). */
class PlacementStage : public Stage {
public:
    explicit PlacementStage(OperatorPointer op);
    RecordPointer value(State& state, const TensorList& tensors) const override;
    RecordPointer gradient(Variation& cotangent, const Point& point, TensorList* gradients) const override;
    RecordPointer tangent(Variation& tangent, const Point& point, const Direction& direction) const override;
    void gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
            TensorList* gradients) const override;

private:
    OperatorPointer op;
};

/** An operator on some coordinates, each by itself, whose outputs are new values and ln of their derivatives, (D, N) each. */
class ElementwiseStage : public Stage {
public:
    enum class Output { ValueAndLogSlope, LogSlopeAlone };
    /** Makes the operator from the flow's tensors, which are constants to it. */
    using Factory = std::function<OperatorPointer(const TensorList&)>;

    /**
     * @param coordinates  (D), their indices
     * @param output       LogSlopeAlone leaves the coordinates as they are: a base density, always in double
     * @param bounded      values outside of [0,1] are outside of the support
     */
    ElementwiseStage(Factory factory, at::Tensor coordinates, Output output, bool bounded);
    RecordPointer value(State& state, const TensorList& tensors) const override;
    RecordPointer gradient(Variation& cotangent, const Point& point, TensorList* gradients) const override;
    RecordPointer tangent(Variation& tangent, const Point& point, const Direction& direction) const override;
    void gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
            TensorList* gradients) const override;

private:
    at::Tensor gather(const at::Tensor& y) const;
    DifferentiableOperator::Pair cotangents(const Variation& cotangent, const at::Tensor& x) const;
    void backward(Variation& cotangent, const at::Tensor& vX) const;

    Factory factory;
    at::Tensor coordinates;
    bool replaces, bounded;
};

/** Coordinates in another floating-point type. */
class TypeStage : public Stage {
public:
    /** @param tensor  the index of the tensor in whose type what follows is computed */
    explicit TypeStage(std::size_t tensor);
    RecordPointer value(State& state, const TensorList& tensors) const override;
    RecordPointer gradient(Variation& cotangent, const Point& point, TensorList* gradients) const override;
    RecordPointer tangent(Variation& tangent, const Point& point, const Direction& direction) const override;
    void gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
            TensorList* gradients) const override;

private:
    std::size_t tensor;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COORDINATESTAGES_H_
