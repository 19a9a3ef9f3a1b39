// SPDX-License-Identifier: MIT
// The smooth sigmoid S(u) = rho(u)/(rho(u)+rho(1-u)) with the ramp rho(u) = exp(alpha(1-u^-beta)).
// Koehler, Kraemer, Noe, Smooth Normalizing Flows, NeurIPS 2021, section 3.
// Written as the logistic function of alpha*h(u), h(u) = (1-u)^-beta - u^-beta, in which nothing overflows.
// Formula text: see Formulas.h for what is allowed here.

typedef struct {
    real value;       // S
    real d1;          // dS/du
    real d2;          // d2S/du2
    real dAlpha;      // dS/dalpha
    real d1Alpha;     // d2S/(du dalpha)
} SmoothSigmoid;

// Beyond this distance from 0 and 1 the ramp is flat to below 1e-75 for every alpha that a model may hold.
#define SMOOTH_SIGMOID_EDGE 0.0025

FORMULA SmoothSigmoid smoothSigmoid(real u, real alpha, int exponent) {
    real a = SELECT(u < (real) SMOOTH_SIGMOID_EDGE, (real) SMOOTH_SIGMOID_EDGE, u);
    a = SELECT(a > (real) (1-SMOOTH_SIGMOID_EDGE), (real) (1-SMOOTH_SIGMOID_EDGE), a);
    // 1/a and 1/(1-a) from one division.
    real b = (real) 1-a;
    real inverse = (real) 1/(a*b);
    real inverseA = b*inverse;
    real inverseB = a*inverse;
    // h and its derivatives; p and q are the powers -beta-1 of u and 1-u.
    real p = inverseA*inverseA;
    real q = inverseB*inverseB;
    real h = inverseB-inverseA;
    real beta = (real) 1;
    if (exponent == 2) {
        h = q-p;
        p = p*inverseA;
        q = q*inverseB;
        beta = (real) 2;
    }
    real h1 = beta*(q+p);
    real h2 = beta*(beta+(real) 1)*(q*inverseB-p*inverseA);
    real g = alpha*h;
    real e = EXP(-FABS(g));
    real larger = (real) 1/((real) 1+e);
    real smaller = e*larger;
    real product = smaller*larger;               // S(1-S)
    real signedDifference = SELECT(g < (real) 0, larger-smaller, smaller-larger);   // 1-2S
    SmoothSigmoid s;
    s.value = SELECT(g < (real) 0, smaller, larger);
    s.d1 = product*alpha*h1;
    s.d2 = product*alpha*(signedDifference*alpha*h1*h1+h2);
    s.dAlpha = product*h;
    s.d1Alpha = product*h1*((real) 1+g*signedDifference);
    return s;
}
