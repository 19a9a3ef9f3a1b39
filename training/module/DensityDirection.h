// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DENSITYDIRECTION_H_
#define OPENMMFLOW_DENSITYDIRECTION_H_

#include "model/Architecture.h"

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
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

private:
    /** A marginal or an entry of the base density, with the positions of its tensors in the list. */
    struct DistributionPlan {
        std::string type;
        at::Tensor coordinates;
        std::optional<std::size_t> lower, upper, mean, std;
    };
    struct DensePlan {
        std::size_t weight, bias;
    };
    struct CouplingPlan {
        at::Tensor transformed, plain, circular;    // indices; the latter two are those that are conditioned on
        std::vector<std::int64_t> transformedIsCircle;
        SmoothMixtureTransformer transformer;
        std::string activation;
        std::vector<std::vector<DensePlan>> networks;
    };

    DistributionPlan plan(const CoordinateDistributions& distributions, const std::string& prefix) const;
    CouplingPlan plan(const CouplingLayer& layer, const std::string& prefix, const std::vector<Domain>& domains) const;
    std::size_t tensorIndex(const std::string& name) const;
    at::Tensor applyCoupling(const CouplingPlan& coupling, const std::vector<at::Tensor>& tensors, at::Tensor& y) const;

    std::vector<std::string> tensorNames;
    std::int64_t numParticles;
    std::vector<std::int64_t> zMatrix;
    bool frameMeasure;
    std::vector<DistributionPlan> marginals, bases;
    std::vector<CouplingPlan> couplings;
    at::Tensor bounded;     // coordinates whose density ends at the edges of an interval
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DENSITYDIRECTION_H_
