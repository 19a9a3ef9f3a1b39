// SPDX-License-Identifier: MIT
#include "model/TransformerDescriptor.h"
#include "formulas/Formulas.h"

#include <cmath>

using namespace OpenMMFlow;
using namespace std;

namespace {

// Upper ends of ranges. Sizes are bounded so that numbers of parameters stay well within 32 bits.
const int MAX_SIZE = 1024, MAX_STEPS = 64;

double one(int) {
    return 1;
}

double five(int) {
    return 5;
}

double ten(int) {
    return 10;
}

double thousand(int) {
    return 1000;
}

double oneOverBins(int bins) {
    return 1.0/bins;
}

double oneOverAllBins(int bins) {
    return 1.0/(bins+4);
}

/** In F' = s^2 m/q^2, docs/theory.md, m and q are means of s and the slopes at both edges of the bin. */
pair<double, double> rationalQuadraticSplineRange(int bins, const vector<double>& settings, double largestRaw) {
    const double smallest = min(settings[1]/(1-(bins-1)*settings[0]), settings[2]);
    const double sharpness = settings[3];
    const double largest = max((1-(bins-1)*settings[1])/settings[0], settings[2]+largestRaw+log(2.0)/sharpness);
    const double steepest = (1-(bins-1)*settings[1])/settings[0], flattest = settings[1]/(1-(bins-1)*settings[0]);
    return {2*log(flattest)+log(smallest)-2*log(largest), 2*log(steepest)+log(largest)-2*log(smallest)};
}

/** Slopes are means of v_i, divided by another mean of them. */
pair<double, double> cubicBSplineRange(int, const vector<double>& settings, double) {
    const double largest = -log(settings[0]*settings[1]);
    return {-largest, largest};
}

pair<double, double> affineRange(int, const vector<double>& settings, double) {
    return {-settings[0], settings[0]};
}

/** Poisson's kernel. */
pair<double, double> moebiusRange(int, const vector<double>& settings, double) {
    const double largest = log((1+settings[0])/(1-settings[0]));
    return {-largest, largest};
}

/**
 * On an interval a step moves u = ln(x/(1-x)) by less than 3B+1 and has a slope between exp(-2B)/2 and 2 exp(B) there, and
 * ln x(1-x) changes by what u does at most. On a circle as above.
 */
pair<double, double> analyticRange(int steps, const vector<double>& settings, double largestRaw) {
    const double interval = steps*(5*settings[0]+2), circle = steps*moebiusRange(1, {settings[1]}, largestRaw).second;
    return {-max(interval, circle), max(interval, circle)};
}

} // namespace

const char* OpenMMFlow::describe(Smoothness smoothness) {
    return smoothness == Smoothness::C1 ? "C1" : smoothness == Smoothness::C2 ? "C2" : "C-infinity";
}

const vector<TransformerDescriptor>& OpenMMFlow::transformerDescriptors() {
    const vector<Domain> compact = {Domain::Interval, Domain::Circle};
    static const vector<TransformerDescriptor> descriptors = {
        {"rationalQuadraticSpline", TRANSFORMER_RATIONAL_QUADRATIC_SPLINE, Smoothness::C1, compact, "bins", 1, MAX_SIZE,
            {{"minimumWidth", 0, oneOverBins, false}, {"minimumHeight", 0, oneOverBins, false}, {"minimumSlope", 0, one, false},
                {"slopeSharpness", 0, thousand, true}},
            {{1, 0, false}, {1, 0, false}, {1, 0, false}, {0, 1, true}}, rationalQuadraticSplineRange},
        {"cubicBSpline", TRANSFORMER_CUBIC_B_SPLINE, Smoothness::C2, compact, "bins", 2, MAX_SIZE,
            {{"minimumWidth", 0, oneOverAllBins, false}, {"minimumIncrement", 0, oneOverAllBins, false}},
            {{1, 0, false}, {0, 1, true}, {0, 1, true}, {1, 0, false}, {0, 1, true}, {0, 1, true}, {0, 1, true}, {0, 1, true}},
            cubicBSplineRange},
        {"affine", TRANSFORMER_AFFINE, Smoothness::Infinite, {Domain::Real}, nullptr, 1, 1, {{"logScaleBound", 0, ten, true}},
            {{0, 1, false}, {0, 1, false}}, affineRange},
        {"moebius", TRANSFORMER_MOEBIUS, Smoothness::Infinite, {Domain::Circle}, "components", 1, MAX_SIZE,
            {{"radiusBound", 0, one, false}}, {{1, 0, false}, {1, 0, false}, {1, 0, false}}, moebiusRange},
        {"analytic", TRANSFORMER_ANALYTIC, Smoothness::Infinite, compact, "steps", 1, MAX_STEPS,
            {{"logScaleBound", 0, five, true}, {"radiusBound", 0, one, false}},
            {{1, 0, false}, {1, 0, false}, {0, 1, false}, {1, -1, true}},
            analyticRange},
    };
    return descriptors;
}
