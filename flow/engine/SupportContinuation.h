// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_SUPPORTCONTINUATION_H_
#define OPENMMFLOW_SUPPORTCONTINUATION_H_

#include "engine/Evaluator.h"
#include "engine/GeometryPlan.h"
#include "model/BlockWhitening.h"

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
    /** Edges of a coordinate. */
    struct Support {
        double lower, upper;
    };

    SupportContinuation(const FlowModel& model, const SupportMargins& margins, double logProbLowerBound);
    /** The part of a plan that is about the continuation; valid as long as this object. */
    void describe(GeometryPlan& plan) const;
    /** c, larger than any -ln p(s(x)). */
    double getCeiling() const {
        return ceiling;
    }

private:
    void addBlock(const BlockWhitening& whitening, const std::vector<Support>& supports);

    std::vector<SupportRange> bonds, angles, torsionAngles, block;
    SupportRange radius = {};    // of gyration of the block
    double ceiling;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_SUPPORTCONTINUATION_H_
