// SPDX-License-Identifier: MIT
// Monotone rational-quadratic splines on [0,1] or on the circle of period 1, with both directions in closed form.
// Durkan, Bekasov, Murray, Papamakarios, Neural Spline Flows, NeurIPS 2019, section 3.
// Formula text: see Formulas.h for what is allowed here.
//
// Parameters: K widths, K heights, and slopes at the edges of bins, K+1 on an interval and K on a circle, where the last is the first.

FORMULA void rationalQuadraticSplineHead(Parameters p, int bins, bool circular, real minimumWidth, real minimumHeight, real minimumSlope,
        real sharpness) {
    headSoftmax(p, 0, bins, minimumWidth);
    headSoftmax(p, bins, bins, minimumHeight);
    const int numSlopes = (circular ? bins : bins+1);
    for (int i = 2*bins; i < 2*bins+numSlopes; i++)
        PARAMETER(p, i) = minimumSlope+activationSoftplus(sharpness*PARAMETER(p, i)).value/sharpness;
}

typedef struct {
    real index;                // of the bin
    real x0, y0;               // its lower corner
    real width, height;
    real slope0, slope1;       // at its ends
} RationalQuadraticBin;

// The bin that holds `position` on the x axis, or on the y axis; the first and the last one go on forever.
FORMULA RationalQuadraticBin rationalQuadraticBin(real position, Parameters p, int bins, bool circular, bool onYAxis) {
    RationalQuadraticBin b;
    b.index = (real) 0;
    b.x0 = (real) 0;
    b.y0 = (real) 0;
    b.width = PARAMETER(p, 0);
    b.height = PARAMETER(p, bins);
    b.slope0 = PARAMETER(p, 2*bins);
    b.slope1 = PARAMETER(p, 2*bins+(circular ? 1%bins : 1));
    real x = b.width;
    real y = b.height;
    for (int k = 1; k < bins; k++) {
        real edge = y;
        if (!onYAxis)
            edge = x;
        b.index = SELECT(position < edge, b.index, (real) k);
        b.x0 = SELECT(position < edge, b.x0, x);
        b.y0 = SELECT(position < edge, b.y0, y);
        b.width = SELECT(position < edge, b.width, PARAMETER(p, k));
        b.height = SELECT(position < edge, b.height, PARAMETER(p, bins+k));
        b.slope0 = SELECT(position < edge, b.slope0, PARAMETER(p, 2*bins+k));
        b.slope1 = SELECT(position < edge, b.slope1, PARAMETER(p, 2*bins+(circular ? (k+1)%bins : k+1)));
        x = x+PARAMETER(p, k);
        y = y+PARAMETER(p, bins+k);
    }
    return b;
}

FORMULA TransformerValue rationalQuadraticSpline(real x, Parameters p, int bins, bool circular) {
    RationalQuadraticBin b = rationalQuadraticBin(x, p, bins, circular, false);
    real inverseWidth = (real) 1/b.width;
    real s = b.height*inverseWidth;
    real t = (x-b.x0)*inverseWidth;
    real u = (real) 1-t;
    real excess = b.slope0+b.slope1-(real) 2*s;
    real inverse = (real) 1/(s+excess*t*u);
    real numerator = b.slope1*t*t+(real) 2*s*t*u+b.slope0*u*u;
    TransformerValue v;
    v.value = b.y0+b.height*t*(s*t+b.slope0*u)*inverse;
    v.d1 = s*s*numerator*inverse*inverse;
    v.d2 = (real) 2*s*s*inverse*inverse*inverseWidth*
            (b.slope1*t+s*(u-t)-b.slope0*u-numerator*excess*(u-t)*inverse);
    return v;
}

