// SPDX-License-Identifier: MIT
#include "WeightStream.h"

#include <algorithm>

namespace OpenMMFlow {

WeightStream::WeightStream(const FlowModel& model) {
    for (const Layer& layer : model.getArchitecture().layers) {
        const CouplingLayer* coupling = std::get_if<CouplingLayer>(&layer);
        if (coupling == nullptr)
            continue;
        for (const std::vector<DenseLayer>& network : coupling->conditioner.networks)
            for (const DenseLayer& dense : network) {
                Matrix m;
                m.outputs = static_cast<int>(dense.weight.shape[0]);
                m.inputs = static_cast<int>(dense.weight.shape[1]);
                m.backward.assign(dense.weight.values.begin(), dense.weight.values.end());
                for (int i = 0; i < m.inputs; i++)
                    for (int o = 0; o < m.outputs; o++)
                        m.forward.push_back(m.backward[o*static_cast<std::size_t>(m.inputs)+i]);
                m.x.assign(m.inputs, 0.01f);
                m.y.assign(m.outputs, 0.01f);
                matrices.push_back(std::move(m));
            }
    }
}

/** y = matrix^T x, matrix (rows, columns): sums over the rows, so that the inner loop needs no reduction. */
static void product(int rows, int columns, const float* __restrict matrix, const float* __restrict x, float* __restrict y) {
    std::fill_n(y, columns, 0.0f);
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++)
            y[column] += matrix[row*static_cast<std::size_t>(columns)+column]*x[row];
}

float WeightStream::run() {
    float sum = 0;
    for (Matrix& m : matrices) {
        product(m.inputs, m.outputs, m.forward.data(), m.x.data(), m.y.data());
        sum += m.y[0];
    }
    for (std::size_t i = matrices.size(); i-- > 0;) {
        Matrix& m = matrices[i];
        product(m.outputs, m.inputs, m.backward.data(), m.y.data(), m.x.data());
        sum += m.x[0];
        // Inputs of the next run, of the size of activations whatever the weights are.
        std::fill(m.x.begin(), m.x.end(), 0.01f);
    }
    return sum;
}

} // namespace OpenMMFlow
