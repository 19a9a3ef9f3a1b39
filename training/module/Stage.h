// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_STAGE_H_
#define OPENMMFLOW_STAGE_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

namespace OpenMMFlow {

/** What a stage keeps of a sweep for those that come after it; each stage has records of its own. */
struct Record {
    virtual ~Record() = default;
};
using RecordPointer = std::shared_ptr<const Record>;

/** The tensors of a flow in the order of their names, or something for each of them: undefined where there is none. */
using TensorList = std::vector<at::Tensor>;

/**
 * One step of the density direction, with the four sweeps that training is made of. Coordinates stand in rows, samples in the last
 * dimension; autograd sees none of it (FlowFunction).
 *
 *  1. value             y of the step before to y of this one; adds to ln p
 *  2. gradient          in the opposite order: the cotangent of this step's y to that of the one before, and gradients of weights
 *  3. tangent           the derivative of 1 along a direction in the space of positions and weights
 *  4. gradientTangent   in the opposite order: the derivative of 2 along that direction
 *
 * With Phi = sum(cotangents*outputs), the fourth returns the Hessian of Phi times the direction, plus the gradient of sum(tangents of
 * the cotangents*outputs): a whole backward of the gradient in one sweep. Sweeps may change the y, cotangent or tangent that
 * they are given in place, but not what is in records.
 */
class Stage {
public:
    struct State {
        at::Tensor y;           // (rows, N); the positions (N, particles, 3) before the first stage
        at::Tensor logProb;     // (N), double
        at::Tensor inside;      // (N), whether the sample lies within the support; undefined: all do
    };
    struct Variation {
        at::Tensor y;           // a cotangent or tangent of State::y
        at::Tensor logProb;     // and of State::logProb; the same in all stages if it is a cotangent
    };
    /** All that belongs to a point in the space of positions and weights, and to a direction there. */
    struct Point {
        const TensorList& tensors;
        const Record& values;
    };
    struct Direction {
        const TensorList& tensors;    // of the direction; no tensors, or undefined ones: 0
        const Record& cotangents;     // what gradient() has kept
    };

    virtual ~Stage() = default;

    virtual RecordPointer value(State& state, const TensorList& tensors) const = 0;
    /** @param gradients  receives those of the weights of this stage unless it is null */
    virtual RecordPointer gradient(Variation& cotangent, const Point& point, TensorList* gradients) const = 0;
    virtual RecordPointer tangent(Variation& tangent, const Point& point, const Direction& direction) const = 0;
    /** @param curvature  what tangent() has kept */
    virtual void gradientTangent(Variation& cotangentTangent, const Point& point, const Direction& direction, const Record& curvature,
            TensorList* gradients) const = 0;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_STAGE_H_
