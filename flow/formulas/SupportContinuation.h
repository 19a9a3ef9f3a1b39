// SPDX-License-Identifier: MIT
// How FlowForce continues the potential outside the inner support of a model: docs/theory.md, "Outside the support".
//     U = lambda k_B T [c - chi (ln p(s(x)) + c)] + W
// Formula text: see Formulas.h for what is allowed here.

typedef struct {
    real value, d1;
} Continued;

// C2 step: 0 for t <= 0, 1 for t >= 1.
FORMULA Continued smoothStep(real t) {
    real c = SELECT(t < (real) 0, (real) 0, t);
    c = SELECT(c > (real) 1, (real) 1, c);
    Continued s;
    s.value = c*c*c*((real) 10+c*((real) 6*c-(real) 15));
    s.d1 = (real) 30*c*c*((real) 1-c)*((real) 1-c);
    return s;
}

// A factor of chi as a function of a length: 0 below low0, 1 from low0+1/inverseLow on.
FORMULA Continued chiOfLength(real length, real low0, real inverseLow) {
    Continued s = smoothStep((length-low0)*inverseLow);
    s.d1 = s.d1*inverseLow;
    return s;
}

// The same of a cosine, which has two ends: 1 from low0+1/inverseLow to high0-1/inverseHigh, 0 beyond low0 and high0.
FORMULA Continued chiOfCosine(real cosine, real low0, real inverseLow, real high0, real inverseHigh) {
    Continued low = smoothStep((cosine-low0)*inverseLow);
    Continued high = smoothStep((high0-cosine)*inverseHigh);
    Continued s;
    s.value = low.value*high.value;
    s.d1 = low.d1*inverseLow*high.value-low.value*high.d1*inverseHigh;
    return s;
}

// s(x): the identity on [lower, upper], constant further than margin outside of it, in between C3 (its derivative is a falling
// smoothStep). It goes out by margin/2 at the most.
FORMULA Continued saturate(real x, real lower, real upper, real margin) {
    real inverseMargin = (real) 1/margin;
    real below = (lower-x)*inverseMargin;
    real above = (x-upper)*inverseMargin;
    real t = SELECT(below > above, below, above);
    t = SELECT(t < (real) 0, (real) 0, t);
    t = SELECT(t > (real) 1, (real) 1, t);
    // integral of 1-smoothStep from 0 to t
    real t2 = t*t;
    real rise = margin*(t-t2*t2*((real) 2.5+t*(t-(real) 3)));
    Continued s;
    s.value = SELECT(below > (real) 0, lower-rise, SELECT(above > (real) 0, upper+rise, x));
    s.d1 = (real) 1-t2*t*((real) 10+t*((real) 6*t-(real) 15));
    return s;
}

// The wall in units of k_B T: 0 on [lower, upper], cubic at first and harmonic, 2 (d/width)^2, for d >> width.
FORMULA Continued wall(real x, real lower, real upper, real inverseWidth) {
    real below = (lower-x)*inverseWidth;
    real above = (x-upper)*inverseWidth;
    real sign = SELECT(below > above, (real) -1, (real) 1);
    real t = SELECT(below > above, below, above);
    t = SELECT(t < (real) 0, (real) 0, t);
    real inverse = (real) 1/((real) 1+t);
    Continued w;
    w.value = (real) 2*t*t*t*inverse;
    w.d1 = sign*inverseWidth*(real) 2*t*t*((real) 3+(real) 2*t)*inverse*inverse;
    return w;
}
