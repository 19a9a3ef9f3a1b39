// SPDX-License-Identifier: MIT
// One component of the smooth mixture transformer, F(x) = (1-m) G(x) + m x, on [0,1] or on the circle of period 1.
// Koehler, Kraemer, Noe, Smooth Normalizing Flows, NeurIPS 2021, sections 3 and 4.
// Formula text: see Formulas.h for what is allowed here.
//
// With mu' = mu-1/(2 sigma):
//   interval   G(x) = (S(u)-S(u0))/(S(u1)-S(u0)),  u = sigma(x-mu'), u0 = -sigma mu', u1 = sigma(1-mu')
//   circle     G(x) = S(u)-S(u0)+winding,          u = sigma((x-mu') mod 1), u0 = sigma((-mu') mod 1)
// In both, du/dmu = -sigma and du/dsigma = (u-1/2)/sigma, and likewise for u0 and u1.

typedef struct {
    real value;    // F
    real d1;       // dF/dx
    real d2;       // d2F/dx2
} MixtureComponent;

typedef struct {
    real mu, sigma, alpha, floor;    // derivatives of vF F + vD F' with respect to the parameters
} MixtureComponentGradient;

// What a component has in common for every x: the sigmoid at the lower and upper end, and the normalization.
typedef struct {
    SmoothSigmoid lower;       // at u0
    SmoothSigmoid upper;       // at u1; zero on a circle
    real u0, u1;
    real inverseMass;          // 1/(S(u1)-S(u0)); 1 on a circle
} MixtureComponentEnds;

FORMULA MixtureComponentEnds mixtureComponentEnds(real mu, real sigma, real alpha, int exponent, bool circular) {
    MixtureComponentEnds ends;
    if (circular) {
        real t0 = (real) 0.5/sigma-mu;
        ends.u0 = sigma*(t0-FLOOR(t0));
        ends.u1 = ends.u0;
        ends.lower = smoothSigmoid(ends.u0, alpha, exponent);
        ends.upper.value = (real) 0;
        ends.upper.d1 = (real) 0;
        ends.upper.d2 = (real) 0;
        ends.upper.dAlpha = (real) 0;
        ends.upper.d1Alpha = (real) 0;
        ends.inverseMass = (real) 1;
    }
    else {
        ends.u0 = (real) 0.5-sigma*mu;
        ends.u1 = ends.u0+sigma;
        ends.lower = smoothSigmoid(ends.u0, alpha, exponent);
        ends.upper = smoothSigmoid(ends.u1, alpha, exponent);
        ends.inverseMass = (real) 1/(ends.upper.value-ends.lower.value);
    }
    return ends;
}

// The argument of the component's sigmoid. On a circle the winding number is added to *G* by mixtureComponent.
FORMULA real mixtureComponentArgument(real x, real mu, real sigma, bool circular) {
    if (circular) {
        real t = x-mu+(real) 0.5/sigma;
        return sigma*(t-FLOOR(t));
    }
    return sigma*(x-mu)+(real) 0.5;
}

// The number of times x-mu' has crossed an integer on the way from 0 to x; 0 on an interval.
FORMULA real mixtureComponentWinding(real x, real mu, real sigma, bool circular) {
    if (circular) {
        real t0 = (real) 0.5/sigma-mu;
        return FLOOR(t0+x)-FLOOR(t0);
    }
    return (real) 0;
}

FORMULA MixtureComponent mixtureComponent(real x, real sigma, real floor, SmoothSigmoid s, MixtureComponentEnds ends, real winding) {
    real scale = ((real) 1-floor)*ends.inverseMass;
    MixtureComponent c;
    c.value = scale*(s.value-ends.lower.value)+((real) 1-floor)*winding+floor*x;
    c.d1 = scale*sigma*s.d1+floor;
    c.d2 = scale*sigma*sigma*s.d2;
    return c;
}

// Reverse mode: vF and vD are the derivatives of a loss with respect to F(x) and F'(x).
FORMULA MixtureComponentGradient mixtureComponentGradient(real x, real u, real sigma, real floor, SmoothSigmoid s,
        MixtureComponentEnds ends, real winding, bool circular, real vF, real vD) {
    real inverseSigma = (real) 1/sigma;
    real G = (s.value-ends.lower.value)*ends.inverseMass+winding;
    real D = sigma*s.d1*ends.inverseMass;
    // Through the normalization S(u1)-S(u0), which a circle does not have.
    real massFactor = (real) 0;
    if (!circular)
        massFactor = vF*G+vD*D;
    real uSigma = (u-(real) 0.5)*inverseSigma;
    real u0Sigma = (ends.u0-(real) 0.5)*inverseSigma;
    real u1Sigma = (ends.u1-(real) 0.5)*inverseSigma;
    real scale = ((real) 1-floor)*ends.inverseMass;
    MixtureComponentGradient g;
    g.mu = -scale*sigma*(vF*(s.d1-ends.lower.d1)+vD*sigma*s.d2-massFactor*(ends.upper.d1-ends.lower.d1));
    g.sigma = scale*(vF*(s.d1*uSigma-ends.lower.d1*u0Sigma)+vD*(s.d1+sigma*s.d2*uSigma)
            -massFactor*(ends.upper.d1*u1Sigma-ends.lower.d1*u0Sigma));
    g.alpha = scale*(vF*(s.dAlpha-ends.lower.dAlpha)+vD*sigma*s.d1Alpha-massFactor*(ends.upper.dAlpha-ends.lower.dAlpha));
    g.floor = vF*(x-G)+vD*((real) 1-D);
    return g;
}
