// SPDX-License-Identifier: MIT
// Mixtures of Moebius transformations of the circle of period 1.
// Rezende et al., Normalizing flows on tori and spheres, ICML 2020, section 2.2.
// Formula text: see Formulas.h for what is allowed here.
//
// Parameters: K weights, and K real and K imaginary parts of centres omega, |omega| < 1.

// f(x) = x+(psi(x)-psi(0))/pi, psi(x) = arg(1-omega e^(-2 pi i x)).
typedef struct {
    real turn;                 // f(x)-x
    real d1, d2;               // f'(x) and f''(x)
    real turnRe, turnIm;       // derivatives with respect to omega
    real d1Re, d1Im;
} MoebiusMap;

FORMULA MoebiusMap moebiusMap(real x, real re, real im) {
    Activation phase = activationSin((real) 6.283185307179586476925*x);
    real c = phase.d1;
    real s = phase.value;
    // The real and the imaginary part of 1-omega e^(-2 pi i x), the first one positive
    real a = (real) 1-re*c-im*s;
    real b = re*s-im*c;
    real inverse = (real) 1/(a*a+b*b);
    real a0 = (real) 1-re;
    real inverse0 = (real) 1/(a0*a0+im*im);
    MoebiusMap m;
    m.turn = (ATAN(b/a)+ATAN(im/a0))*(real) 0.31830988618379067154;
    m.d1 = ((real) 1-re*re-im*im)*inverse;
    m.d2 = m.d1*inverse*b*(real) -12.566370614359172954;
    m.turnRe = ((a*s+b*c)*inverse+im*inverse0)*(real) 0.31830988618379067154;
    m.turnIm = ((b*s-a*c)*inverse+a0*inverse0)*(real) 0.31830988618379067154;
    m.d1Re = (real) -2*inverse*(re+m.d1*(re-c));
    m.d1Im = (real) -2*inverse*(im+m.d1*(im-s));
    return m;
}

FORMULA real moebiusMapInverse(real y, real re, real im) {
    real phi = y-ATAN(im/((real) 1-re))*(real) 0.31830988618379067154;
    Activation phase = activationSin((real) 6.283185307179586476925*phi);
    real a = (real) 1+re*phase.d1+im*phase.value;
    real b = im*phase.d1-re*phase.value;
    return phi+ATAN(b/a)*(real) 0.31830988618379067154;
}

FORMULA void moebiusHead(Parameters p, int components, real radiusBound) {
    headSoftmax(p, 0, components, (real) 0);
    for (int k = 0; k < components; k++)
        headDisc(p, components+k, 2*components+k, radiusBound);
}

FORMULA TransformerValue moebius(real x, Parameters p, int components) {
    TransformerValue v;
    v.value = x;
    v.d1 = (real) 0;
    v.d2 = (real) 0;
    for (int k = 0; k < components; k++) {
        MoebiusMap m = moebiusMap(x, PARAMETER(p, components+k), PARAMETER(p, 2*components+k));
        v.value = v.value+PARAMETER(p, k)*m.turn;
        v.d1 = v.d1+PARAMETER(p, k)*m.d1;
        v.d2 = v.d2+PARAMETER(p, k)*m.d2;
    }
    return v;
}

// Of one component.
FORMULA real moebiusInverse(real y, Parameters p) {
    return moebiusMapInverse(y, PARAMETER(p, 1), PARAMETER(p, 2));
}

FORMULA void moebiusGradient(real x, real vF, real vD, Parameters p, Parameters gradient, int components, real radiusBound) {
    for (int k = 0; k < components; k++) {
        MoebiusMap m = moebiusMap(x, PARAMETER(p, components+k), PARAMETER(p, 2*components+k));
        real weight = PARAMETER(p, k);
        PARAMETER(gradient, k) = vF*m.turn+vD*m.d1;
        headDiscGradient(p, gradient, components+k, 2*components+k, radiusBound, weight*(vF*m.turnRe+vD*m.d1Re),
                weight*(vF*m.turnIm+vD*m.d1Im));
    }
    headSoftmaxGradient(p, gradient, 0, components, (real) 0);
}
