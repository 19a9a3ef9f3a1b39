// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWFUNCTION_H_
#define OPENMMFLOW_FLOWFUNCTION_H_

#include "module/Stage.h"

#include <torch/custom_class.h>

#include <memory>
#include <utility>
#include <vector>

namespace OpenMMFlow {

/**
 * Stages as one function of PyTorch's autograd, differentiable twice in positions and weights.
 *
 * One node of the graph stands for the whole flow: a step of force matching consists of the four sweeps of Stage.h and of little else,
 * where a graph of small operations would spend a third of its time on bookkeeping.
 */
class FlowFunction : public torch::CustomClassHolder {
public:
    /** @param weights  indices of those tensors that stages give gradients of */
    FlowFunction(std::vector<std::unique_ptr<Stage>> stages, std::vector<std::size_t> weights);

    /** What the sweeps keep of a point; the point itself and the outputs are autograd's to keep. */
    struct Values : torch::CustomClassHolder {
        std::vector<RecordPointer> records;
        at::Tensor inside;
        std::vector<std::int64_t> latentShape;
        at::ScalarType latentType;
    };
    struct Outputs {
        at::Tensor latent, logProb;
        c10::intrusive_ptr<Values> values;
    };
    Outputs value(const at::Tensor& positions, const TensorList& tensors) const;

    struct Cotangents : torch::CustomClassHolder {
        std::vector<RecordPointer> records;
    };
    struct Gradient {
        at::Tensor positions;
        TensorList tensors;        // one for each index of weights; none if they were not asked for
        c10::intrusive_ptr<Cotangents> cotangents;
    };
    /** The gradient of sum(vLatent*latent)+sum(vLogProb*logProb); cotangents may be undefined. */
    Gradient gradient(const at::Tensor& vLatent, const at::Tensor& vLogProb, const TensorList& tensors, const Values& values,
            bool ofWeights) const;

    struct SecondOrder {
        at::Tensor positions;
        TensorList tensors;
        at::Tensor latentTangent, logProbTangent;    // the gradient with respect to the cotangents
    };
    /**
     * The derivative of gradient() along a direction, plus the gradient of sum(vLatent*latent)+sum(vLogProb*logProb).
     *
     * @param positionTangent, weightTangents  the direction; the latter one for each index of weights, or none, or undefined: 0
     * @param vLatent, vLogProb                may be undefined
     */
    SecondOrder secondOrder(const at::Tensor& positionTangent, const TensorList& weightTangents, const at::Tensor& vLatent,
            const at::Tensor& vLogProb, const TensorList& tensors, const Values& values, const Cotangents& cotangents, bool ofWeights) const;

    const std::vector<std::size_t>& getWeights() const {
        return weights;
    }

private:
    Stage::Variation outputCotangents(const at::Tensor& vLatent, const at::Tensor& vLogProb, const Values& values) const;
    TensorList weightsOf(const TensorList& gradients) const;

    std::vector<std::unique_ptr<Stage>> stages;
    std::vector<std::size_t> weights;
};

using FlowFunctionPointer = c10::intrusive_ptr<FlowFunction>;

/** @return latents (coordinates, N) and ln p (N); differentiable twice */
std::pair<at::Tensor, at::Tensor> applyFlow(const FlowFunctionPointer& flow, const at::Tensor& positions, const TensorList& tensors);

/**
 * @return ln p (N) and its gradient (N, particles, 3), differentiable once more: both share one evaluation, and all of the second
 * order is a single backward
 */
std::pair<at::Tensor, at::Tensor> applyFlowWithGradient(const FlowFunctionPointer& flow, const at::Tensor& positions,
        const TensorList& tensors);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWFUNCTION_H_
