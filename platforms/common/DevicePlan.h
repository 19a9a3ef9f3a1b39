// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DEVICEPLAN_H_
#define OPENMMFLOW_DEVICEPLAN_H_

#include "FlowForce.h"

#include <vector>

namespace OpenMMFlow {

using mixed = double;    // constants are uploaded in the precision of the device
#include "kernels/FlowPlan.h"

/**
 * A FlowForce's model and margins as the arrays that the device kernel works on; kernels/FlowPlan.h says what is in them. Those of two
 * models of the same architecture differ in `constants` and `weights` alone.
 */
struct DevicePlan {
    /** What the kernel is compiled with. */
    struct Shape {
        int tile;         // molecules of a tile
        int maxSlices;    // rows that work-items sum up first when a column is reduced
        int groupSize;    // work-items of a group
    };
    DevicePlan(const FlowForce& force, const Shape& shape);

    FlowLayout layout = {};
    std::vector<FlowOperation> program;
    std::vector<FlowStage> stages;
    std::vector<FlowStep> steps;
    std::vector<FlowProduct> products;
    std::vector<int> indices;
    std::vector<double> constants, weights;

private:
    class Builder;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DEVICEPLAN_H_
