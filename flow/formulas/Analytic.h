// SPDX-License-Identifier: MIT
// Analytic bijections, step after step, with both directions in closed form: docs/theory.md.
// Interval: asinh(A sinh(u-l)+o)+l of u = ln(x/(1-x)), written without logarithms. Gerdes, Cheng, Analytic bijections for smooth and
// interpretable normalizing flows, arXiv:2601.10774. Circle: step k is a Moebius transformation of the (k+1)-fold covering; after all of them
// comes one rotation. Rotations between steps would do no more than turn the omegas that follow.
// Formula text: see Formulas.h for what is allowed here.
//
// Parameters: on an interval K centres l, K stretches ln A and K displacements d, o = sinh d; on a circle K real and K imaginary parts of
// omega, |omega| < 1, and the rotation.

FORMULA void analyticHead(Parameters p, int steps, bool circular, real logScaleBound, real radiusBound) {
    for (int k = 0; k < steps; k++) {
        if (circular)
            headDisc(p, k, steps+k, radiusBound);
        else {
            real prior = LOG(((real) k+(real) 0.5)/((real) (steps-k)-(real) 0.5));
            PARAMETER(p, k) = prior+headBounded(PARAMETER(p, k), logScaleBound, (real) 1);
            PARAMETER(p, steps+k) = headBounded(PARAMETER(p, steps+k), logScaleBound, (real) 1);
            PARAMETER(p, 2*steps+k) = headBounded(PARAMETER(p, 2*steps+k), logScaleBound, (real) 1);
        }
    }
}

// A point of the interval as x and 1-x, neither of which is rounded at the size of the other.
typedef struct {
    real x, rest;
    real d1, curvature;                        // dy/dx and d ln(dy/dx)/dx
    real yCentre, yScale, yOffset;             // derivatives of y with respect to l, A and o,
    real logCentre, logScale, logOffset;       // and of ln dy/dx
} AnalyticStep;

FORMULA AnalyticStep analyticStep(real x, real rest, real expCentre, real scale, real offset) {
    real p = x;
    real q = rest*expCentre;
    real difference = p*p-q*q;
    real norm = p*p+q*q;
    real product = (real) 2*p*q;
    // asinh(n/product) = ln((n+r)/product)
    real n = scale*difference+offset*product;
    real r = SQRT(n*n+product*product);
    real sign = SELECT(n < (real) 0, (real) -1, (real) 1);
    real larger = r+sign*n;
    real numerator = SELECT(n < (real) 0, product, larger)*expCentre;
    real denominator = SELECT(n < (real) 0, larger, product);
    real sum = numerator+denominator;
    real inverse = (real) 1/sum;
    real inverseR = (real) 1/r;
    real slope = scale*norm*inverseR;          // of asinh(A sinh v+o)
    AnalyticStep step;
    step.x = numerator*inverse;
    step.rest = denominator*inverse;
    step.d1 = (real) 2*expCentre*expCentre*larger*slope*inverse*inverse;
    // Derivatives with respect to x; that of q is -expCentre.
    real nX = (real) 2*(scale*(p+q*expCentre)+offset*(q-p*expCentre));
    real productX = (real) 2*(q-p*expCentre);
    real rX = (n*nX+product*productX)*inverseR;
    real largerX = rX+sign*nX;
    real sumX = SELECT(n < (real) 0, productX, largerX)*expCentre+SELECT(n < (real) 0, largerX, productX);
    step.curvature = largerX/larger+(real) 2*(p-q*expCentre)/norm-rX*inverseR-(real) 2*sumX*inverse;
    real yOne = step.x*step.rest;              // dy/d(ln(y/(1-y)))
    real tilt = step.rest-step.x;              // d ln(that)/d(ln(y/(1-y)))
    real byCentre = (real) 1-slope;
    real byScale = difference*inverseR;
    real byOffset = product*inverseR;
    step.yCentre = yOne*byCentre;
    step.yScale = yOne*byScale;
    step.yOffset = yOne*byOffset;
    step.logCentre = tilt*byCentre-difference/norm+n*slope*inverseR;
    step.logScale = tilt*byScale+(real) 1/scale-n*difference*inverseR*inverseR;
    step.logOffset = tilt*byOffset-n*product*inverseR*inverseR;
    return step;
}

// sinh d without cancellation for small d.
FORMULA real analyticOffset(real d) {
    real e = EXP(d);
    real d2 = d*d;
    real series = d*((real) 1+d2*((real) 0.16666666666666667+d2*((real) 8.3333333333333333e-3+d2*(real) 1.9841269841269841e-4)));
    return SELECT(d2 < (real) 1e-3, series, (real) 0.5*(e-(real) 1/e));
}

