// SPDX-License-Identifier: MIT
#include "engine/CartesianBlock.h"
#include "formulas/Formulas.h"

#include <cmath>
#include <limits>

using namespace OpenMMFlow;
using namespace std;

using F = Formulas<double>;

CartesianBlock::CartesianBlock(const MixedCoordinatesLayer& layer, Measure measure) :
        block(layer.block), whitening(layer, measure, "layers.0"), offset(layer.blockDimensions, 0.0) {
    const size_t size = whitening.reference.size();
    for (size_t i = 0; i < offset.size(); i++)
        for (size_t j = 0; j < size; j++)
            offset[i] += whitening.whitening[i*size+j]*whitening.reference[j];
}

void CartesianBlock::describe(GeometryPlan& plan) const {
    BlockPlan& b = plan.block;
    b.numBlock = whitening.numBlock;
    b.dimensions = whitening.dimensions;
    b.block = block.data();
    b.aligned = whitening.aligned;
    b.reference = whitening.reference.data();
    b.whitening = whitening.whitening.data();
    b.offset = offset.data();
    b.inverseReferenceDeterminant = (whitening.aligned ? 1/whitening.referenceDeterminant : 1);
    plan.logConstant += whitening.logDet;
}

double CartesianBlock::place(const double* coordinates, double* positions) const {
    const int n = whitening.dimensions;
    F::Matrix3 c = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (size_t i = 0; i < block.size(); i++) {
        const double* reference = &whitening.reference[3*i];
        double* a = positions+3*block[i];
        for (int k = 0; k < 3; k++) {
            a[k] = reference[k];
            for (int j = 0; j < n; j++)
                a[k] += whitening.unwhitening[(3*i+k)*n+j]*coordinates[j];
        }
        c = F::matrixAddProduct(c, {a[0], a[1], a[2]}, {reference[0], reference[1], reference[2]});
    }
    if (!whitening.aligned)
        return whitening.logDet;
    // Aligned is what no turn brings closer to the reference: A must be positive definite.
    const F::SymmetricMatrix3 a = F::torqueMatrix(c), adjugate = F::symmetricAdjugate(a);
    const double determinant = a.xx*adjugate.xx+a.xy*adjugate.xy+a.xz*adjugate.xz;
    if (!(a.xx > 0 && adjugate.zz > 0 && determinant > 0))
        return -numeric_limits<double>::infinity();
    return whitening.logDet-log(determinant);
}
