// SPDX-License-Identifier: MIT
#include "operators/Differentiable.h"

namespace OpenMMFlow {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = DifferentiableOperator::Pair;
using OperatorPointer = c10::intrusive_ptr<DifferentiableOperator>;

namespace {

const char* const operatorKey = "operator";

void saveOperator(AutogradContext* context, const OperatorPointer& op) {
    context->saved_data[operatorKey] = c10::IValue::make_capsule(op);
}

OperatorPointer savedOperator(AutogradContext* context) {
    return c10::static_intrusive_pointer_cast<DifferentiableOperator>(context->saved_data[operatorKey].toCapsule());
}

Tensor at(const variable_list& tensors, size_t index) {
    return index < tensors.size() ? tensors[index] : Tensor();
}

variable_list asList(const Pair& pair) {
    if (pair.second.defined())
        return {pair.first, pair.second};
    return {pair.first};
}

/** PyTorch's functions take no undefined tensors: this one stands for them. */
Tensor orPlaceholder(const Tensor& tensor) {
    return tensor.defined() ? tensor : at::empty({0});
}

/** The first `count` tensors, ready for raw access, and undefined tensors in the place of others. */
Pair takePair(const Tensor& first, const Tensor& second, int count) {
    return {first.detach().contiguous(), count == 2 ? second.detach().contiguous() : Tensor()};
}

/** The identity, whose backward explains why there is none. */
class ThirdOrder : public torch::autograd::Function<ThirdOrder> {
public:
    static Tensor forward(AutogradContext*, const Tensor& tensor) {
        return tensor.view_as(tensor);
    }
    static variable_list backward(AutogradContext*, const variable_list&) {
        TORCH_CHECK(false, "OpenMM-Flow's operators have first and second derivatives; third derivatives are not implemented");
    }
};

class Gradient : public torch::autograd::Function<Gradient> {
public:
    static variable_list forward(AutogradContext* context, const OperatorPointer& op, const Tensor& input1, const Tensor& input2,
            const Tensor& cotangent1, const Tensor& cotangent2) {
        saveOperator(context, op);
        context->save_for_backward({input1, input2, cotangent1, cotangent2});
        return asList(op->gradient(takePair(input1, input2, op->numInputs()), takePair(cotangent1, cotangent2, op->numOutputs())));
    }
    static variable_list backward(AutogradContext* context, const variable_list& direction) {
        const variable_list saved = context->get_saved_variables();
        const OperatorPointer op = savedOperator(context);
        DifferentiableOperator::SecondOrder second;
        {
            at::NoGradGuard noGrad;
            second = op->secondOrder(takePair(saved[0], saved[1], op->numInputs()), takePair(saved[2], saved[3], op->numOutputs()),
                    takePair(direction[0], at(direction, 1), op->numInputs()));
        }
        variable_list gradients = {Tensor(), second.gradientTangents.first, second.gradientTangents.second,
                                   second.outputTangents.first, second.outputTangents.second};
        return refuseThirdOrder(std::move(gradients));
    }
};

class Value : public torch::autograd::Function<Value> {
public:
    static variable_list forward(AutogradContext* context, const OperatorPointer& op, const Tensor& input1, const Tensor& input2) {
        saveOperator(context, op);
        context->save_for_backward({input1, input2});
        return asList(op->value(takePair(input1, input2, op->numInputs())));
    }
    static variable_list backward(AutogradContext* context, const variable_list& cotangents) {
        const variable_list saved = context->get_saved_variables();
        variable_list gradients = Gradient::apply(savedOperator(context), saved[0], saved[1], cotangents[0],
                orPlaceholder(at(cotangents, 1)));
        return {Tensor(), gradients[0], at(gradients, 1)};
    }
};

} // namespace

variable_list refuseThirdOrder(variable_list gradients) {
    if (at::GradMode::is_enabled())
        for (Tensor& gradient : gradients)
            if (gradient.defined())
                gradient = ThirdOrder::apply(gradient.requires_grad_());
    return gradients;
}

Pair applyOperator(const OperatorPointer& op, const Pair& inputs) {
    variable_list outputs = Value::apply(op, inputs.first, orPlaceholder(inputs.second));
    return {outputs[0], at(outputs, 1)};
}

} // namespace OpenMMFlow
