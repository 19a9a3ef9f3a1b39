// SPDX-License-Identifier: MIT
#include "module/CoordinateStages.h"

#include <ATen/Functions.h>

namespace OpenMMFlow {

using at::Tensor;
using Pair = DifferentiableOperator::Pair;

namespace {

/** An operator and what it was given; the same struct serves inputs, cotangents and the curvature that tangents leave. */
struct OperatorRecord : Record {
    OperatorRecord(OperatorPointer op, Pair tensors) : op(std::move(op)), tensors(std::move(tensors)) {
    }
    OperatorPointer op;
    Pair tensors;
};

const OperatorRecord& of(const Record& record) {
    return static_cast<const OperatorRecord&>(record);
}

RecordPointer keep(const OperatorPointer& op, const Pair& tensors) {
    return std::make_shared<OperatorRecord>(op, tensors);
}

struct TypeRecord : Record {
    at::ScalarType before, after;
};

} // namespace

PlacementStage::PlacementStage(OperatorFactory factory) : factory(std::move(factory)) {
}

RecordPointer PlacementStage::value(State& state, const TensorList& tensors) const {
    const OperatorPointer op = factory(tensors);
    const Pair inputs = {state.y.contiguous(), Tensor()};
    const Pair outputs = op->value(inputs);
    state.y = outputs.first;
    state.logProb = outputs.second;
    return keep(op, inputs);
}

RecordPointer PlacementStage::gradient(Variation& cotangent, const Point& point, TensorList*) const {
    const OperatorRecord& values = of(point.values);
    const Pair cotangents = {cotangent.y.contiguous(), cotangent.logProb};
    cotangent.y = values.op->gradient(values.tensors, cotangents).first;
    return keep(values.op, cotangents);
}

RecordPointer PlacementStage::tangent(Variation& tangent, const Point& point, const Direction& direction) const {
    const OperatorRecord& values = of(point.values);
    const auto second = values.op->secondOrder(values.tensors, of(direction.cotangents).tensors, {tangent.y.contiguous(), Tensor()});
    tangent = {second.outputTangents.first, second.outputTangents.second};
    return keep(values.op, second.gradientTangents);
}

void PlacementStage::gradientTangent(Variation& cotangentTangent, const Point& point, const Direction&, const Record& curvature,
        TensorList*) const {
    const OperatorRecord& values = of(point.values);
    cotangentTangent.y = values.op->gradient(values.tensors, {cotangentTangent.y.contiguous(), cotangentTangent.logProb}).first;
    cotangentTangent.y.add_(of(curvature).tensors.first);
}

ElementwiseStage::ElementwiseStage(OperatorFactory factory, Tensor coordinates, Output output, bool bounded) :
        factory(std::move(factory)), coordinates(std::move(coordinates)), replaces(output == Output::ValueAndLogSlope), bounded(bounded) {
}

Tensor ElementwiseStage::gather(const Tensor& y) const {
    return y.index_select(0, coordinates).to(at::kDouble);
}

RecordPointer ElementwiseStage::value(State& state, const TensorList& tensors) const {
    const OperatorPointer op = factory(tensors);
    const Pair inputs = {gather(state.y), Tensor()};
    const Pair outputs = op->value(inputs);
    if (replaces)
        state.y.index_copy_(0, coordinates, outputs.first.to(state.y.scalar_type()));
    state.logProb.add_(outputs.second.sum(0));
    if (bounded) {
        const Tensor inside = outputs.first.ge(0).logical_and_(outputs.first.le(1)).all(0);
        state.inside = state.inside.defined() ? state.inside.logical_and(inside) : inside;
    }
    return keep(op, inputs);
}

Pair ElementwiseStage::cotangents(const Variation& cotangent, const Tensor& x) const {
    return {replaces ? gather(cotangent.y) : at::zeros_like(x), cotangent.logProb.expand_as(x).contiguous()};
}

void ElementwiseStage::backward(Variation& cotangent, const Tensor& vX) const {
    const Tensor v = vX.to(cotangent.y.scalar_type());
    if (replaces)
        cotangent.y.index_copy_(0, coordinates, v);
    else
        cotangent.y.index_add_(0, coordinates, v);
}

RecordPointer ElementwiseStage::gradient(Variation& cotangent, const Point& point, TensorList*) const {
    const OperatorRecord& values = of(point.values);
    const Pair outputs = cotangents(cotangent, values.tensors.first);
    backward(cotangent, values.op->gradient(values.tensors, outputs).first);
    return keep(values.op, outputs);
}

RecordPointer ElementwiseStage::tangent(Variation& tangent, const Point& point, const Direction& direction) const {
    const OperatorRecord& values = of(point.values);
    const auto second = values.op->secondOrder(values.tensors, of(direction.cotangents).tensors,
            {gather(tangent.y), Tensor()});
    if (replaces)
        tangent.y.index_copy_(0, coordinates, second.outputTangents.first.to(tangent.y.scalar_type()));
    tangent.logProb.add_(second.outputTangents.second.sum(0));
    return keep(values.op, second.gradientTangents);
}

void ElementwiseStage::gradientTangent(Variation& cotangentTangent, const Point& point, const Direction&, const Record& curvature,
        TensorList*) const {
    const OperatorRecord& values = of(point.values);
    const Tensor vX = values.op->gradient(values.tensors, cotangents(cotangentTangent, values.tensors.first)).first;
    backward(cotangentTangent, vX.add_(of(curvature).tensors.first));
}

PermutationStage::PermutationStage(Tensor order) : order(order), inverse(order.argsort()) {
}

RecordPointer PermutationStage::value(State& state, const TensorList&) const {
    state.y = state.y.index_select(0, order);
    return std::make_shared<Record>();
}

RecordPointer PermutationStage::gradient(Variation& cotangent, const Point&, TensorList*) const {
    cotangent.y = cotangent.y.index_select(0, inverse);
    return std::make_shared<Record>();
}

RecordPointer PermutationStage::tangent(Variation& tangent, const Point&, const Direction&) const {
    tangent.y = tangent.y.index_select(0, order);
    return std::make_shared<Record>();
}

void PermutationStage::gradientTangent(Variation& cotangentTangent, const Point&, const Direction&, const Record&, TensorList*) const {
    cotangentTangent.y = cotangentTangent.y.index_select(0, inverse);
}

TypeStage::TypeStage(std::size_t tensor) : tensor(tensor) {
}

RecordPointer TypeStage::value(State& state, const TensorList& tensors) const {
    auto record = std::make_shared<TypeRecord>();
    record->before = state.y.scalar_type();
    record->after = tensors[tensor].scalar_type();
    state.y = state.y.to(record->after);
    return record;
}

RecordPointer TypeStage::gradient(Variation& cotangent, const Point& point, TensorList*) const {
    cotangent.y = cotangent.y.to(static_cast<const TypeRecord&>(point.values).before);
    return std::make_shared<Record>();
}

RecordPointer TypeStage::tangent(Variation& tangent, const Point& point, const Direction&) const {
    tangent.y = tangent.y.to(static_cast<const TypeRecord&>(point.values).after);
    return std::make_shared<Record>();
}

void TypeStage::gradientTangent(Variation& cotangentTangent, const Point& point, const Direction&, const Record&, TensorList*) const {
    cotangentTangent.y = cotangentTangent.y.to(static_cast<const TypeRecord&>(point.values).before);
}

} // namespace OpenMMFlow
