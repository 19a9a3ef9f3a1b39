// SPDX-License-Identifier: MIT
// What the transformers of couplings have in common, and parts of their heads. docs/new_transformer.md tells how to add one.
// Formula text: see Formulas.h for what is allowed here.
//
// A transformer is a monotone map F of one coordinate. Its text has up to four functions, which Transformers.h chooses among:
//   ...Head      turns raw parameters into parameters, in place
//   ...          F and two derivatives at x, from parameters
//   ...Inverse   the x of a y, from parameters, if that has a closed form; its value alone, as all else is evaluated at x
//   ...Gradient  the derivatives of vF F(x) + vD F'(x) with respect to the raw parameters. All entries of `gradient` are written.
//                It may spoil the parameters.
// Parameters are those of one coordinate, block after block in the order of docs/model_format.md.

typedef struct {
    real value;    // F
    real d1;       // dF/dx
    real d2;       // d2F/dx2
} TransformerValue;

// `count` parameters from `first` on become minimum+(1-count minimum) softmax.
FORMULA void headSoftmax(Parameters parameters, int first, int count, real minimum) {
    real largest = PARAMETER(parameters, first);
    for (int i = 1; i < count; i++) {
        real next = PARAMETER(parameters, first+i);
        largest = SELECT(largest < next, next, largest);
    }
    real sum = (real) 0;
    for (int i = 0; i < count; i++) {
        real e = EXP(PARAMETER(parameters, first+i)-largest);
        PARAMETER(parameters, first+i) = e;
        sum = sum+e;
    }
    real scale = ((real) 1-(real) count*minimum)/sum;
    for (int i = 0; i < count; i++)
        PARAMETER(parameters, first+i) = minimum+scale*PARAMETER(parameters, first+i);
}

// From the gradient with respect to these parameters to that with respect to the raw ones, in place.
FORMULA void headSoftmaxGradient(Parameters parameters, Parameters gradient, int first, int count, real minimum) {
    real sum = (real) 0;
    for (int i = 0; i < count; i++)
        sum = sum+(PARAMETER(parameters, first+i)-minimum)*PARAMETER(gradient, first+i);
    real mean = sum/((real) 1-(real) count*minimum);
    for (int i = 0; i < count; i++)
        PARAMETER(gradient, first+i) = (PARAMETER(parameters, first+i)-minimum)*(PARAMETER(gradient, first+i)-mean);
}

// bound tanh(raw/bound*steepness); `steepness` is bound for bound tanh(raw), and 1 for a slope of 1 at raw = 0.
FORMULA real headBounded(real raw, real bound, real steepness) {
    return bound*hyperbolicTangent(raw*steepness/bound);
}

// Its derivative with respect to the raw parameter, from its value.
FORMULA real headBoundedSlope(real value, real bound, real steepness) {
    real t = value/bound;
    return steepness*((real) 1-t*t);
}

// Two parameters as a point of the disc of the given radius: radius (a, b)/sqrt(1+a^2+b^2).
FORMULA void headDisc(Parameters parameters, int re, int im, real radius) {
    real a = PARAMETER(parameters, re);
    real b = PARAMETER(parameters, im);
    real scale = radius/SQRT((real) 1+a*a+b*b);
    PARAMETER(parameters, re) = scale*a;
    PARAMETER(parameters, im) = scale*b;
}

// Writes the gradient with respect to the raw parameters; gRe and gIm are that with respect to the point.
FORMULA void headDiscGradient(Parameters parameters, Parameters gradient, int re, int im, real radius, real gRe, real gIm) {
    real a = PARAMETER(parameters, re)/radius;
    real b = PARAMETER(parameters, im)/radius;
    real rest = (real) 1-a*a-b*b;
    // 1-a^2-b^2 is positive, but rounding may not know.
    real scale = radius*SQRT(SELECT(rest < (real) 0, (real) 0, rest));
    real along = a*gRe+b*gIm;
    PARAMETER(gradient, re) = scale*(gRe-a*along);
    PARAMETER(gradient, im) = scale*(gIm-b*along);
}
