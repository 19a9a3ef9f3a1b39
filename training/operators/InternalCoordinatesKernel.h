// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_INTERNALCOORDINATESKERNEL_H_
#define OPENMMFLOW_INTERNALCOORDINATESKERNEL_H_

#include "operators/CoordinateKernel.h"

namespace OpenMMFlow {

/** A Z-matrix sorted into what its coordinates are: docs/model_format.md. */
struct ZMatrix {
    /** Throws std::invalid_argument unless there is one row each with three, two and one entries of -1. */
    ZMatrix(const std::vector<ZMatrixRow>& rows, bool frameMeasure);

    std::int64_t numParticles() const {
        return (std::int64_t) full.size()+3;
    }
    std::int64_t numCoordinates() const {
        return 3*numParticles()-6;
    }

    ZMatrixRow second, third;         // rows of the frame atoms f1 and f2
    std::vector<ZMatrixRow> full;
    bool frameMeasure;
};

/** Internal coordinates of a Z-matrix. */
template <class Real>
class InternalCoordinatesKernel : public CoordinateKernel<Real> {
public:
    /** The Z-matrix must exist as long as it is evaluated. */
    void configure(const ZMatrix& newZMatrix) {
        zMatrix = &newZMatrix;
        this->resize(zMatrix->numParticles(), zMatrix->numCoordinates());
    }

    /** Fills `coordinates` and `logDet` from `positions`, and `gradient` from `vCoordinates` and `vLogDet` as well. */
    void evaluate() {
        const std::int64_t P = zMatrix->numParticles();
        const bool frame = zMatrix->frameMeasure;
        this->clear();
        this->addBond(zMatrix->second, 0, frame ? 0 : 2);
        this->addBond(zMatrix->third, 1, frame ? 1 : 2);
        this->addAngle(zMatrix->third, P-1, frame ? 0 : 1);
        this->logDet = this->logDet-Real(frame ? this->LOG_PI : this->LOG_PI+this->LOG_8_PI_SQUARED);
        for (std::size_t row = 0; row < zMatrix->full.size(); row++)
            this->addFullRow(zMatrix->full[row], 2+row, P+row, 2*P-3+row);
    }

private:
    const ZMatrix* zMatrix = nullptr;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_INTERNALCOORDINATESKERNEL_H_
