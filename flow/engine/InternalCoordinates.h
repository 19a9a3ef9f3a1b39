// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_INTERNALCOORDINATES_H_
#define OPENMMFLOW_INTERNALCOORDINATES_H_

#include "engine/CartesianBlock.h"
#include "engine/GeometryPlan.h"
#include "model/Architecture.h"

#include <array>
#include <optional>
#include <vector>

namespace OpenMMFlow {

/**
 * The coordinates of a molecule that the first layer makes, in their order (docs/model_format.md), and its positions from them: bonds,
 * angles and torsions, and those of a block in Cartesians if it has one.
 */
class InternalCoordinates {
public:
    explicit InternalCoordinates(const Architecture& architecture);
    /** The part of a plan that is about internal coordinates; valid as long as this object. */
    void describe(GeometryPlan& plan) const;

    /**
     * The sampling direction: positions from coordinates. The first frame atom is at the origin, the second on the positive x axis, the
     * third in the xy plane with positive y; a block is where its reference is.
     *
     * @param coordinates  (n)
     * @param positions    out, (P, 3), nm
     * @return ln|det d(coordinates)/dx| in the model's measure; -inf if no conformation has these coordinates
     */
    double place(const double* coordinates, double* positions) const;

private:
    void addRows(const std::vector<std::array<int, 4>>& rows, std::vector<bool> placed);
    double placeFrame(const double* bonds, const double* angles, double* positions) const;

    std::optional<CartesianBlock> block;
    std::vector<std::array<int, 2>> bondAtoms;
    std::vector<std::array<int, 3>> angleAtoms;
    std::vector<std::array<int, 4>> torsionAtoms;
    std::vector<int> placementOrder;                          // of the torsions' rows
    int numParticles;
    Measure measure;
    double logConstant;                                       // without that of the block
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_INTERNALCOORDINATES_H_
