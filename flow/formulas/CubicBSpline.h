// SPDX-License-Identifier: MIT
// Increasing C2 cubic B-splines with knots at any distance, on [0,1] or on the circle of period 1.
// Hong, Chun, Neural diffeomorphic non-uniform B-spline flows, AAAI 2023, section 4. Told here by the slope, a quadratic spline, whose
// Bezier coefficients in bin i are u_i, v_i and u_{i+1}: docs/theory.md.
// Formula text: see Formulas.h for what is allowed here.
//
// Raw parameters: increments of the bins -1 ... K, then widths of the bins 0 ... K+1, -2, -1; on a circle both of K bins, which repeat.
// Parameters: v in place of increments, scaled such that F(1) = 1, and widths, scaled such that those of 0 ... K-1 add up to 1.

FORMULA int cubicBSplineNumIncrements(int bins, bool circular) {
    return circular ? bins : bins+2;
}

FORMULA int cubicBSplineNumWidths(int bins, bool circular) {
    return circular ? bins : bins+4;
}

// The place of the increment of a bin, -1 <= bin <= bins.
FORMULA int cubicBSplineIncrement(int bin, int bins, bool circular) {
    return circular ? (bin+1)%bins : bin+1;
}

// The place of the width of a bin, -2 <= bin < bins+2.
FORMULA int cubicBSplineWidth(int bin, int bins, bool circular) {
    const int count = cubicBSplineNumWidths(bins, circular);
    return cubicBSplineNumIncrements(bins, circular)+(bin+count)%count;
}

// The sum of the widths of a bin and its neighbours: 3 times the increment over v.
FORMULA real cubicBSplineSpan(int bin, Parameters p, int bins, bool circular) {
    return PARAMETER(p, cubicBSplineWidth(bin-1, bins, circular))+PARAMETER(p, cubicBSplineWidth(bin, bins, circular))
            +PARAMETER(p, cubicBSplineWidth(bin+1, bins, circular));
}

// u of a bin: the slope at its lower edge.
FORMULA real cubicBSplineSlope(int bin, Parameters p, int bins, bool circular) {
    real w0 = PARAMETER(p, cubicBSplineWidth(bin-1, bins, circular));
    real w1 = PARAMETER(p, cubicBSplineWidth(bin, bins, circular));
    real v0 = PARAMETER(p, cubicBSplineIncrement(bin-1, bins, circular));
    real v1 = PARAMETER(p, cubicBSplineIncrement(bin, bins, circular));
    return (w1*v0+w0*v1)/(w0+w1);
}

FORMULA void cubicBSplineHead(Parameters p, int bins, bool circular, real minimumWidth, real minimumIncrement) {
    const int numIncrements = cubicBSplineNumIncrements(bins, circular), numWidths = cubicBSplineNumWidths(bins, circular);
    headSoftmax(p, 0, numIncrements, minimumIncrement);
    headSoftmax(p, numIncrements, numWidths, minimumWidth);
    real sum = (real) 0;
    for (int i = 0; i < bins; i++)
        sum = sum+PARAMETER(p, numIncrements+i);
    real scale = (real) 1/sum;
    for (int i = 0; i < numWidths; i++)
        PARAMETER(p, numIncrements+i) = PARAMETER(p, numIncrements+i)*scale;
    for (int i = 0; i < numIncrements; i++)
        PARAMETER(p, i) = (real) 3*PARAMETER(p, i)/cubicBSplineSpan(i-1, p, bins, circular);
    real total = (real) 0;
    real slope = cubicBSplineSlope(0, p, bins, circular);
    for (int i = 0; i < bins; i++) {
        real next = cubicBSplineSlope(i+1, p, bins, circular);
        total = total+PARAMETER(p, numIncrements+i)*(slope+PARAMETER(p, cubicBSplineIncrement(i, bins, circular))+next);
        slope = next;
    }
    scale = (real) 3/total;
    for (int i = 0; i < numIncrements; i++)
        PARAMETER(p, i) = PARAMETER(p, i)*scale;
}

