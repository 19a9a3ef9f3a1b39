// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_CARTESIANBLOCK_H_
#define OPENMMFLOW_CARTESIANBLOCK_H_

#include "engine/GeometryPlan.h"
#include "model/BlockWhitening.h"

#include <vector>

namespace OpenMMFlow {

/** The block of mixed coordinates, and its positions from them. */
class CartesianBlock {
public:
    CartesianBlock(const MixedCoordinatesLayer& layer, Measure measure);
    /** The part of a plan that is about the block, with its constant of ln|det|; valid as long as this object. */
    void describe(GeometryPlan& plan) const;

    /**
     * The sampling direction.
     *
     * @param coordinates  (dimensions)
     * @param positions    (numParticles, 3), nm; those of the block are set
     * @return ln|det|; -inf if nothing aligned has these coordinates
     */
    double place(const double* coordinates, double* positions) const;

private:
    std::vector<int> block;
    BlockWhitening whitening;
    std::vector<double> offset;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_CARTESIANBLOCK_H_
