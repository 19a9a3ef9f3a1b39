// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_INTERNALCOORDINATES_H_
#define OPENMMFLOW_INTERNALCOORDINATES_H_

#include "formulas/Formulas.h"
#include "model/Architecture.h"

#include <array>
#include <vector>

namespace OpenMMFlow {

/**
 * Positions of a molecule to bonds, angles and torsions, in coordinate order (docs/model_format.md), in nm and rad.
 *
 * The stage has two halves, because FlowForce puts its continuation between them: the geometry, and the flow's coordinates with
 * their ln|det J| as functions of that geometry.
 */
class InternalCoordinates {
public:
    struct State {
        std::vector<Formulas<double>::Bond> bonds;                // (P-1)
        std::vector<Formulas<double>::Angle> angles;              // (P-2) of the Z-matrix
        std::vector<Formulas<double>::Angle> torsionAngles;       // (P-3) the angle jkl of each torsion i-j-k-l
        std::vector<Formulas<double>::Torsion> torsions;          // (P-3)
        std::vector<double> bondValues, angleValues, torsionValues;     // nm, rad, rad
        /** dL/d of the above, filled by whoever calls backward; the cosines' ones go through gradients of cosines. */
        std::vector<double> bondGradient, angleGradient, angleCosineGradient, torsionAngleCosineGradient, torsionGradient;
    };

    InternalCoordinates(const std::vector<std::array<int, 4>>& zMatrix, int numParticles, Measure measure);
    State createState() const;
    int getNumBonds() const {
        return static_cast<int>(bondAtoms.size());
    }
    int getNumAngles() const {
        return static_cast<int>(angleAtoms.size());
    }
    int getNumTorsions() const {
        return static_cast<int>(torsionAtoms.size());
    }

    /** Bonds and angles, which exist wherever no two atoms coincide. @param positions  (P, 3) */
    void computeBondsAndAngles(const double* positions, State& state) const;
    /** Torsions, which exist wherever neither of their angles is 0 or pi. */
    void computeTorsions(const double* positions, State& state) const;

    /**
     * The flow's coordinates from bonds and angles (possibly continued) and torsions.
     *
     * @param bonds, angles  (P-1) nm, (P-2) rad
     * @param torsions       (P-3) rad in [-pi, pi]
     * @param coordinates    out, (3P-6): nm, angle/pi, (torsion+pi)/2pi
     * @return ln|det d(coordinates)/dx| in the model's measure
     */
    double normalize(const double* bonds, const double* angles, const double* torsions, double* coordinates) const;
    /**
     * Gradient of L = l(coordinates) + ln|det|.
     *
     * @param gradient  (3P-6), dl/d(coordinates)
     * @param bondGradient, angleGradient, torsionGradient  out, dL/d of the arguments of normalize
     */
    void normalizeBackward(const double* bonds, const double* angles, const double* gradient, double* bondGradient,
            double* angleGradient, double* torsionGradient) const;

    /**
     * The sampling direction: positions from coordinates. The first frame atom is at the origin, the second on the positive x axis, the
     * third in the xy plane with positive y.
     *
     * @param coordinates  (3P-6)
     * @param positions    out, (P, 3), nm
     * @return ln|det d(coordinates)/dx| in the model's measure
     */
    double place(const double* coordinates, double* positions, State& state) const;

    /** Positions' gradient (P, 3), overwritten, from the gradients in `state`. Torsions are left out if `withTorsions` is false. */
    void backward(double* positionGradient, bool withTorsions, State& state) const;

private:
    /** ln|det d(coordinates)/dx| */
    double logDeterminant(const double* bonds, const double* angles) const;

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
