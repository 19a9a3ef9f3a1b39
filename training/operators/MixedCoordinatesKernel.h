// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_MIXEDCOORDINATESKERNEL_H_
#define OPENMMFLOW_MIXEDCOORDINATESKERNEL_H_

#include "model/BlockWhitening.h"
#include "operators/CoordinateKernel.h"

namespace OpenMMFlow {

/** A block in Cartesian coordinates and the rows that are placed from it: docs/model_format.md. */
struct MixedLayout {
    std::int64_t numParticles() const {
        return (std::int64_t) (block.size()+rows.size());
    }
    std::int64_t numCoordinates() const {
        return 3*(std::int64_t) rows.size()+whitening.dimensions;
    }

    std::vector<std::int64_t> block;
    std::vector<ZMatrixRow> rows;
    BlockWhitening whitening;
};

/** Mixed coordinates: docs/theory.md, "Mixed coordinates". */
template <class Real>
class MixedCoordinatesKernel : public CoordinateKernel<Real> {
public:
    using Base = CoordinateKernel<Real>;
    using Formula = typename Base::Formula;
    using Vector = typename Base::Vector;

    /** The layout must exist as long as it is evaluated. */
    void configure(const MixedLayout& newLayout) {
        layout = &newLayout;
        this->resize(layout->numParticles(), layout->numCoordinates());
        aligned.resize(layout->block.size());
    }

    /** Fills `coordinates` and `logDet` from `positions`, and `gradient` from `vCoordinates` and `vLogDet` as well. */
    void evaluate() {
        const std::int64_t Q = layout->rows.size();
        this->clear();
        for (std::int64_t row = 0; row < Q; row++)
            this->addFullRow(layout->rows[row], row, Q+row, 2*Q+row);
        this->logDet = this->logDet+Real(layout->whitening.logDet);
        addBlock(3*Q);
    }

private:
    static Vector constantVector(const double* v) {
        return {Real(v[0]), Real(v[1]), Real(v[2])};
    }

    /** The block's coordinates, from index `first` on. */
    void addBlock(std::int64_t first) {
        const BlockWhitening& whitening = layout->whitening;
        const std::size_t B = layout->block.size();
        const Real one(1);
        typename Formula::Alignment alignment;
        for (std::size_t i = 0; i < B; i++)
            aligned[i] = this->positions[layout->block[i]];
        if (whitening.aligned) {
            alignment = align();
            this->logDet = this->logDet-log(alignment.determinant);
        }
        const auto row = [&](int d, std::size_t i) { return constantVector(&whitening.whitening[(d*B+i)*3]); };
        const auto reference = [&](std::size_t i) { return constantVector(&whitening.reference[3*i]); };
        for (int d = 0; d < whitening.dimensions; d++) {
            Real w(0);
            for (std::size_t i = 0; i < B; i++)
                w = w+Formula::vectorDot(row(d, i), Formula::vectorDifference(aligned[i], reference(i)));
            this->coordinates[first+d] = w;
        }

        typename Formula::SymmetricMatrix3 volume;
        if (whitening.aligned)
            volume = Formula::symmetricScaled(-this->vLogDet, Formula::traceMinus(alignment.inverse));
        Vector torque = {Real(0), Real(0), Real(0)};
        for (std::size_t i = 0; i < B; i++) {
            Vector v = {Real(0), Real(0), Real(0)};
            for (int d = 0; d < whitening.dimensions; d++)
                v = Formula::vectorCombination(one, v, this->vCoordinates[first+d], row(d, i));
            if (!whitening.aligned) {
                this->add(layout->block[i], one, v);
                continue;
            }
            v = Formula::vectorCombination(one, v, one, Formula::symmetricTimesVector(volume, reference(i)));
            torque = Formula::vectorCombination(one, torque, one, Formula::vectorCross(aligned[i], v));
            aligned[i] = v;
        }
        if (!whitening.aligned)
            return;
        // Positions also turn the rotation, by what keeps the block aligned. Translations cancel, as the rows of the whitening are centred.
        const Vector turn = Formula::symmetricTimesVector(alignment.inverse, torque);
        for (std::size_t i = 0; i < B; i++) {
            const Vector v = Formula::vectorCombination(one, aligned[i], one, Formula::vectorCross(reference(i), turn));
            this->add(layout->block[i], one, Formula::transposedTimesVector(alignment.rotation, v));
        }
    }

    /** Centres the block and turns it onto the reference. */
    typename Formula::Alignment align() {
        const BlockWhitening& whitening = layout->whitening;
        const Real zero(0), one(1);
        Vector mean = {zero, zero, zero};
        for (const Vector& a : aligned)
            mean = Formula::vectorCombination(one, mean, Real(1.0/aligned.size()), a);
        typename Formula::Matrix3 h = {zero, zero, zero, zero, zero, zero, zero, zero, zero};
        for (std::size_t i = 0; i < aligned.size(); i++) {
            aligned[i] = Formula::vectorDifference(aligned[i], mean);
            h = Formula::matrixAddProduct(h, aligned[i], constantVector(&whitening.reference[3*i]));
        }
        const auto alignment = Formula::alignment(h);
        for (Vector& a : aligned)
            a = Formula::matrixTimesVector(alignment.rotation, a);
        return alignment;
    }

    const MixedLayout* layout = nullptr;
    std::vector<Vector> aligned;    // the block, and its gradient on the way back
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_MIXEDCOORDINATESKERNEL_H_
