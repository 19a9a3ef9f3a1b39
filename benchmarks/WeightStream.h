// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_BENCHMARKS_WEIGHTSTREAM_H_
#define OPENMMFLOW_BENCHMARKS_WEIGHTSTREAM_H_

#include "model/FlowModel.h"

#include <vector>

namespace OpenMMFlow {

/**
 * The floor: what an evaluation with gradient cannot do without. Every weight of the model is multiplied once forward, y = W x, and
 * once transposed, x' = W^T y', by plain loops that a compiler vectorizes; there are no activations and no transformers.
 */
class WeightStream {
public:
    explicit WeightStream(const FlowModel& model);
    /** All layers of all networks forward, then all of them backward. @return a number that depends on every product */
    float run();

private:
    struct Matrix {
        int inputs, outputs;
        std::vector<float> forward;      // (inputs, outputs)
        std::vector<float> backward;     // (outputs, inputs)
        std::vector<float> x, y;         // (inputs), (outputs)
    };
    std::vector<Matrix> matrices;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_BENCHMARKS_WEIGHTSTREAM_H_
