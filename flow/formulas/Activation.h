// SPDX-License-Identifier: MIT
// Activations of dense conditioners with their derivatives.
// Formula text: see Formulas.h for what is allowed here.

typedef struct {
    real value, d1;
} Activation;

FORMULA Activation activationSiLU(real x) {
    real l = logistic(x);
    Activation a;
    a.value = x*l;
    a.d1 = l*((real) 1+x*((real) 1-l));
    return a;
}

FORMULA Activation activationTanh(real x) {
    Activation a;
    a.value = hyperbolicTangent(x);
    a.d1 = (real) 1-a.value*a.value;
    return a;
}

// The argument is reduced to one period first: fast hardware sines lose accuracy far from zero.
// 2 pi is split into a part with few bits, whose product with the number of turns is exact, and a rest.
FORMULA Activation activationSin(real x) {
    real turns = FLOOR(x*(real) 0.15915494309189535+(real) 0.5);
    real r = (x-turns*(real) 6.28125)-turns*(real) 1.9353071795864769e-3;
    Activation a;
    a.value = SIN(r);
    a.d1 = COS(r);
    return a;
}

FORMULA Activation activationGELU(real x) {
    real cdf = (real) 0.5*((real) 1+ERF(x*(real) 0.70710678118654752));
    Activation a;
    a.value = x*cdf;
    a.d1 = cdf+x*(real) 0.39894228040143268*EXP((real) -0.5*x*x);
    return a;
}

FORMULA Activation activationSoftplus(real x) {
    real positive = SELECT(x < (real) 0, (real) 0, x);
    Activation a;
    a.value = positive+LOG((real) 1+EXP(-FABS(x)));
    a.d1 = logistic(x);
    return a;
}