typedef struct {
    real index;            // of the bin
    real x0, y0;           // its lower corner
    real width;
    real u0, v, u1;        // Bezier coefficients of the slope
} CubicBSplineBin;

// The bin that holds x; the first and the last one go on forever.
FORMULA CubicBSplineBin cubicBSplineBin(real x, Parameters p, int bins, bool circular) {
    CubicBSplineBin b;
    b.index = (real) 0;
    b.x0 = (real) 0;
    b.y0 = (real) 0;
    b.width = PARAMETER(p, cubicBSplineWidth(0, bins, circular));
    b.v = PARAMETER(p, cubicBSplineIncrement(0, bins, circular));
    b.u0 = cubicBSplineSlope(0, p, bins, circular);
    b.u1 = cubicBSplineSlope(1, p, bins, circular);
    real x0 = b.width;
    real y0 = b.width*(b.u0+b.v+b.u1)*(real) 0.33333333333333333;
    real u0 = b.u1;
    for (int k = 1; k < bins; k++) {
        real width = PARAMETER(p, cubicBSplineWidth(k, bins, circular));
        real v = PARAMETER(p, cubicBSplineIncrement(k, bins, circular));
        real u1 = cubicBSplineSlope(k+1, p, bins, circular);
        b.index = SELECT(x < x0, b.index, (real) k);
        b.y0 = SELECT(x < x0, b.y0, y0);
        b.width = SELECT(x < x0, b.width, width);
        b.u0 = SELECT(x < x0, b.u0, u0);
        b.v = SELECT(x < x0, b.v, v);
        b.u1 = SELECT(x < x0, b.u1, u1);
        b.x0 = SELECT(x < x0, b.x0, x0);
        x0 = x0+width;
        y0 = y0+width*(u0+v+u1)*(real) 0.33333333333333333;
        u0 = u1;
    }
    return b;
}

FORMULA TransformerValue cubicBSpline(real x, Parameters p, int bins, bool circular) {
    CubicBSplineBin b = cubicBSplineBin(x, p, bins, circular);
    real inverseWidth = (real) 1/b.width;
    real t = (x-b.x0)*inverseWidth;
    real u = (real) 1-t;
    real third = (real) 0.33333333333333333*t*t*t;
    TransformerValue v;
    v.value = b.y0+b.width*(b.u0*(t*u+third)+b.v*(t*t-(real) 2*third)+b.u1*third);
    v.d1 = b.u0*u*u+(real) 2*b.v*t*u+b.u1*t*t;
    v.d2 = (real) 2*inverseWidth*(b.v*(u-t)+b.u1*t-b.u0*u);
    return v;
}