FORMULA TransformerValue analytic(real x, Parameters p, int steps, bool circular) {
    TransformerValue v;
    v.value = x;
    v.d1 = (real) 1;
    v.d2 = (real) 0;
    real rest = (real) 1-x;
    for (int k = 0; k < steps; k++) {
        if (circular) {
            real fold = (real) (k+1);
            MoebiusMap m = moebiusMap(fold*v.value, PARAMETER(p, k), PARAMETER(p, steps+k));
            v.value = v.value+m.turn/fold;
            v.d2 = m.d1*v.d2+fold*m.d2*v.d1*v.d1;
            v.d1 = m.d1*v.d1;
        }
        else {
            AnalyticStep s = analyticStep(v.value, rest, EXP(PARAMETER(p, k)), EXP(PARAMETER(p, steps+k)),
                    analyticOffset(PARAMETER(p, 2*steps+k)));
            v.value = s.x;
            rest = s.rest;
            v.d2 = s.d1*(v.d2+s.curvature*v.d1*v.d1);
            v.d1 = s.d1*v.d1;
        }
    }
    if (circular)
        v.value = v.value+PARAMETER(p, 2*steps);
    return v;
}

FORMULA real analyticInverse(real y, Parameters p, int steps, bool circular) {
    real x = y;
    real rest = (real) 1-y;
    if (circular)
        x = x-PARAMETER(p, 2*steps);
    for (int k = steps-1; k >= 0; k--) {
        if (circular) {
            real fold = (real) (k+1);
            x = moebiusMapInverse(fold*x, PARAMETER(p, k), PARAMETER(p, steps+k))/fold;
        }
        else {
            real inverseScale = EXP(-PARAMETER(p, steps+k));
            AnalyticStep s = analyticStep(x, rest, EXP(PARAMETER(p, k)), inverseScale,
                    -inverseScale*analyticOffset(PARAMETER(p, 2*steps+k)));
            x = s.x;
            rest = s.rest;
        }
    }
    return x;
}

// Reverse mode through the steps. On the way there `gradient` holds what each step begins with: its argument, the slope of all before,
// and on an interval 1 minus the argument.
FORMULA void analyticGradient(real x, real vF, real vD, Parameters p, Parameters gradient, int steps, bool circular, real logScaleBound,
        real radiusBound) {
    real value = x;
    real rest = (real) 1-x;
    real d1 = (real) 1;
    for (int k = 0; k < steps; k++) {
        PARAMETER(gradient, k) = value;
        PARAMETER(gradient, steps+k) = d1;
        if (circular) {
            real fold = (real) (k+1);
            MoebiusMap m = moebiusMap(fold*value, PARAMETER(p, k), PARAMETER(p, steps+k));
            value = value+m.turn/fold;
            d1 = m.d1*d1;
        }
        else {
            PARAMETER(gradient, 2*steps+k) = rest;
            AnalyticStep s = analyticStep(value, rest, EXP(PARAMETER(p, k)), EXP(PARAMETER(p, steps+k)),
                    analyticOffset(PARAMETER(p, 2*steps+k)));
            value = s.x;
            rest = s.rest;
            d1 = s.d1*d1;
        }
    }
    if (circular)
        PARAMETER(gradient, 2*steps) = vF;
    real vValue = vF;       // with respect to the value after a step, and to the slope of all up to it
    real vSlope = vD;
    for (int k = steps-1; k >= 0; k--) {
        real before = PARAMETER(gradient, steps+k);
        if (circular) {
            real fold = (real) (k+1);
            MoebiusMap m = moebiusMap(fold*PARAMETER(gradient, k), PARAMETER(p, k), PARAMETER(p, steps+k));
            headDiscGradient(p, gradient, k, steps+k, radiusBound, vValue*m.turnRe/fold+vSlope*before*m.d1Re,
                    vValue*m.turnIm/fold+vSlope*before*m.d1Im);
            vValue = vValue*m.d1+vSlope*before*fold*m.d2;
            vSlope = vSlope*m.d1;
        }
        else {
            real logScale = PARAMETER(p, steps+k);
            real displacement = PARAMETER(p, 2*steps+k);
            real scale = EXP(logScale);
            real e = EXP(displacement);
            real prior = LOG(((real) k+(real) 0.5)/((real) (steps-k)-(real) 0.5));
            AnalyticStep s = analyticStep(PARAMETER(gradient, k), PARAMETER(gradient, 2*steps+k), EXP(PARAMETER(p, k)), scale,
                    analyticOffset(displacement));
            real vLog = vSlope*before*s.d1;    // with respect to ln of the step's slope
            PARAMETER(gradient, k) = (vValue*s.yCentre+vLog*s.logCentre)
                    *headBoundedSlope(PARAMETER(p, k)-prior, logScaleBound, (real) 1);
            PARAMETER(gradient, steps+k) = (vValue*s.yScale+vLog*s.logScale)*scale*headBoundedSlope(logScale, logScaleBound, (real) 1);
            PARAMETER(gradient, 2*steps+k) = (vValue*s.yOffset+vLog*s.logOffset)*(real) 0.5*(e+(real) 1/e)
                    *headBoundedSlope(displacement, logScaleBound, (real) 1);
            vValue = vValue*s.d1+vLog*s.curvature;
            vSlope = vSlope*s.d1;
        }
    }
}
