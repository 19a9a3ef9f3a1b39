// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COUPLING_H_
#define OPENMMFLOW_COUPLING_H_

#include "engine/DenseNetwork.h"
#include "engine/SmoothMixture.h"

#include <vector>

namespace OpenMMFlow {

/** A coupling layer in density direction: features -> networks -> transformer. */
class Coupling {
public:
    struct State {
        std::vector<double> features, featureGradient;     // (features)
        std::vector<double> raw, rawGradient;               // (raw parameters)
        std::vector<double> input, output;                  // (transformed): before and after; in backward the gradients
        std::vector<DenseNetwork::State> networks;
        SmoothMixture::State transformer;
    };

    /** @param domains  of all coordinates before the layer */
    Coupling(const CouplingLayer& layer, const std::vector<Domain>& domains);
    State createState() const;

    /** Replace the transformed ones of `coordinates` (n) and return ln|det J|. */
    double forward(double* coordinates, State& state) const;
    /** Turn `gradient` (n), dL/d(coordinates after the layer), into that before it, with ln|det J| of the layer added to L. */
    void backward(double* gradient, State& state) const;
    double getLowerBound() const {
        return transformer.getLowerBound();
    }

private:
    std::vector<int> transformed;
    std::vector<int> plain, circular;    // of the conditioning coordinates, which the layer leaves as they are
    std::vector<DenseNetwork> networks;
    SmoothMixture transformer;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COUPLING_H_
