// SPDX-License-Identifier: MIT
// Cumulative distribution functions of stored marginals: from a real coordinate to [0,1].
// Formula text: see Formulas.h for what is allowed here.

typedef struct {
    real value;           // the coordinate in [0,1]
    real logDensity;      // ln of d value/dx
    real dLogDensity;     // its derivative with respect to x
} MarginalValue;

FORMULA MarginalValue uniformMarginal(real x, real lower, real inverseWidth, real logInverseWidth) {
    MarginalValue m;
    m.value = (x-lower)*inverseWidth;
    m.logDensity = logInverseWidth;
    m.dLogDensity = (real) 0;
    return m;
}

FORMULA real standardNormalCdf(real t) {
    return (real) 0.5*ERFC(t*(real) -0.70710678118654752);
}

// Normal and truncated normal: cdfLower = Phi((lower-mean)/std) and inverseMass = 1/(Phi(upper)-Phi(lower)), 0 and 1 if not
// truncated; logNorm = -ln std - ln(2 pi)/2 + ln inverseMass.
FORMULA MarginalValue normalMarginal(real x, real mean, real inverseStd, real cdfLower, real inverseMass, real logNorm) {
    real t = (x-mean)*inverseStd;
    MarginalValue m;
    m.value = (standardNormalCdf(t)-cdfLower)*inverseMass;
    m.logDensity = logNorm-(real) 0.5*t*t;
    m.dLogDensity = -t*inverseStd;
    return m;
}

// The inverse of standardNormalCdf on (0, 1). Abramowitz and Stegun 26.2.23 for the lower half, good to 4.5e-4, and three steps of
// Halley's method, which cubes the error each.
FORMULA real standardNormalQuantile(real p) {
    real q = SELECT(p > (real) 0.5, (real) 1-p, p);
    real t = SQRT((real) -2*LOG(q));
    real x = ((real) 2.515517+t*((real) 0.802853+t*(real) 0.010328))/
            ((real) 1+t*((real) 1.432788+t*((real) 0.189269+t*(real) 0.001308)))-t;
    for (int step = 0; step < 3; step++) {
        real u = (standardNormalCdf(x)-q)*(real) 2.5066282746310002*EXP((real) 0.5*x*x);
        x = x-u/((real) 1+(real) 0.5*x*u);
    }
    return SELECT(p > (real) 0.5, -x, x);
}
