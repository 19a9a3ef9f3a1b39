// SPDX-License-Identifier: MIT
#include "engine/DenseNetwork.h"
#include "formulas/Formulas.h"

#include <algorithm>

using namespace OpenMMFlow;
using namespace std;

namespace {

using F = Formulas<double>;

// The compiler writes the loop for several instruction sets and the dynamic loader picks one.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTOR_CLONES
#endif

/** y[column] += sum over rows of x[row] matrix[row][column]: the order of the sum does not depend on the vector width. */
VECTOR_CLONES
void addProduct(int rows, int columns, const double* __restrict matrix, const double* __restrict x, double* __restrict y) {
    int row = 0;
    for (; row+4 <= rows; row += 4) {
        const double* m0 = matrix+row*static_cast<size_t>(columns);
        const double* m1 = m0+columns;
        const double* m2 = m1+columns;
        const double* m3 = m2+columns;
        for (int column = 0; column < columns; column++)
            y[column] += (x[row]*m0[column]+x[row+1]*m1[column])+(x[row+2]*m2[column]+x[row+3]*m3[column]);
    }
    for (; row < rows; row++) {
        const double* m = matrix+row*static_cast<size_t>(columns);
        for (int column = 0; column < columns; column++)
            y[column] += x[row]*m[column];
    }
}

template <F::Activation (*function)(double)>
void activate(vector<double>& values, vector<double>& slopes) {
    for (size_t i = 0; i < values.size(); i++) {
        F::Activation a = function(values[i]);
        values[i] = a.value;
        slopes[i] = a.d1;
    }
}

void applyActivation(ActivationType type, vector<double>& values, vector<double>& slopes) {
    switch (type) {
        case ActivationType::SiLU: return activate<F::activationSiLU>(values, slopes);
        case ActivationType::Tanh: return activate<F::activationTanh>(values, slopes);
        case ActivationType::Sin: return activate<F::activationSin>(values, slopes);
        case ActivationType::GELU: return activate<F::activationGELU>(values, slopes);
        case ActivationType::Softplus: return activate<F::activationSoftplus>(values, slopes);
    }
}

} // namespace

DenseNetwork::DenseNetwork(const vector<DenseLayer>& layers, ActivationType activation) : activation(activation) {
    for (const DenseLayer& source : layers) {
        Layer layer;
        layer.numOutputs = static_cast<int>(source.weight.shape[0]);
        layer.numInputs = static_cast<int>(source.weight.shape[1]);
        layer.weight = source.weight.values;
        layer.bias = source.bias.values;
        layer.transposedWeight.resize(layer.weight.size());
        for (int o = 0; o < layer.numOutputs; o++)
            for (int i = 0; i < layer.numInputs; i++)
                layer.transposedWeight[i*static_cast<size_t>(layer.numOutputs)+o] =
                        layer.weight[o*static_cast<size_t>(layer.numInputs)+i];
        this->layers.push_back(move(layer));
    }
}

DenseNetwork::State DenseNetwork::createState() const {
    State state;
    int widest = 0;
    for (const Layer& layer : layers) {
        if (&layer != &layers.back()) {
            state.values.emplace_back(layer.numOutputs);
            state.slopes.emplace_back(layer.numOutputs);
        }
        widest = max({widest, layer.numInputs, layer.numOutputs});
    }
    state.gradient.resize(widest);
    state.nextGradient.resize(widest);
    return state;
}

int DenseNetwork::getNumOutputs() const {
    return layers.back().numOutputs;
}

void DenseNetwork::forward(const double* features, double* outputs, State& state) const {
    const double* input = features;
    for (size_t i = 0; i < layers.size(); i++) {
        const Layer& layer = layers[i];
        bool last = (i+1 == layers.size());
        double* output = (last ? outputs : state.values[i].data());
        copy(layer.bias.begin(), layer.bias.end(), output);
        addProduct(layer.numInputs, layer.numOutputs, layer.transposedWeight.data(), input, output);
        if (!last)
            applyActivation(activation, state.values[i], state.slopes[i]);
        input = output;
    }
}

void DenseNetwork::backward(const double* outputGradient, double* featureGradient, State& state) const {
    const double* gradient = outputGradient;
    for (size_t i = layers.size()-1; i > 0; i--) {
        const Layer& layer = layers[i];
        fill_n(state.nextGradient.begin(), layer.numInputs, 0.0);
        addProduct(layer.numOutputs, layer.numInputs, layer.weight.data(), gradient, state.nextGradient.data());
        const vector<double>& slopes = state.slopes[i-1];
        for (int j = 0; j < layer.numInputs; j++)
            state.nextGradient[j] *= slopes[j];
        swap(state.gradient, state.nextGradient);
        gradient = state.gradient.data();
    }
    addProduct(layers[0].numOutputs, layers[0].numInputs, layers[0].weight.data(), gradient, featureGradient);
}
