// SPDX-License-Identifier: MIT
#include "module/CouplingStage.h"

#include <ATen/Functions.h>

namespace OpenMMFlow {

using at::Tensor;
using Pair = DifferentiableOperator::Pair;

namespace {

struct Values : Record {
    DenseConditioner::Values conditioner;
    Pair inputs;
};

struct Cotangents : Record {
    DenseConditioner::Cotangents conditioner;
    Pair outputs;
};

struct Curvature : Record {
    DenseConditioner::Tangents conditioner;
    Pair inputs;
};

} // namespace

CouplingStage::CouplingStage(DenseConditioner conditioner, c10::intrusive_ptr<DifferentiableOperator> transformer,
        std::vector<std::int64_t> rawShape, Tensor transformed) :
        conditioner(std::move(conditioner)), transformer(std::move(transformer)), rawShape(std::move(rawShape)),
        transformed(std::move(transformed)) {
}

RecordPointer CouplingStage::value(State& state, const TensorList& tensors) const {
    auto record = std::make_shared<Values>();
    const Tensor raw = conditioner.value(state.y, tensors, record->conditioner);
    record->inputs = {state.y.index_select(0, transformed), raw.view(rawShape)};
    const Pair outputs = transformer->value(record->inputs);
    state.y.index_copy_(0, transformed, outputs.first);
    state.logProb.add_(outputs.second.sum(0));
    return record;
}

Pair CouplingStage::outputCotangents(const Variation& cotangent) const {
    const Tensor vY = cotangent.y.index_select(0, transformed);
    return {vY, cotangent.logProb.to(vY.scalar_type()).expand_as(vY).contiguous()};
}

RecordPointer CouplingStage::gradient(Variation& cotangent, const Point& point, TensorList* gradients) const {
    const Values& values = static_cast<const Values&>(point.values);
    auto record = std::make_shared<Cotangents>();
    record->outputs = outputCotangents(cotangent);
    const Pair g = transformer->gradient(values.inputs, record->outputs);
    cotangent.y.index_copy_(0, transformed, g.first);
    conditioner.gradient(g.second.view({-1, g.first.size(1)}), cotangent.y, point.tensors, values.conditioner, record->conditioner, gradients);
    return record;
}

RecordPointer CouplingStage::tangent(Variation& tangent, const Point& point, const Direction& direction) const {
    const Values& values = static_cast<const Values&>(point.values);
    const Cotangents& cotangents = static_cast<const Cotangents&>(direction.cotangents);
    auto record = std::make_shared<Curvature>();
    const Tensor raw = conditioner.tangent(tangent.y, point.tensors, direction.tensors, values.conditioner, cotangents.conditioner,
            record->conditioner);
    const auto second = transformer->secondOrder(values.inputs, cotangents.outputs,
            {tangent.y.index_select(0, transformed), raw.view(rawShape)});
    record->inputs = second.gradientTangents;
    tangent.y.index_copy_(0, transformed, second.outputTangents.first);
    tangent.logProb.add_(second.outputTangents.second.sum(0));
    return record;
}

void CouplingStage::gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
        TensorList* gradients) const {
    const Values& values = static_cast<const Values&>(point.values);
    const Cotangents& cotangents = static_cast<const Cotangents&>(direction.cotangents);
    const Curvature& second = static_cast<const Curvature&>(curvature);
    const Pair g = transformer->gradient(values.inputs, outputCotangents(cotangentTangent));
    cotangentTangent.y.index_copy_(0, transformed, g.first.add_(second.inputs.first));
    const Tensor raw = g.second.add_(second.inputs.second).view({-1, g.first.size(1)});
    conditioner.gradientTangent(raw, cotangentTangent.y, point.tensors, direction.tensors, values.conditioner, cotangents.conditioner,
            second.conditioner, gradients);
}

} // namespace OpenMMFlow
