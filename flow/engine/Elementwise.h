// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_ELEMENTWISE_H_
#define OPENMMFLOW_ELEMENTWISE_H_

#include "engine/GeometryPlan.h"
#include "model/Architecture.h"

#include <vector>

namespace OpenMMFlow {

/** A layer that maps single coordinates without a network. */
class Elementwise {
public:
    explicit Elementwise(const ElementwiseLayer& layer);
    /** For its kernels; valid as long as this object. */
    MarginalPlan plan() const;
    /** The sampling direction. Adds ln|det J| of the density direction to `logDet` [M]. */
    void sample(int M, double* coordinates, double* logDet) const;

    const std::vector<int>& getCoordinates() const {
        return coordinates;
    }

private:
    MarginalPlan::Map map;
    std::vector<int> coordinates;
    std::vector<MarginalPlan::Parameters> parameters;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_ELEMENTWISE_H_
