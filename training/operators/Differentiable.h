// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DIFFERENTIABLE_H_
#define OPENMMFLOW_DIFFERENTIABLE_H_

#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <vector>

namespace OpenMMFlow {

/**
 * What an operator must have to be differentiated twice by PyTorch. It maps up to two tensors to up to two tensors; a missing
 * one is an undefined tensor.
 *
 * With the scalar Phi = sum(cotangent*output) the three methods are: the outputs; the gradient of Phi with respect to the
 * inputs; and the derivative of that gradient along a direction in the space of the inputs. As the Hessian of Phi is
 * symmetric, the last is what the backward of the gradient needs, and the derivative of the outputs along the same
 * direction is its gradient with respect to the cotangents.
 */
class DifferentiableOperator : public torch::CustomClassHolder {
public:
    struct Pair {
        at::Tensor first, second;
    };
    struct SecondOrder {
        Pair gradientTangents;    // one for each input
        Pair outputTangents;      // one for each output
    };
    virtual int numInputs() const = 0;
    virtual int numOutputs() const = 0;
    virtual Pair value(const Pair& inputs) const = 0;
    virtual Pair gradient(const Pair& inputs, const Pair& cotangents) const = 0;
    virtual SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const = 0;
};

/** Runs an operator so that autograd can differentiate it twice; a third derivative raises. */
DifferentiableOperator::Pair applyOperator(const c10::intrusive_ptr<DifferentiableOperator>& op,
                                           const DifferentiableOperator::Pair& inputs);

/** What a second derivative returns: gradients whose own backward explains why there is none. */
std::vector<at::Tensor> refuseThirdOrder(std::vector<at::Tensor> gradients);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DIFFERENTIABLE_H_
