// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_SUPPORTCONTINUATION_H_
#define OPENMMFLOW_SUPPORTCONTINUATION_H_

#include "engine/Evaluator.h"
#include "engine/InternalCoordinates.h"
#include "formulas/Formulas.h"

#include <vector>

namespace OpenMMFlow {

/**
 * What FlowForce puts between geometry and flow so that the potential is finite and C2 wherever no two atoms coincide
 * (docs/theory.md, "Outside the support"):
 *
 *     U/(k_B T) = lambda [c - chi (ln p(s(x)) + c)] + W
 *
 * s saturates bonds and angles inside their support; chi is a product over the bonds and over both angles of every torsion that
 * falls to 0 before a bond or a sine vanishes; W confines. All three leave the inner support as it is.
 */
class SupportContinuation {
public:
    struct State {
        std::vector<double> bonds, angles;                              // s(b), s(theta)
        std::vector<Formulas<double>::Continued> saturatedBonds, saturatedAngles;
        std::vector<Formulas<double>::Continued> chiBonds;              // factor and derivative with respect to the bond
        std::vector<Formulas<double>::Continued> chiAngles, chiTorsionAngles;    // with respect to the cosine
        std::vector<Formulas<double>::Continued> wallBonds, wallAngles;
        double chi, wall;
        bool outside;                                                   // any coordinate, of its inner support
    };

    SupportContinuation(const FlowModel& model, const SupportMargins& margins, double logProbLowerBound);
    State createState() const;
    /** c, larger than any -ln p(s(x)). */
    double getCeiling() const {
        return ceiling;
    }

    /** s, chi and W from the bonds and angles of `geometry`. */
    void forward(const InternalCoordinates::State& geometry, State& state) const;
    /**
     * Complete the gradients of `geometry` for lambda*flow + wall.
     *
     * @param flow  whether the flow was evaluated; then the bond, angle and torsion gradients of `geometry` hold those of ln p(s)
     */
    void backward(double lambda, bool flow, double logProb, InternalCoordinates::State& geometry, const State& state) const;

private:
    struct Range {
        double lower, upper, margin;                 // inner support and where s saturates, nm or rad
        double wallLower, wallUpper;                 // the same edges in the variable of the wall: nm, or cosine
        double chiLow0, chiLow1, chiHigh0, chiHigh1; // chi falls from 1 to 0 between *1 and *0: nm, or cosine
    };
    std::vector<Range> bonds, angles, torsionAngles;
    double ceiling;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_SUPPORTCONTINUATION_H_
