// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_INTERNALCOORDINATESKERNEL_H_
#define OPENMMFLOW_INTERNALCOORDINATESKERNEL_H_

#include "formulas/Formulas.h"

#include <array>
#include <cstdint>
#include <vector>

namespace OpenMMFlow {

/** A Z-matrix sorted into what its coordinates are: docs/model_format.md. */
struct ZMatrix {
    using Row = std::array<std::int64_t, 4>;

    /** Throws std::invalid_argument unless there is one row each with three, two and one entries of -1. */
    ZMatrix(const std::vector<Row>& rows, bool frameMeasure);

    std::int64_t numParticles() const {
        return (std::int64_t) full.size()+3;
    }
    std::int64_t numCoordinates() const {
        return 3*numParticles()-6;
    }

    Row second, third;         // rows of the frame atoms f1 and f2
    std::vector<Row> full;
    bool frameMeasure;
};

/**
 * Internal coordinates of one molecule, ln|det J|, and the gradient of Phi = sum(vCoordinates*coordinates) + vLogDet ln|det J|
 * with respect to the positions. Real is double or a dual number.
 */
template <class Real>
class InternalCoordinatesKernel {
public:
    using Formula = Formulas<Real>;
    using Vector = typename Formula::Vector;

    /** Keeps its room when it is configured again. The Z-matrix must exist as long as it is evaluated. */
    void configure(const ZMatrix& newZMatrix) {
        zMatrix = &newZMatrix;
        positions.resize(zMatrix->numParticles());
        gradient.resize(zMatrix->numParticles());
        coordinates.resize(zMatrix->numCoordinates());
        vCoordinates.assign(zMatrix->numCoordinates(), Real(0));
        vLogDet = Real(0);
    }

    /** Fills `coordinates` and `logDet` from `positions`, and `gradient` from `vCoordinates` and `vLogDet` as well. */
    void evaluate() {
        const std::int64_t P = zMatrix->numParticles();
        const Real zero(0);
        for (Vector& g : gradient)
            g = {zero, zero, zero};
        logDet = zero;
        const bool frame = zMatrix->frameMeasure;
        addBond(zMatrix->second, 0, frame ? 0 : 2);
        addBond(zMatrix->third, 1, frame ? 1 : 2);
        addAngle(zMatrix->third, P-1, frame ? 0 : 1);
        logDet = logDet-Real(LOG_PI);
        if (!frame)
            logDet = logDet-Real(LOG_8_PI_SQUARED);
        for (std::size_t row = 0; row < zMatrix->full.size(); row++) {
            addBond(zMatrix->full[row], 2+row, 2);
            addAngle(zMatrix->full[row], P+row, 1);
            addTorsion(zMatrix->full[row], 2*P-3+row);
            logDet = logDet-Real(LOG_PI+LOG_2_PI);
        }
    }

    std::vector<Vector> positions, gradient;
    std::vector<Real> coordinates, vCoordinates;
    Real logDet, vLogDet = Real(0);

private:
    static constexpr double PI = 3.14159265358979324;
    static constexpr double LOG_PI = 1.14472988584940017;
    static constexpr double LOG_2_PI = 1.83787706640934548;
    static constexpr double LOG_8_PI_SQUARED = 4.36890131337863628;

    void add(std::int64_t atom, const Real& factor, const Vector& v) {
        gradient[atom] = Formula::vectorCombination(Real(1), gradient[atom], factor, v);
    }

    /** A bond takes part in ln|det J| as -power ln b. */
    void addBond(const ZMatrix::Row& row, std::int64_t index, int power) {
        auto bond = Formula::bondLength(positions[row[0]], positions[row[1]]);
        coordinates[index] = bond.length;
        logDet = logDet-Real(power)*log(bond.length);
        const Real v = vCoordinates[index]-Real(power)*vLogDet/bond.length;
        add(row[0], v, bond.dI);
        add(row[1], -v, bond.dI);
    }

    /** An angle takes part in ln|det J| as -power ln sin. */
    void addAngle(const ZMatrix::Row& row, std::int64_t index, int power) {
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

    void addTorsion(const ZMatrix::Row& row, std::int64_t index) {
        using std::atan2;
        auto torsion = Formula::torsion(positions[row[0]], positions[row[1]], positions[row[2]], positions[row[3]]);
        coordinates[index] = atan2(torsion.scaledSine, torsion.scaledCosine)*Real(0.5/PI)+Real(0.5);
        const Real v = vCoordinates[index]*Real(0.5/PI);
        add(row[0], v, torsion.dI);
        add(row[1], v, torsion.dJ);
        add(row[2], v, torsion.dK);
        add(row[3], v, torsion.dL);
    }

    const ZMatrix* zMatrix = nullptr;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_INTERNALCOORDINATESKERNEL_H_
