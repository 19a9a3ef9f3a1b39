// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_MARGINALS_H_
#define OPENMMFLOW_MARGINALS_H_

#include "formulas/Formulas.h"
#include "model/Architecture.h"

#include <vector>

namespace OpenMMFlow {

/** Distributions of single coordinates: the layer that maps to [0,1] by their CDFs, and the base density. */
class Marginals {
public:
    using State = std::vector<Formulas<double>::MarginalValue>;    // [coordinates of the distributions][M]

    explicit Marginals(const CoordinateDistributions& distributions);
    /** Room for M molecules. */
    State createState(int M) const;

    /**
     * As a layer: replace the coordinates of M molecules, [n][M], by their CDFs and add ln|det J| to `logDet` [M]; -inf if a coordinate
     * is outside of the support, which then becomes 1/2.
     */
    void forward(int M, double* coordinates, double* logDet, State& state) const;
    /** `gradient` [n][M]: from after to before the layer, with ln|det J| added to L. */
    void backward(int M, double* gradient, const State& state) const;

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
    struct Parameters {
        double lower, inverseWidth, logInverseWidth;                         // uniform
        double mean, inverseStd, cdfLower, inverseMass, logNorm;             // normal, truncated normal
    };
    Distribution distribution;
    std::vector<int> coordinates;
    std::vector<Parameters> parameters;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_MARGINALS_H_
