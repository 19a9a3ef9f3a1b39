// SPDX-License-Identifier: MIT
// Affine maps of the real line, F(x) = e^s x + t.
// Dinh, Sohl-Dickstein, Bengio, Density estimation using Real NVP, ICLR 2017, section 3.
// Formula text: see Formulas.h for what is allowed here.
//
// Parameters: t and s.

FORMULA void affineHead(Parameters p, real logScaleBound) {
    PARAMETER(p, 1) = headBounded(PARAMETER(p, 1), logScaleBound, logScaleBound);
}

FORMULA TransformerValue affine(real x, Parameters p) {
    TransformerValue v;
    v.d1 = EXP(PARAMETER(p, 1));
    v.value = v.d1*x+PARAMETER(p, 0);
    v.d2 = (real) 0;
    return v;
}

FORMULA real affineInverse(real y, Parameters p) {
    return (y-PARAMETER(p, 0))*EXP(-PARAMETER(p, 1));
}

FORMULA void affineGradient(real x, real vF, real vD, Parameters p, Parameters gradient, real logScaleBound) {
    real logScale = PARAMETER(p, 1);
    PARAMETER(gradient, 0) = vF;
    PARAMETER(gradient, 1) = EXP(logScale)*(vF*x+vD)*headBoundedSlope(logScale, logScaleBound, logScaleBound);
}
