// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_SMOOTHMIXTURE_H_
#define OPENMMFLOW_SMOOTHMIXTURE_H_

#include "formulas/Formulas.h"
#include "model/Architecture.h"

#include <vector>

namespace OpenMMFlow {

/**
 * The smooth mixture transformer of a coupling, y = sum_k w_k F_k(x) elementwise for D coordinates, in density direction:
 * F itself, or its inverse if the closed form is that of the sampling direction.
 */
class SmoothMixture {
public:
    /** A component of one coordinate: its parameters, their derivatives with respect to raw values, and F at the current x. */
    struct Component {
        double weight, mu;
        Formulas<double>::HeadParameter alpha, sigma, floor;
        double dMu;                                     // d mu/d raw; not used by the published head
        double centreShare;                             // softmax behind mu in the published head
        Formulas<double>::MixtureComponentEnds ends;
        Formulas<double>::SmoothSigmoid sigmoid;
        Formulas<double>::MixtureComponent value;
        double argument, winding;
    };
    struct State {
        std::vector<Component> components;              // (D, K)
        std::vector<double> argument;                   // (D) where the F_k are evaluated: x, or the root
        std::vector<Formulas<double>::MixtureComponent> mixture;    // (D) F, F', F'' of the sum
    };

    SmoothMixture(const SmoothMixtureTransformer& description, const std::vector<Domain>& domains);
    State createState() const;
    int getNumCoordinates() const {
        return static_cast<int>(circular.size());
    }
    /** 5*D*K */
    int getNumRawParameters() const;

    /**
     * @param x    (D)
     * @param raw  (5, D, K), blocks [w | alpha | mu | ln sigma | m]
     * @param y    out, (D)
     * @return sum over coordinates of ln |dy/dx|
     */
    double forward(const double* x, const double* raw, double* y, State& state) const;
    /**
     * Gradient of L = l(y) + sum ln |dy/dx|.
     *
     * @param yGradient    (D), dl/dy
     * @param xGradient    out, (D), dL/dx
     * @param rawGradient  out, (5, D, K)
     */
    void backward(const double* yGradient, double* xGradient, double* rawGradient, const State& state) const;
    /** A lower bound of sum ln |dy/dx| over all x and parameters: exact for the closed form, of that order for its inverse. */
    double getLowerBound() const;

private:
    void evaluateHead(int coordinate, const double* raw, Component* components) const;
    Formulas<double>::MixtureComponent evaluateMixture(int coordinate, double x, Component* components) const;
    double solve(int coordinate, double y, Component* components, Formulas<double>::MixtureComponent& mixture) const;

    SmoothMixtureTransformer description;
    std::vector<bool> circular;                         // (D)
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_SMOOTHMIXTURE_H_