FORMULA void cubicBSplineGradient(real x, real vF, real vD, Parameters p, Parameters gradient, int bins, bool circular,
        real minimumWidth, real minimumIncrement) {
    const int numIncrements = cubicBSplineNumIncrements(bins, circular), numWidths = cubicBSplineNumWidths(bins, circular);
    CubicBSplineBin b = cubicBSplineBin(x, p, bins, circular);
    TransformerValue value = cubicBSpline(x, p, bins, circular);
    for (int i = 0; i < numIncrements+numWidths; i++)
        PARAMETER(gradient, i) = (real) 0;
    real t = (x-b.x0)/b.width;
    real u = (real) 1-t;
    real third = (real) 0.33333333333333333*t*t*t;
    // F is linear in v, and divided by F(1): the derivative with respect to that is this.
    real vTotal = -(vF*value.value+vD*value.d1);
    // The lower edge of the bin is the sum of the widths before it.
    real vEdge = -(vF*value.d1+vD*value.d2);
    real vSlope0 = (real) 0;        // with respect to the slope at the lower edge, from the bin before
    for (int k = 0; k <= bins; k++) {
        real w0 = PARAMETER(p, cubicBSplineWidth(k-1, bins, circular));
        real w1 = PARAMETER(p, cubicBSplineWidth(k, bins, circular));
        const int before = cubicBSplineIncrement(k-1, bins, circular), here = cubicBSplineIncrement(k, bins, circular);
        real v0 = PARAMETER(p, before);
        real v1 = PARAMETER(p, here);
        real slope = cubicBSplineSlope(k, p, bins, circular);
        real vSlope1 = (real) 0;
        if (k < bins) {
            real below = SELECT((real) k < b.index, (real) 1, (real) 0);
            real inside = SELECT((real) k < b.index, (real) 0, SELECT((real) k > b.index, (real) 0, (real) 1));
            // with respect to the integral of the slope over the bin
            real vIntegral = (below*vF+vTotal)*(real) 0.33333333333333333;
            real sum = slope+v1+cubicBSplineSlope(k+1, p, bins, circular);
            const int width = cubicBSplineWidth(k, bins, circular);
            PARAMETER(gradient, width) = PARAMETER(gradient, width)+vIntegral*sum+below*vEdge
                    +inside*(vEdge*t+vF*(value.value-b.y0)/b.width);
            PARAMETER(gradient, here) = PARAMETER(gradient, here)+vIntegral*w1
                    +inside*(vF*b.width*(t*t-(real) 2*third)+(real) 2*vD*t*u);
            vSlope0 = vSlope0+vIntegral*w1+inside*(vF*b.width*(t*u+third)+vD*u*u);
            vSlope1 = vIntegral*w1+inside*(vF*b.width*third+vD*t*t);
        }
        // slope = (w1 v0 + w0 v1)/(w0 + w1)
        real share = vSlope0/(w0+w1);
        const int width0 = cubicBSplineWidth(k-1, bins, circular), width1 = cubicBSplineWidth(k, bins, circular);
        PARAMETER(gradient, before) = PARAMETER(gradient, before)+share*w1;
        PARAMETER(gradient, here) = PARAMETER(gradient, here)+share*w0;
        PARAMETER(gradient, width0) = PARAMETER(gradient, width0)+share*(v1-slope);
        PARAMETER(gradient, width1) = PARAMETER(gradient, width1)+share*(v0-slope);
        vSlope0 = vSlope1;
    }
    // From v to increments, which add up to 1, and to the widths of its span.
    real sum = (real) 0;
    for (int i = 0; i < numIncrements; i++)
        sum = sum+PARAMETER(p, i)*cubicBSplineSpan(i-1, p, bins, circular);
    real scale = (real) 3/sum;      // of v before F(1) was made 1, relative to that after
    for (int i = 0; i < numIncrements; i++) {
        real span = cubicBSplineSpan(i-1, p, bins, circular);
        real g = PARAMETER(gradient, i)/span;
        for (int j = -1; j <= 1; j++) {
            const int width = cubicBSplineWidth(i-1+j, bins, circular);
            PARAMETER(gradient, width) = PARAMETER(gradient, width)-g*PARAMETER(p, i);
        }
        PARAMETER(gradient, i) = (real) 3*g/scale;
        PARAMETER(p, i) = PARAMETER(p, i)*span*scale*(real) 0.33333333333333333;
    }
    // From widths relative to those of [0,1] to widths that add up to 1.
    real all = (real) 0;
    real moment = (real) 0;
    for (int i = 0; i < numWidths; i++) {
        all = all+PARAMETER(p, numIncrements+i);
        moment = moment+PARAMETER(p, numIncrements+i)*PARAMETER(gradient, numIncrements+i);
    }
    for (int i = 0; i < numWidths; i++) {
        real g = PARAMETER(gradient, numIncrements+i);
        if (i < bins)
            g = g-moment;
        PARAMETER(gradient, numIncrements+i) = g*all;
        PARAMETER(p, numIncrements+i) = PARAMETER(p, numIncrements+i)/all;
    }
    headSoftmaxGradient(p, gradient, 0, numIncrements, minimumIncrement);
    headSoftmaxGradient(p, gradient, numIncrements, numWidths, minimumWidth);
}
