// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COORDINATEKERNEL_H_
#define OPENMMFLOW_COORDINATEKERNEL_H_

#include "formulas/Formulas.h"

#include <array>
#include <cstdint>
#include <vector>

namespace OpenMMFlow {

using ZMatrixRow = std::array<std::int64_t, 4>;

/**
 * What the first layers of flows have in common: coordinates of one molecule, ln|det J|, and the gradient of
 * Phi = sum(vCoordinates*coordinates) + vLogDet ln|det J| with respect to the positions. Real is double, a vector of doubles, or a dual
 * number of either.
 */
template <class Real>
class CoordinateKernel {
public:
    using Formula = Formulas<Real>;
    using Vector = typename Formula::Vector;

    std::vector<Vector> positions, gradient;
    std::vector<Real> coordinates, vCoordinates;
    Real logDet, vLogDet = Real(0);

protected:
    static constexpr double PI = 3.14159265358979324;
    static constexpr double LOG_PI = 1.14472988584940017;
    static constexpr double LOG_2_PI = 1.83787706640934548;
    static constexpr double LOG_8_PI_SQUARED = 4.36890131337863628;

    /** Keeps its room when it is called again. */
    void resize(std::int64_t numParticles, std::int64_t numCoordinates) {
        positions.resize(numParticles);
        gradient.resize(numParticles);
        coordinates.resize(numCoordinates);
        vCoordinates.assign(numCoordinates, Real(0));
        vLogDet = Real(0);
    }

    void clear() {
        const Real zero(0);
        for (Vector& g : gradient)
            g = {zero, zero, zero};
        logDet = zero;
    }

    void add(std::int64_t atom, const Real& factor, const Vector& v) {
        gradient[atom] = Formula::vectorCombination(Real(1), gradient[atom], factor, v);
    }

    /** A bond takes part in ln|det J| as -power ln b. */
    void addBond(const ZMatrixRow& row, std::int64_t index, int power) {
        auto bond = Formula::bondLength(positions[row[0]], positions[row[1]]);
        coordinates[index] = bond.length;
        logDet = logDet-Real(power)*log(bond.length);
        const Real v = vCoordinates[index]-Real(power)*vLogDet/bond.length;
        add(row[0], v, bond.dI);
        add(row[1], -v, bond.dI);
    }

    /** An angle takes part in ln|det J| as -power ln sin. */
    void addAngle(const ZMatrixRow& row, std::int64_t index, int power) {
        using std::atan2;
        auto angle = Formula::bondAngle(positions[row[0]], positions[row[1]], positions[row[2]]);
        coordinates[index] = atan2(angle.sine, angle.cosine)*Real(1/PI);
        logDet = logDet-Real(power)*log(angle.sine);
        const Real vTheta = vCoordinates[index]*Real(1/PI)-Real(power)*vLogDet*angle.cosine/angle.sine;
        const Real vCosine = -vTheta/angle.sine;
        add(row[0], vCosine, angle.dI);
        add(row[2], vCosine, angle.dK);
        add(row[1], -vCosine, Formula::vectorCombination(Real(1), angle.dI, Real(1), angle.dK));
    }

    void addTorsion(const ZMatrixRow& row, std::int64_t index) {
        using std::atan2;
        auto torsion = Formula::torsion(positions[row[0]], positions[row[1]], positions[row[2]], positions[row[3]]);
        coordinates[index] = atan2(torsion.scaledSine, torsion.scaledCosine)*Real(0.5/PI)+Real(0.5);
        const Real v = vCoordinates[index]*Real(0.5/PI);
        add(row[0], v, torsion.dI);
        add(row[1], v, torsion.dJ);
        add(row[2], v, torsion.dK);
        add(row[3], v, torsion.dL);
    }

    /** A row without an entry of -1. */
    void addFullRow(const ZMatrixRow& row, std::int64_t bond, std::int64_t angle, std::int64_t torsion) {
        addBond(row, bond, 2);
        addAngle(row, angle, 1);
        addTorsion(row, torsion);
        logDet = logDet-Real(LOG_PI+LOG_2_PI);
    }
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COORDINATEKERNEL_H_
