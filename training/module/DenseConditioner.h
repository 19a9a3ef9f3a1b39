// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DENSECONDITIONER_H_
#define OPENMMFLOW_DENSECONDITIONER_H_

#include "module/Stage.h"
#include "operators/Differentiable.h"

#include <cstddef>
#include <vector>

namespace OpenMMFlow {

/**
 * The dense networks of a coupling with the features that they read: all raw parameters (outputs, N) of coordinates (rows, N), and
 * the three other sweeps of Stage.h.
 */
class DenseConditioner {
public:
    struct Layer {
        std::size_t weight, bias;    // in the flow's tensors; (outputs, inputs) and (outputs)
    };
    using Network = std::vector<Layer>;

    /** What the sweeps keep: h[n][m] enters layer m of network n, and preactivation[n][m] leaves it unless it is the last. */
    struct Values {
        at::Tensor features;
        std::vector<TensorList> h, preactivation;
    };
    struct Cotangents {
        at::Tensor features;
        std::vector<TensorList> outputs, h;    // of each layer, and of what enters it
    };
    struct Tangents {
        at::Tensor features;
        std::vector<TensorList> h, curvature;    // what the second derivative of an activation adds to the gradient
    };

    /**
     * @param plain, circular  coordinates that the networks read; a circular one as cosine and sine
     * @param activation       of all layers but the last ones
     */
    DenseConditioner(std::vector<int> plain, std::vector<int> circular, c10::intrusive_ptr<DifferentiableOperator> activation,
            std::vector<Network> networks);

    /** @return the raw parameters; fills values */
    at::Tensor value(const at::Tensor& y, const TensorList& tensors, Values& values) const;
    /** Adds to vY what reaches it through the networks. */
    void gradient(const at::Tensor& vRaw, at::Tensor& vY, const TensorList& tensors, const Values& values, Cotangents& cotangents,
            TensorList* gradients) const;
    /** @return the tangent of the raw parameters */
    at::Tensor tangent(const at::Tensor& yTangent, const TensorList& tensors, const TensorList& direction, const Values& values,
            const Cotangents& cotangents, Tangents& tangents) const;
    void gradientTangent(const at::Tensor& vRawTangent, at::Tensor& vYTangent, const TensorList& tensors, const TensorList& direction,
            const Values& values, const Cotangents& cotangents, const Tangents& tangents, TensorList* gradients) const;

private:
    std::int64_t numFeatures() const {
        return plain.size()+2*circular.size();
    }
    at::Tensor emptyRaw(const TensorList& tensors, std::int64_t samples) const;

    std::vector<int> plain, circular;
    c10::intrusive_ptr<DifferentiableOperator> activation;
    std::vector<Network> networks;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DENSECONDITIONER_H_
