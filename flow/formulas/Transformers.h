// SPDX-License-Identifier: MIT
// Which transformer: the functions of their files by number. docs/new_transformer.md tells how to add one.
// Formula text: see Formulas.h for what is allowed here.

#define TRANSFORMER_RATIONAL_QUADRATIC_SPLINE 0
#define TRANSFORMER_CUBIC_B_SPLINE 1
#define TRANSFORMER_AFFINE 2
#define TRANSFORMER_MOEBIUS 3
#define TRANSFORMER_ANALYTIC 4

typedef struct {
    int type;              // one of the numbers above
    int size;              // of its blocks: bins, components or steps
    real setting0, setting1, setting2, setting3;    // in the order of its descriptor, flow/model/TransformerDescriptor.cpp
} TransformerSettings;

// From raw parameters to parameters, in place.
FORMULA void transformerHead(TransformerSettings s, bool circular, Parameters p) {
    switch (s.type) {
        case TRANSFORMER_RATIONAL_QUADRATIC_SPLINE:
            rationalQuadraticSplineHead(p, s.size, circular, s.setting0, s.setting1, s.setting2, s.setting3);
            break;
        case TRANSFORMER_CUBIC_B_SPLINE:
            cubicBSplineHead(p, s.size, circular, s.setting0, s.setting1);
            break;
        case TRANSFORMER_AFFINE:
            affineHead(p, s.setting0);
            break;
        case TRANSFORMER_MOEBIUS:
            moebiusHead(p, s.size, s.setting0);
            break;
        default:
            analyticHead(p, s.size, circular, s.setting0, s.setting1);
            break;
    }
}

FORMULA TransformerValue transformerValue(TransformerSettings s, bool circular, real x, Parameters p) {
    switch (s.type) {
        case TRANSFORMER_RATIONAL_QUADRATIC_SPLINE: return rationalQuadraticSpline(x, p, s.size, circular);
        case TRANSFORMER_CUBIC_B_SPLINE: return cubicBSpline(x, p, s.size, circular);
        case TRANSFORMER_AFFINE: return affine(x, p);
        case TRANSFORMER_MOEBIUS: return moebius(x, p, s.size);
        default: return analytic(x, p, s.size, circular);
    }
}

// Whether transformerInverse knows the inverse. If not, F maps 0 to 0 and 1 to 1, and the root is to be found between them.
FORMULA bool transformerHasInverse(TransformerSettings s) {
    return s.type != TRANSFORMER_CUBIC_B_SPLINE && (s.type != TRANSFORMER_MOEBIUS || s.size == 1);
}

// The x at which F is y.
FORMULA real transformerInverse(TransformerSettings s, bool circular, real y, Parameters p) {
    switch (s.type) {
        case TRANSFORMER_RATIONAL_QUADRATIC_SPLINE: return rationalQuadraticSplineInverse(y, p, s.size, circular);
        case TRANSFORMER_AFFINE: return affineInverse(y, p);
        case TRANSFORMER_MOEBIUS: return moebiusInverse(y, p);
        case TRANSFORMER_ANALYTIC: return analyticInverse(y, p, s.size, circular);
        default: return y;    // has none
    }
}

// The derivatives of vF F(x) + vD F'(x) with respect to the raw parameters. May spoil the parameters.
FORMULA void transformerGradient(TransformerSettings s, bool circular, real x, real vF, real vD, Parameters p, Parameters gradient) {
    switch (s.type) {
        case TRANSFORMER_RATIONAL_QUADRATIC_SPLINE:
            rationalQuadraticSplineGradient(x, vF, vD, p, gradient, s.size, circular, s.setting0, s.setting1, s.setting2, s.setting3);
            break;
        case TRANSFORMER_CUBIC_B_SPLINE:
            cubicBSplineGradient(x, vF, vD, p, gradient, s.size, circular, s.setting0, s.setting1);
            break;
        case TRANSFORMER_AFFINE:
            affineGradient(x, vF, vD, p, gradient, s.setting0);
            break;
        case TRANSFORMER_MOEBIUS:
            moebiusGradient(x, vF, vD, p, gradient, s.size, s.setting0);
            break;
        default:
            analyticGradient(x, vF, vD, p, gradient, s.size, circular, s.setting0, s.setting1);
            break;
    }
}