FORMULA real rationalQuadraticSplineInverse(real y, Parameters p, int bins, bool circular) {
    RationalQuadraticBin b = rationalQuadraticBin(y, p, bins, circular, true);
    real s = b.height/b.width;
    real rise = y-b.y0;
    real shared = rise*(b.slope0+b.slope1-(real) 2*s);
    // The root of a t^2 + q t = s rise that is in [0,1], in the form without cancellation. Where q < 0, a is positive.
    real a = b.height*(s-b.slope0)+shared;
    real q = b.height*b.slope0-shared;
    real discriminant = q*q+(real) 4*a*s*rise;
    discriminant = SELECT(discriminant < (real) 0, (real) 0, discriminant);
    real root = SQRT(discriminant);
    real t = SELECT(q < (real) 0, (root-q)/((real) 2*SELECT(q < (real) 0, a, (real) 1)),
            (real) 2*s*rise/(SELECT(q < (real) 0, (real) 0, q)+root));
    // Rounding of the edges may put y beyond the bin.
    t = SELECT(t < (real) 0, (real) 0, t);
    return b.x0+b.width*SELECT(t > (real) 1, (real) 1, t);
}

FORMULA void rationalQuadraticSplineGradient(real x, real vF, real vD, Parameters p, Parameters gradient, int bins, bool circular,
        real minimumWidth, real minimumHeight, real minimumSlope, real sharpness) {
    RationalQuadraticBin b = rationalQuadraticBin(x, p, bins, circular, false);
    TransformerValue v = rationalQuadraticSpline(x, p, bins, circular);
    real inverseWidth = (real) 1/b.width;
    real s = b.height*inverseWidth;
    real t = (x-b.x0)*inverseWidth;
    real u = (real) 1-t;
    real r = t*u;
    real inverse = (real) 1/(s+(b.slope0+b.slope1-(real) 2*s)*r);
    // F = y0 + height n inverse, F' = s^2 m inverse^2
    real n = s*t*t+b.slope0*r;
    real m = b.slope1*t*t+(real) 2*s*r+b.slope0*u*u;
    real dF = vF*b.height*inverse*inverse;
    real dD = vD*s*inverse*inverse;
    real common = (real) 2*s*m*r*inverse;
    real gS = dF*(t*t/inverse-n*((real) 1-(real) 2*r))
            +dD*((real) 2*m+(real) 2*s*r-(real) 2*s*m*((real) 1-(real) 2*r)*inverse);
    real gSlope0 = dF*r*((real) 1/inverse-n)+dD*(s*u*u-common);
    real gSlope1 = dD*(s*t*t-common)-dF*n*r;
    real gX0 = -(vF*v.d1+vD*v.d2);
    real gWidth = gX0*t-gS*s*inverseWidth;
    real gHeight = vF*n*inverse+gS*inverseWidth;
    const int numSlopes = (circular ? bins : bins+1);
    for (int k = 0; k < bins; k++) {
        real below = SELECT((real) k < b.index, (real) 1, (real) 0);
        real inside = SELECT((real) k < b.index, (real) 0, SELECT((real) k > b.index, (real) 0, (real) 1));
        PARAMETER(gradient, k) = below*gX0+inside*gWidth;
        PARAMETER(gradient, bins+k) = below*vF+inside*gHeight;
    }
    for (int i = 0; i < numSlopes; i++)
        PARAMETER(gradient, 2*bins+i) = (real) 0;
    for (int k = 0; k < bins; k++) {
        real inside = SELECT((real) k < b.index, (real) 0, SELECT((real) k > b.index, (real) 0, (real) 1));
        const int next = 2*bins+(circular ? (k+1)%bins : k+1);
        PARAMETER(gradient, 2*bins+k) = PARAMETER(gradient, 2*bins+k)+inside*gSlope0;
        PARAMETER(gradient, next) = PARAMETER(gradient, next)+inside*gSlope1;
    }
    headSoftmaxGradient(p, gradient, 0, bins, minimumWidth);
    headSoftmaxGradient(p, gradient, bins, bins, minimumHeight);
    for (int i = 2*bins; i < 2*bins+numSlopes; i++)
        PARAMETER(gradient, i) = PARAMETER(gradient, i)*((real) 1-EXP(-sharpness*(PARAMETER(p, i)-minimumSlope)));
}
