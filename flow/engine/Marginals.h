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
    struct State {
        std::vector<Formulas<double>::MarginalValue> values;    // (coordinates of the distributions)
    };

    explicit Marginals(const CoordinateDistributions& distributions);
    State createState() const;

    /** As a layer: replace `coordinates` (n) by their CDFs. @return ln|det J|; -inf if a coordinate is outside the support */
    double forward(double* coordinates, State& state) const;
    /** `gradient` (n): from after to before the layer, with ln|det J| added to L. */
    void backward(double* gradient, const State& state) const;

    /** As a base density: ln p of `latent` (n); adds its derivative to `gradient` (n) if not null. */
    double logDensity(const double* latent, double* gradient) const;

    /** The support of each coordinate; infinite for normal ones. */
    static double lowerEdge(const CoordinateDistributions& distributions, int index);
    static double upperEdge(const CoordinateDistributions& distributions, int index);

    Formulas<double>::MarginalValue evaluate(int index, double x) const;
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
