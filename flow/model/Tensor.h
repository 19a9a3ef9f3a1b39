// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_TENSOR_H_
#define OPENMMFLOW_TENSOR_H_

#include <cstdint>
#include <vector>

namespace OpenMMFlow {

enum class TensorType { Float32, Float64 };

/**
 * A dense array of weights, row-major. Values are held in double, which represents both stored types exactly; `type` is the
 * type that they have in files.
 */
struct Tensor {
    TensorType type = TensorType::Float64;
    std::vector<std::int64_t> shape;
    std::vector<double> values;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TENSOR_H_
