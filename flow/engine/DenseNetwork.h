// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DENSENETWORK_H_
#define OPENMMFLOW_DENSENETWORK_H_

#include "model/Architecture.h"

#include <vector>

namespace OpenMMFlow {

/** One dense network of a conditioner: h -> activation(W h + b) for all layers but the last, which is affine. */
class DenseNetwork {
public:
    /** What forward leaves for backward. */
    struct State {
        /** Outputs of each hidden layer after its activation, and the derivatives of the activation: [layer][output] */
        std::vector<std::vector<double>> values, slopes;
        /** Gradients with respect to the outputs of two successive layers, each as wide as the widest. */
        std::vector<double> gradient, nextGradient;
    };

    DenseNetwork(const std::vector<DenseLayer>& layers, ActivationType activation);
    State createState() const;
    int getNumOutputs() const;

    /** @param features  (inputs);  @param outputs  out, (outputs) */
    void forward(const double* features, double* outputs, State& state) const;
    /** @param outputGradient  (outputs);  @param featureGradient  (inputs), added to */
    void backward(const double* outputGradient, double* featureGradient, State& state) const;

private:
    struct Layer {
        int numInputs, numOutputs;
        std::vector<double> weight;              // (outputs, inputs), read by backward
        std::vector<double> transposedWeight;    // (inputs, outputs), read by forward
        std::vector<double> bias;                // (outputs)
    };
    std::vector<Layer> layers;
    ActivationType activation;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DENSENETWORK_H_
