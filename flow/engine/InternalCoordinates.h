// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_INTERNALCOORDINATES_H_
#define OPENMMFLOW_INTERNALCOORDINATES_H_

#include "engine/GeometryPlan.h"
#include "model/Architecture.h"

#include <array>
#include <vector>

namespace OpenMMFlow {

/** Bonds, angles and torsions of a molecule, in coordinate order (docs/model_format.md), and its positions from them. */
class InternalCoordinates {
public:
    InternalCoordinates(const std::vector<std::array<int, 4>>& zMatrix, int numParticles, Measure measure);
    /** The part of a plan that is about internal coordinates; valid as long as this object. */
    void describe(GeometryPlan& plan) const;

    /**
     * The sampling direction: positions from coordinates. The first frame atom is at the origin, the second on the positive x axis, the
     * third in the xy plane with positive y.
     *
     * @param coordinates  (3P-6)
     * @param positions    out, (P, 3), nm
     * @return ln|det d(coordinates)/dx| in the model's measure
     */
    double place(const double* coordinates, double* positions) const;

private:
    std::vector<std::array<int, 2>> bondAtoms;
    std::vector<std::array<int, 3>> angleAtoms;
    std::vector<std::array<int, 4>> torsionAtoms;
    std::vector<int> placementOrder;                          // of the torsions' rows
    int numParticles;
    Measure measure;
    double logConstant;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_INTERNALCOORDINATES_H_
