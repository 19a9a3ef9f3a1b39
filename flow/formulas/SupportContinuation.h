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

// The wall in units of k_B T: 0 on [lower, upper], cubic at first and harmonic, strength*(d/width)^2, for d >> width.
FORMULA Continued wall(real x, real lower, real upper, real inverseWidth, real strength) {
    real below = (lower-x)*inverseWidth;
    real above = (x-upper)*inverseWidth;
    real sign = SELECT(below > above, (real) -1, (real) 1);
    real t = SELECT(below > above, below, above);
    t = SELECT(t < (real) 0, (real) 0, t);
    real inverse = (real) 1/((real) 1+t);
    Continued w;
    w.value = strength*t*t*t*inverse;
    w.d1 = sign*inverseWidth*strength*t*t*((real) 3+(real) 2*t)*inverse*inverse;
    return w;
}
