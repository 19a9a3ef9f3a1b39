// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_MARGINALS_H_
#define OPENMMFLOW_MARGINALS_H_

#include "engine/GeometryPlan.h"
#include "formulas/Formulas.h"
#include "model/Architecture.h"

#include <vector>

namespace OpenMMFlow {

/** Distributions of single coordinates: the layer that maps to [0,1] by their CDFs, and the base density. */
class Marginals {
public:
    explicit Marginals(const CoordinateDistributions& distributions);
    /** As a layer, for its kernels; valid as long as this object. */
    MarginalPlan plan() const;

    /** The sampling direction: from [0,1] to the coordinates. Adds ln|det J| of the density direction to `logDet` [M]. */
    void sample(int M, double* coordinates, double* logDet) const;

    /** As a base density: latents [n][M] from uniform random numbers in the same places. */
    void sampleLatent(int M, double* latent) const;
    /** As a base density: add ln p of `latent` [n][M] to `logDensity` [M]. */
    void addLogDensity(int M, const double* latent, double* logDensity) const;
    /** Add its derivative to `gradient` [n][M]. */
    void addLogDensityGradient(int M, const double* latent, double* gradient) const;

    /** The support of each coordinate; infinite for normal ones. */
    static double lowerEdge(const CoordinateDistributions& distributions, int index);
    static double upperEdge(const CoordinateDistributions& distributions, int index);

    Formulas<double>::MarginalValue evaluate(int index, double x) const;
    /** The coordinate whose CDF is p. */
    double quantile(int index, double p) const;
    const std::vector<int>& getCoordinates() const {
        return coordinates;
    }

private:
    Distribution distribution;
    std::vector<int> coordinates;
    std::vector<MarginalPlan::Parameters> parameters;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_MARGINALS_H_
