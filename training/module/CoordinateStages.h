// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COORDINATESTAGES_H_
#define OPENMMFLOW_COORDINATESTAGES_H_

#include "module/Stage.h"
#include "operators/Differentiable.h"

#include <functional>

namespace OpenMMFlow {

using OperatorPointer = c10::intrusive_ptr<DifferentiableOperator>;

/** Makes an operator from the flow's tensors, which are constants to it. */
using OperatorFactory = std::function<OperatorPointer(const TensorList&)>;

/** The first stage: positions to coordinates by an operator with outputs (rows, N) and ln|det J| (N). */
class PlacementStage : public Stage {
public:
    explicit PlacementStage(OperatorFactory factory);
    RecordPointer value(State& state, const TensorList& tensors) const override;
    RecordPointer gradient(Variation& cotangent, const Point& point, TensorList* gradients) const override;
    RecordPointer tangent(Variation& tangent, const Point& point, const Direction& direction) const override;
    void gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
            TensorList* gradients) const override;

private:
    OperatorFactory factory;
};

/**
 * An operator on some coordinates, each by itself, whose outputs are new values and ln of their derivatives, (D, N) each. It is evaluated
 * in double, whatever the type of the coordinates.
 */
class ElementwiseStage : public Stage {
public:
    enum class Output { ValueAndLogSlope, LogSlopeAlone };

    /**
     * @param coordinates  (D), their indices
     * @param output       LogSlopeAlone leaves the coordinates as they are: a base density
     * @param bounded      values outside of [0,1] are outside of the support
     */
    ElementwiseStage(OperatorFactory factory, at::Tensor coordinates, Output output, bool bounded);
    RecordPointer value(State& state, const TensorList& tensors) const override;
    RecordPointer gradient(Variation& cotangent, const Point& point, TensorList* gradients) const override;
    RecordPointer tangent(Variation& tangent, const Point& point, const Direction& direction) const override;
    void gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
            TensorList* gradients) const override;

private:
    at::Tensor gather(const at::Tensor& y) const;
    DifferentiableOperator::Pair cotangents(const Variation& cotangent, const at::Tensor& x) const;
    void backward(Variation& cotangent, const at::Tensor& vX) const;

    OperatorFactory factory;
    at::Tensor coordinates;
    bool replaces, bounded;
};

/** Coordinates in another order: coordinate i is order[i] of before. */
class PermutationStage : public Stage {
public:
    explicit PermutationStage(at::Tensor order);
    RecordPointer value(State& state, const TensorList& tensors) const override;
    RecordPointer gradient(Variation& cotangent, const Point& point, TensorList* gradients) const override;
    RecordPointer tangent(Variation& tangent, const Point& point, const Direction& direction) const override;
    void gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
            TensorList* gradients) const override;

private:
    at::Tensor order, inverse;
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
