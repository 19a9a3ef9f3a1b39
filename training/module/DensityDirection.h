// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DENSITYDIRECTION_H_
#define OPENMMFLOW_DENSITYDIRECTION_H_

#include "model/Architecture.h"
#include "module/FlowFunction.h"

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

namespace OpenMMFlow {

/**
 * The density direction of an architecture as a function of positions and weights, differentiable twice in both.
 *
 * It holds no weights. FlowModule in C++ and the FlowModule in Python both evaluate through this class.
 */
class DensityDirection {
public:
    struct Result {
        at::Tensor latent;      // (N, coordinates), of the type of the weights
        at::Tensor logProb;     // (N), double; -inf outside of the support
    };

    /** The architecture's tensors need no values. */
    explicit DensityDirection(const Architecture& architecture);

    /** The names of the tensors, in the order in which operator() expects them. */
    const std::vector<std::string>& getTensorNames() const {
        return tensorNames;
    }

    /**
     * @param positions  (N, particles, 3), nm. Coordinates and marginals are computed in double, couplings in the type of the weights
     * @param tensors    as many as getTensorNames()
     */
    Result operator()(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) const;

    /**
     * ln p (N) and its gradient (N, particles, 3), NaN where ln p is -inf: faster than to differentiate the above. Both can be
     * differentiated once, for force matching.
     */
    std::pair<at::Tensor, at::Tensor> logProbAndGradient(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) const;

private:
    void checkArguments(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) const;

    std::int64_t numParticles;
    std::vector<std::string> tensorNames;
    FlowFunctionPointer flow;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DENSITYDIRECTION_H_
