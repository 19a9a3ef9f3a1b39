// SPDX-License-Identifier: MIT
// From the raw outputs of a conditioner to the parameters of the smooth mixture transformer, and back for gradients.
// docs/model_format.md has the table of both heads; the softmax and the cumulative sum over components are loops of the caller.
// Formula text: see Formulas.h for what is allowed here.

FORMULA real logistic(real x) {
    real e = EXP(-FABS(x));
    return SELECT(x < (real) 0, e, (real) 1)/((real) 1+e);
}

FORMULA real hyperbolicTangent(real x) {
    real e = EXP((real) -2*FABS(x));
    real t = ((real) 1-e)/((real) 1+e);
    return SELECT(x < (real) 0, -t, t);
}

// A value and its derivative with respect to the raw parameter.
typedef struct {
    real value, d1;
} HeadParameter;

// alpha = offset + range logistic(r); with offset = m0 and range = 1-m0 it is the floor of a component.
FORMULA HeadParameter headLogistic(real raw, real offset, real range) {
    real l = logistic(raw);
    HeadParameter p;
    p.value = offset+range*l;
    p.d1 = range*l*((real) 1-l);
    return p;
}

// Steepness sigma of a component with a bound on ln sigma.
// Interval: ln sigma = bound tanh(raw*inverseScale); the free head has inverseScale = 1/bound, the published one 1.
FORMULA HeadParameter headSteepnessOnInterval(real raw, real bound, real inverseScale) {
    real t = hyperbolicTangent(raw*inverseScale);
    HeadParameter p;
    p.value = EXP(bound*t);
    p.d1 = p.value*bound*inverseScale*((real) 1-t*t);
    return p;
}

// Circle: ln sigma = bound logistic(raw) >= 0, which keeps the ramp within one turn.
FORMULA HeadParameter headSteepnessOnCircle(real raw, real bound) {
    real l = logistic(raw);
    HeadParameter p;
    p.value = EXP(bound*l);
    p.d1 = p.value*bound*l*((real) 1-l);
    return p;
}

// Centre of component k of the free head on a circle; prior = (k+1/2)/K is where it lies for raw = 0. Within one turn, so that what is taken
// from it keeps its digits.
FORMULA HeadParameter headCentreOnCircle(real raw, real prior) {
    real centre = prior+raw;
    HeadParameter p;
    p.value = centre-FLOOR(centre);
    p.d1 = (real) 1;
    return p;
}

// The same on an interval.
FORMULA HeadParameter headCentreOnInterval(real raw, real prior) {
    // logistic(raw+logit(prior)) without the logit
    real l = logistic(raw);
    real numerator = prior*l;
    real denominator = numerator+((real) 1-prior)*((real) 1-l);
    HeadParameter p;
    p.value = numerator/denominator;
    p.d1 = p.value*((real) 1-p.value);
    return p;
}
