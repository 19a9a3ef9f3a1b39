// SPDX-License-Identifier: MIT
#include "module/FlowFunction.h"

#include "operators/Differentiable.h"

#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

namespace OpenMMFlow {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

FlowFunction::FlowFunction(std::vector<std::unique_ptr<Stage>> stages, std::vector<size_t> weights) :
        stages(std::move(stages)), weights(std::move(weights)) {
}

FlowFunction::Outputs FlowFunction::value(const Tensor& positions, const TensorList& tensors) const {
    auto values = c10::make_intrusive<Values>();
    Stage::State state = {positions, Tensor(), Tensor()};
    for (const auto& stage : stages)
        values->records.push_back(stage->value(state, tensors));
    values->inside = state.inside;
    values->latentShape = state.y.sizes().vec();
    values->latentType = state.y.scalar_type();
    if (state.inside.defined())
        state.logProb = at::where(state.inside, state.logProb, -std::numeric_limits<double>::infinity());
    return {state.y, state.logProb, values};
}

Stage::Variation FlowFunction::outputCotangents(const Tensor& vLatent, const Tensor& vLogProb, const Values& values) const {
    Tensor ofLogProb = vLogProb.defined() ? vLogProb : at::zeros({values.latentShape[1]}, at::kDouble);
    if (values.inside.defined())
        ofLogProb = at::where(values.inside, ofLogProb, 0.0);
    return {vLatent.defined() ? vLatent.clone(at::MemoryFormat::Contiguous) : at::zeros(values.latentShape, values.latentType),
            ofLogProb.contiguous()};
}

TensorList FlowFunction::weightsOf(const TensorList& gradients) const {
    TensorList result;
    for (size_t index : weights)
        result.push_back(gradients[index]);
    return result;
}

FlowFunction::Gradient FlowFunction::gradient(const Tensor& vLatent, const Tensor& vLogProb, const TensorList& tensors, const Values& values,
        bool ofWeights) const {
    auto cotangents = c10::make_intrusive<Cotangents>();
    cotangents->records.resize(stages.size());
    TensorList gradients(tensors.size());
    Stage::Variation v = outputCotangents(vLatent, vLogProb, values);
    for (size_t s = stages.size(); s-- > 0;)
        cotangents->records[s] = stages[s]->gradient(v, {tensors, *values.records[s]}, ofWeights ? &gradients : nullptr);
    return {v.y, ofWeights ? weightsOf(gradients) : TensorList(), cotangents};
}

FlowFunction::SecondOrder FlowFunction::secondOrder(const Tensor& positionTangent, const TensorList& weightTangents, const Tensor& vLatent,
        const Tensor& vLogProb, const TensorList& tensors, const Values& values, const Cotangents& cotangents, bool ofWeights) const {
    TensorList direction(tensors.size()), gradients(tensors.size());
    for (size_t i = 0; i < weightTangents.size(); i++)
        direction[weights[i]] = weightTangents[i];
    Stage::Variation tangent = {positionTangent, Tensor()};
    std::vector<RecordPointer> curvature;
    for (size_t s = 0; s < stages.size(); s++)
        curvature.push_back(stages[s]->tangent(tangent, {tensors, *values.records[s]}, {direction, *cotangents.records[s]}));
    Stage::Variation v = outputCotangents(vLatent, vLogProb, values);
    for (size_t s = stages.size(); s-- > 0;)
        stages[s]->gradientTangent(v, {tensors, *values.records[s]}, {direction, *cotangents.records[s]}, *curvature[s],
                ofWeights ? &gradients : nullptr);
    if (values.inside.defined())
        tangent.logProb = at::where(values.inside, tangent.logProb, 0.0);
    return {v.y, ofWeights ? weightsOf(gradients) : TensorList(), tangent.y, tangent.logProb};
}

namespace {

const char* const flowKey = "flow";
const char* const valuesKey = "values";
const char* const cotangentsKey = "cotangents";

template <class T>
c10::intrusive_ptr<T> saved(AutogradContext* context, const char* key) {
    return c10::static_intrusive_pointer_cast<T>(context->saved_data[key].toCapsule());
}

void save(AutogradContext* context, const char* key, const c10::intrusive_ptr<torch::CustomClassHolder>& object) {
    context->saved_data[key] = c10::IValue::make_capsule(object);
}

/** What autograd keeps: positions, the two cotangents or nothing for them, and the tensors of the flow. */
struct SavedTensors {
    explicit SavedTensors(variable_list all) :
            positions(all[0]), vLatent(all[1]), vLogProb(all[2]), tensors(all.begin()+3, all.end()) {
        for (Tensor& tensor : tensors)
            detached.push_back(tensor.detach());
    }
    static void save(AutogradContext* context, const Tensor& positions, const Tensor& vLatent, const Tensor& vLogProb,
            at::TensorList tensors) {
        variable_list all = {positions, vLatent, vLogProb};
        all.insert(all.end(), tensors.begin(), tensors.end());
        context->save_for_backward(std::move(all));
    }
    Tensor positions, vLatent, vLogProb;
    variable_list tensors;
    TensorList detached;
};

TensorList detached(at::TensorList tensors) {
    TensorList result;
    for (const Tensor& tensor : tensors)
        result.push_back(tensor.detach());
    return result;
}

/** PyTorch's functions take no undefined tensors: this one stands for them. */
Tensor orPlaceholder(const Tensor& tensor) {
    return tensor.defined() ? tensor : at::empty({0});
}

Tensor unlessPlaceholder(const Tensor& tensor) {
    return tensor.dim() == 1 && tensor.size(0) == 0 ? Tensor() : tensor.detach();
}

/** Gradients in the order of a function's arguments: those of the flow's tensors stand after the first ones. */
void append(variable_list& gradients, const FlowFunction& flow, size_t numTensors, const variable_list& ofWeights) {
    const size_t first = gradients.size();
    gradients.resize(first+numTensors);
    for (size_t i = 0; i < ofWeights.size(); i++)
        gradients[first+flow.getWeights()[i]] = ofWeights[i];
}

bool needsWeights(AutogradContext* context, size_t firstEdge, const FlowFunction& flow) {
    for (size_t index : flow.getWeights())
        if (context->needs_input_grad(firstEdge+index))
            return true;
    return false;
}

class GradientFunction : public torch::autograd::Function<GradientFunction> {
public:
    static variable_list forward(AutogradContext* context, const FlowFunctionPointer& flow, const c10::intrusive_ptr<FlowFunction::Values>& values,
            bool ofWeights, const Tensor& positions, const Tensor& vLatent, const Tensor& vLogProb, at::TensorList tensors) {
        const auto gradient = flow->gradient(unlessPlaceholder(vLatent), unlessPlaceholder(vLogProb), detached(tensors), *values, ofWeights);
        save(context, flowKey, flow);
        save(context, valuesKey, values);
        save(context, cotangentsKey, gradient.cotangents);
        SavedTensors::save(context, positions, vLatent, vLogProb, tensors);
        context->set_materialize_grads(false);
        variable_list result = {gradient.positions};
        result.insert(result.end(), gradient.tensors.begin(), gradient.tensors.end());
        return result;
    }
    static variable_list backward(AutogradContext* context, const variable_list& direction) {
        const auto flow = saved<FlowFunction>(context, flowKey);
        const SavedTensors point(context->get_saved_variables());
        TensorList weightTangents(direction.begin()+1, direction.end());
        FlowFunction::SecondOrder second;
        {
            at::NoGradGuard noGrad;
            const Tensor positionTangent = direction[0].defined() ? direction[0].detach() : at::zeros_like(point.positions);
            second = flow->secondOrder(positionTangent, weightTangents, Tensor(), Tensor(), point.detached,
                    *saved<FlowFunction::Values>(context, valuesKey), *saved<FlowFunction::Cotangents>(context, cotangentsKey),
                    needsWeights(context, 3, *flow));
        }
        variable_list gradients = {Tensor(), Tensor(), Tensor(), second.positions,
                                   unlessPlaceholder(point.vLatent).defined() ? second.latentTangent : Tensor(),
                                   unlessPlaceholder(point.vLogProb).defined() ? second.logProbTangent : Tensor()};
        append(gradients, *flow, point.tensors.size(), second.tensors);
        return refuseThirdOrder(std::move(gradients));
    }
};

class ValueFunction : public torch::autograd::Function<ValueFunction> {
public:
    static variable_list forward(AutogradContext* context, const FlowFunctionPointer& flow, const Tensor& positions, at::TensorList tensors) {
        const FlowFunction::Outputs outputs = flow->value(positions.detach(), detached(tensors));
        save(context, flowKey, flow);
        save(context, valuesKey, outputs.values);
        SavedTensors::save(context, positions, Tensor(), Tensor(), tensors);
        context->set_materialize_grads(false);
        return {outputs.latent, outputs.logProb};
    }
    static variable_list backward(AutogradContext* context, const variable_list& cotangents) {
        const auto flow = saved<FlowFunction>(context, flowKey);
        const SavedTensors point(context->get_saved_variables());
        const bool ofWeights = needsWeights(context, 1, *flow);
        const variable_list result = GradientFunction::apply(flow, saved<FlowFunction::Values>(context, valuesKey), ofWeights, point.positions,
                orPlaceholder(cotangents[0]), orPlaceholder(cotangents[1]), at::TensorList(point.tensors));
        variable_list gradients = {Tensor(), result[0]};
        append(gradients, *flow, point.tensors.size(), variable_list(result.begin()+1, result.end()));
        return gradients;
    }
};

class ValueAndGradientFunction : public torch::autograd::Function<ValueAndGradientFunction> {
public:
    static variable_list forward(AutogradContext* context, const FlowFunctionPointer& flow, const Tensor& positions, at::TensorList tensors) {
        const TensorList constants = detached(tensors);
        const FlowFunction::Outputs outputs = flow->value(positions.detach(), constants);
        const FlowFunction::Gradient gradient = flow->gradient(Tensor(), at::ones_like(outputs.logProb), constants, *outputs.values, false);
        save(context, flowKey, flow);
        save(context, valuesKey, outputs.values);
        save(context, cotangentsKey, gradient.cotangents);
        SavedTensors::save(context, positions, Tensor(), Tensor(), tensors);
        context->set_materialize_grads(false);
        return {outputs.logProb, gradient.positions};
    }
    static variable_list backward(AutogradContext* context, const variable_list& cotangents) {
        const auto flow = saved<FlowFunction>(context, flowKey);
        const SavedTensors point(context->get_saved_variables());
        const auto values = saved<FlowFunction::Values>(context, valuesKey);
        const bool ofWeights = needsWeights(context, 1, *flow);
        Tensor ofPositions;
        TensorList ofTensors;
        {
            at::NoGradGuard noGrad;
            if (cotangents[1].defined()) {
                FlowFunction::SecondOrder second = flow->secondOrder(cotangents[1].detach(), {}, Tensor(), cotangents[0], point.detached, *values,
                        *saved<FlowFunction::Cotangents>(context, cotangentsKey), ofWeights);
                ofPositions = second.positions;
                ofTensors = std::move(second.tensors);
            }
            else {
                const auto gradient = flow->gradient(Tensor(), cotangents[0], point.detached, *values, ofWeights);
                ofPositions = gradient.positions;
                ofTensors = gradient.tensors;
            }
        }
        variable_list gradients = {Tensor(), ofPositions};
        append(gradients, *flow, point.tensors.size(), ofTensors);
        return refuseThirdOrder(std::move(gradients));
    }
};

} // namespace

std::pair<Tensor, Tensor> applyFlow(const FlowFunctionPointer& flow, const Tensor& positions, const TensorList& tensors) {
    // PyTorch looks for variables in at::TensorList, but not in a std::vector.
    const variable_list result = ValueFunction::apply(flow, positions, at::TensorList(tensors));
    return {result[0], result[1]};
}

std::pair<Tensor, Tensor> applyFlowWithGradient(const FlowFunctionPointer& flow, const Tensor& positions, const TensorList& tensors) {
    const variable_list result = ValueAndGradientFunction::apply(flow, positions, at::TensorList(tensors));
    return {result[0], result[1]};
}

} // namespace OpenMMFlow
