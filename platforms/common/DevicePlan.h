// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DEVICEPLAN_H_
#define OPENMMFLOW_DEVICEPLAN_H_

#include "FlowForce.h"
#include "FlowKernelSource.h"

#include <vector>

namespace OpenMMFlow {

using mixed = double;    // constants are uploaded in the precision of the device
#include "kernels/FlowPlan.h"

/**
 * A FlowForce's model and margins as the arrays that the device kernel works on; kernels/FlowPlan.h says what is in them. Those of two
 * models of the same architecture differ in `constants` and `weights` alone.
 */
struct DevicePlan {
    /** How the kernel shares out the work. */
    struct Shape {
        int tile;         // molecules of a tile
        int groupSize;    // work-items of a group
        bool keepsApart = false;    // what couplings keep for the way back is not among the rows that they work on
        bool sumsInWarps = false;   // work-items of a warp add up the slices of a sum: for groups of whole warps
        int cluster = 1;            // groups that share out the products of a molecule, where sums are in warps and arenas are local
        int slices = 0;             // of a sum, where sums are in warps; 0 where the plan chooses
    };
    DevicePlan(const FlowForce& force, const Shape& shape);

    FlowLayout layout = {};
    std::vector<int> table;    // the layout and the lists of operations, stages, steps, products or rounds, and indices
    std::vector<FlowQuad> quads;
    std::vector<double> constants, weights;
    int numCouplings = 0;
    int slices = 0;             // see Shape
    bool findsRoots = false;    // of transformers
    FlowKernelParts parts;

private:
    class Builder;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DEVICEPLAN_H_
