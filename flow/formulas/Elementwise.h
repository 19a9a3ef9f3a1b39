// SPDX-License-Identifier: MIT
// Maps of single coordinates without a network: y, ln y' and its derivative, as for marginals. An affine normalization is a
// uniformMarginal that has no edges.
// Formula text: see Formulas.h for what is allowed here.

FORMULA MarginalValue logitMap(real x) {
    // Where rounding has reached an edge, numbers stay finite.
    real smallest = (real) 1e-20;
    x = SELECT(x > smallest, x, smallest);
    real complement = (real) 1-x;
    complement = SELECT(complement > smallest, complement, smallest);
    real logX = LOG(x), logComplement = LOG(complement);
    MarginalValue m;
    m.value = logX-logComplement;
    m.logDensity = -logX-logComplement;
    m.dLogDensity = (real) 1/complement-(real) 1/x;
    return m;
}

FORMULA MarginalValue logisticMap(real x) {
    real magnitude = FABS(x);
    real e = EXP(-magnitude);
    real inverse = (real) 1/((real) 1+e);
    MarginalValue m;
    // At 0 the branch must be that of FABS, or dual numbers get the wrong sign there.
    m.value = SELECT(x < (real) 0, e*inverse, inverse);
    m.logDensity = (real) 2*LOG(inverse)-magnitude;
    m.dLogDensity = SELECT(x < (real) 0, ((real) 1-e)*inverse, (e-(real) 1)*inverse);
    return m;
}

FORMULA MarginalValue circularShiftMap(real x, real shift) {
    real moved = x+shift;
    MarginalValue m;
    m.value = moved-FLOOR(moved);
    m.logDensity = (real) 0;
    m.dLogDensity = (real) 0;
    return m;
}
