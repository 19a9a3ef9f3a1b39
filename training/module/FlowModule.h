// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWMODULE_H_
#define OPENMMFLOW_FLOWMODULE_H_

#include "model/FlowModel.h"
#include "module/DensityDirection.h"

#include <torch/nn/module.h>

#include <utility>

namespace OpenMMFlow {

/**
 * A FlowModel as a torch::nn::Module: the same density, differentiable in positions and weights.
 *
 * named_parameters() and named_buffers() carry the names of the model file's tensors: weights and biases of conditioners are
 * parameters, marginals and base densities are buffers, all in their stored type. Couplings run in the type of the parameters.
 */
class FlowModule : public torch::nn::Module {
public:
    explicit FlowModule(const FlowModel& model);

    /** @return ln p (N), double, of positions (N, particles, 3) in nm; -inf outside of the support */
    at::Tensor logProb(const at::Tensor& positions) const;
    /**
     * @param createGraph  whether the gradient can be differentiated with respect to the weights, for force matching
     * @return ln p (N) and d ln p/dx (N, particles, 3) per nm, NaN where ln p is -inf
     */
    std::pair<at::Tensor, at::Tensor> logProbAndGradient(const at::Tensor& positions, bool createGraph = false) const;
    /** @return latents (N, coordinates) and ln p (N) */
    std::pair<at::Tensor, at::Tensor> toLatent(const at::Tensor& positions) const;
    /** A FlowModel with the present weights. */
    FlowModel toModel() const;

private:
    std::vector<at::Tensor> tensors() const;

    std::string architectureJson;
    DensityDirection densityDirection;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWMODULE_H_
