// SPDX-License-Identifier: MIT
// Every analytic derivative of the formula text against central differences, over random arguments.
#include "formulas/Formulas.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <random>
#include <tuple>
#include <vector>

using namespace OpenMMFlow;
using namespace std;
using F = Formulas<double>;

namespace {

/** Fourth-order central difference. */
double difference(const function<double(double)>& f, double x, double h = 1e-4) {
    return (8*(f(x+h)-f(x-h))-(f(x+2*h)-f(x-2*h)))/(12*h);
}

/** Error relative to the largest of 1 and both values. */
void expectClose(double analytic, double numeric, double tolerance, const string& what) {
    EXPECT_NEAR(analytic, numeric, tolerance*max({1.0, abs(analytic), abs(numeric)})) << what;
}

double uniform(mt19937& random, double low, double high) {
    return uniform_real_distribution<double>(low, high)(random);
}

} // namespace

class SmoothSigmoidTest : public testing::TestWithParam<int> {
};

TEST_P(SmoothSigmoidTest, IsTheQuotientOfRamps) {
    const int exponent = GetParam();
    for (double alpha : {0.87, 2.0, 10.0})
        for (double u = 0.05; u < 1; u += 0.05) {
            const auto ramp = [&](double v) { return exp(alpha*(1-pow(v, -exponent))); };
            EXPECT_NEAR(F::smoothSigmoid(u, alpha, exponent).value, ramp(u)/(ramp(u)+ramp(1-u)), 1e-14);
        }
}

TEST_P(SmoothSigmoidTest, DerivativesMatchDifferences) {
    const int exponent = GetParam();
    for (double alpha : {0.8660254, 1.5, 6.0})
        for (double u = 0.1; u < 0.95; u += 0.07) {
            const F::SmoothSigmoid s = F::smoothSigmoid(u, alpha, exponent);
            expectClose(s.d1, difference([&](double v) { return F::smoothSigmoid(v, alpha, exponent).value; }, u), 1e-8, "S'");
            expectClose(s.d2, difference([&](double v) { return F::smoothSigmoid(v, alpha, exponent).d1; }, u), 1e-8, "S''");
            expectClose(s.dAlpha, difference([&](double a) { return F::smoothSigmoid(u, a, exponent).value; }, alpha), 1e-8, "S_alpha");
            expectClose(s.d1Alpha, difference([&](double a) { return F::smoothSigmoid(u, a, exponent).d1; }, alpha), 1e-8, "S'_alpha");
        }
}

TEST_P(SmoothSigmoidTest, IsFlatAndFiniteBeyondItsEnds) {
    for (double u : {-1e6, -1.0, -1e-300, 0.0, 1e-300, 1e-6, 1-1e-12, 1.0, 2.0, 1e6}) {
        const F::SmoothSigmoid s = F::smoothSigmoid(u, 0.8660254, GetParam());
        EXPECT_NEAR(s.value, u < 0.5 ? 0 : 1, 1e-30) << u;
        EXPECT_LT(abs(s.d1)+abs(s.d2)+abs(s.dAlpha)+abs(s.d1Alpha), 1e-30) << u;
    }
}

TEST_P(SmoothSigmoidTest, IsUnimodalFromTheSmallestAlphaOn) {
    // S''' <= 0 at 1/2
    const double alpha = (GetParam() == 1 ? sqrt(3.0)/2 : sqrt(3.0/32));
    const auto third = [&](double a) { return difference([&](double v) { return F::smoothSigmoid(v, a, GetParam()).d2; }, 0.5); };
    EXPECT_NEAR(third(alpha), 0, 1e-6);
    EXPECT_LT(third(1.01*alpha), 0);
    EXPECT_GT(third(0.99*alpha), 0);
}

INSTANTIATE_TEST_SUITE_P(Exponents, SmoothSigmoidTest, testing::Values(1, 2));

/** exponent, circular */
class MixtureComponentTest : public testing::TestWithParam<tuple<int, bool>> {
protected:
    struct Arguments {
        double x, mu, sigma, alpha, floor;
    };
    int exponent = get<0>(GetParam());
    bool circular = get<1>(GetParam());

    F::MixtureComponent evaluate(const Arguments& a) const {
        const F::MixtureComponentEnds ends = F::mixtureComponentEnds(a.mu, a.sigma, a.alpha, exponent, circular);
        const double u = F::mixtureComponentArgument(a.x, a.mu, a.sigma, circular);
        return F::mixtureComponent(a.x, a.sigma, a.floor, F::smoothSigmoid(u, a.alpha, exponent), ends,
                F::mixtureComponentWinding(a.x, a.mu, a.sigma, circular));
    }

    Arguments random(mt19937& generator) const {
        return {uniform(generator, 0.01, 0.99), uniform(generator, circular ? -1 : 0.05, circular ? 2 : 0.95),
                exp(uniform(generator, circular ? 0 : -1, 1.5)), uniform(generator, 0.87, 5), uniform(generator, 0, 0.9)};
    }
};

TEST_P(MixtureComponentTest, MapsZeroToZeroAndOneToOne) {
    mt19937 generator(1);
    for (int i = 0; i < 100; i++) {
        Arguments a = random(generator);
        a.x = 0;
        EXPECT_NEAR(evaluate(a).value, 0, 1e-14);
        a.x = 1;
        EXPECT_NEAR(evaluate(a).value, 1, 1e-14);
    }
}

TEST_P(MixtureComponentTest, DerivativesMatchDifferences) {
    mt19937 generator(2);
    for (int i = 0; i < 300; i++) {
        const Arguments a = random(generator);
        const double vF = uniform(generator, -1, 1), vD = uniform(generator, -1, 1);
        const auto loss = [&](double Arguments::*which, double value) {
            Arguments changed = a;
            changed.*which = value;
            const F::MixtureComponent c = evaluate(changed);
            return vF*c.value+vD*c.d1;
        };
        const auto numeric = [&](double Arguments::*which) {
            return difference([&](double v) { return loss(which, v); }, a.*which, 2e-5);
        };
        const F::MixtureComponentEnds ends = F::mixtureComponentEnds(a.mu, a.sigma, a.alpha, exponent, circular);
        const double u = F::mixtureComponentArgument(a.x, a.mu, a.sigma, circular);
        const double winding = F::mixtureComponentWinding(a.x, a.mu, a.sigma, circular);
        const F::SmoothSigmoid s = F::smoothSigmoid(u, a.alpha, exponent);
        const F::MixtureComponent c = F::mixtureComponent(a.x, a.sigma, a.floor, s, ends, winding);
        const F::MixtureComponentGradient g =
                F::mixtureComponentGradient(a.x, u, a.sigma, a.floor, s, ends, winding, circular, vF, vD);
        expectClose(vF*c.d1+vD*c.d2, numeric(&Arguments::x), 2e-6, "x");
        expectClose(g.mu, numeric(&Arguments::mu), 2e-6, "mu");
        expectClose(g.sigma, numeric(&Arguments::sigma), 2e-6, "sigma");
        expectClose(g.alpha, numeric(&Arguments::alpha), 2e-6, "alpha");
        expectClose(g.floor, numeric(&Arguments::floor), 2e-6, "floor");
    }
}

TEST_P(MixtureComponentTest, HasNoSeamOnTheCircle) {
    if (!circular)
        return;    // an interval has ends, not a seam
    mt19937 generator(3);
    for (int i = 0; i < 200; i++) {
        Arguments a = random(generator);
        a.x = 0;
        const F::MixtureComponent low = evaluate(a);
        a.x = 1;
        const F::MixtureComponent high = evaluate(a);
        expectClose(low.d1, high.d1, 1e-11, "F'");
        expectClose(low.d2, high.d2, 1e-9, "F''");
    }
}

INSTANTIATE_TEST_SUITE_P(Domains, MixtureComponentTest, testing::Combine(testing::Values(1, 2), testing::Bool()));

TEST(MixtureHead, DerivativesMatchDifferences) {
    const vector<function<F::HeadParameter(double)>> heads = {
        [](double r) { return F::headLogistic(r, 0.87, 10); },
        [](double r) { return F::headSteepnessOnInterval(r, 3, 1/3.0); },
        [](double r) { return F::headSteepnessOnInterval(r, 1, 1); },
        [](double r) { return F::headSteepnessOnCircle(r, 4); },
        [](double r) { return F::headCentreOnInterval(r, 0.1875); },
    };
    for (const auto& head : heads)
        for (double r = -4; r < 4; r += 0.37)
            expectClose(head(r).d1, difference([&](double v) { return head(v).value; }, r), 1e-8, "head");
    EXPECT_NEAR(F::headCentreOnInterval(0, 0.1875).value, 0.1875, 1e-15);
}

TEST(MixtureHead, CentresOnACircleAreWithinOneTurn) {
    for (double r = -4; r < 4; r += 0.37) {
        const F::HeadParameter mu = F::headCentreOnCircle(r, 0.1875);
        EXPECT_GE(mu.value, 0);
        EXPECT_LT(mu.value, 1);
        EXPECT_NEAR(remainder(mu.value-r-0.1875, 1), 0, 1e-15);
        EXPECT_EQ(mu.d1, 1);
    }
}

TEST(MixtureHead, IsFiniteForHugeRawParameters) {
    for (double r : {-1e6, 1e6}) {
        for (const F::HeadParameter& p : {F::headLogistic(r, 0.87, 10), F::headSteepnessOnInterval(r, 3, 1/3.0),
                F::headSteepnessOnCircle(r, 4), F::headCentreOnInterval(r, 0.1875)})
            EXPECT_TRUE(isfinite(p.value) && isfinite(p.d1)) << r;
    }
}

TEST(Activation, ValuesAndDerivatives) {
    struct Case {
        const char* name;
        F::Activation (*function)(double);
        double (*standard)(double);
    };
    const Case cases[] = {
        {"silu", F::activationSiLU, [](double x) { return x/(1+exp(-x)); }},
        {"tanh", F::activationTanh, [](double x) { return tanh(x); }},
        {"sin", F::activationSin, [](double x) { return sin(x); }},
        {"gelu", F::activationGELU, [](double x) { return 0.5*x*erfc(-x/sqrt(2.0)); }},
        {"softplus", F::activationSoftplus, [](double x) { return x > 0 ? x+log1p(exp(-x)) : log1p(exp(x)); }},
    };
    for (const Case& c : cases)
        for (double x = -30; x < 30; x += 0.173) {
            expectClose(c.function(x).value, c.standard(x), 1e-14, c.name);
            expectClose(c.function(x).d1, difference([&](double v) { return c.function(v).value; }, x), 1e-8, c.name);
        }
    // Range reduction in single precision, far out
    double worst = 0;
    for (float x = -1000; x < 1000; x += 0.7113f)
        worst = max(worst, abs(Formulas<float>::activationSin(x).value-sin(static_cast<double>(x))));
    RecordProperty("worst float sine error", to_string(worst));
    EXPECT_LT(worst, 5e-5);
}

TEST(Marginal, DensityIsTheDerivative) {
    const double mean = 0.3, std = 0.07, lower = 0.05, upper = 0.5;
    const double cdfLower = F::standardNormalCdf((lower-mean)/std);
    const double mass = F::standardNormalCdf((upper-mean)/std)-cdfLower;
    const double logNorm = -log(std*mass)-0.5*log(2*M_PI);
    const auto truncated = [&](double x) { return F::normalMarginal(x, mean, 1/std, cdfLower, 1/mass, logNorm); };
    EXPECT_NEAR(truncated(lower).value, 0, 1e-14);
    EXPECT_NEAR(truncated(upper).value, 1, 1e-14);
    for (double x = 0.1; x < 0.48; x += 0.013) {
        expectClose(exp(truncated(x).logDensity), difference([&](double v) { return truncated(v).value; }, x), 1e-8, "density");
        expectClose(truncated(x).dLogDensity, difference([&](double v) { return truncated(v).logDensity; }, x), 1e-8, "slope");
    }
    const F::MarginalValue u = F::uniformMarginal(0.2, 0.1, 2.0, log(2.0));
    EXPECT_DOUBLE_EQ(u.value, 0.2);
    EXPECT_DOUBLE_EQ(u.logDensity, log(2.0));
}

TEST(InternalCoordinates, DerivativesMatchDifferences) {
    mt19937 generator(4);
    for (int i = 0; i < 100; i++) {
        array<F::Vector, 4> r;
        for (F::Vector& v : r)
            v = {uniform(generator, -1, 1), uniform(generator, -1, 1), uniform(generator, -1, 1)};
        const F::Angle angle = F::bondAngle(r[0], r[1], r[2]);
        const F::Angle otherAngle = F::bondAngle(r[1], r[2], r[3]);
        if (angle.sine < 0.2 || otherAngle.sine < 0.2)
            continue;
        EXPECT_NEAR(angle.sine*angle.sine+angle.cosine*angle.cosine, 1, 1e-12);
        const F::Bond bond = F::bondLength(r[0], r[1]);
        const F::Torsion torsion = F::torsion(r[0], r[1], r[2], r[3]);
        const double phi = atan2(torsion.scaledSine, torsion.scaledCosine);
        const F::Vector analytic[4] = {torsion.dI, torsion.dJ, torsion.dK, torsion.dL};
        for (int atom = 0; atom < 4; atom++)
            for (double F::Vector::*axis : {&F::Vector::x, &F::Vector::y, &F::Vector::z}) {
                const auto moved = [&](double value) {
                    array<F::Vector, 4> m = r;
                    m[atom].*axis = value;
                    return m;
                };
                const double at = r[atom].*axis;
                // relative to phi, so that the branch of atan2 does not matter
                expectClose(analytic[atom].*axis, difference([&](double v) {
                    const auto m = moved(v);
                    const F::Torsion t = F::torsion(m[0], m[1], m[2], m[3]);
                    return atan2(t.scaledSine*cos(phi)-t.scaledCosine*sin(phi), t.scaledCosine*cos(phi)+t.scaledSine*sin(phi));
                }, at), 1e-7, "torsion");
                const double cosine = (atom == 0 ? angle.dI.*axis : atom == 2 ? angle.dK.*axis :
                        atom == 1 ? -(angle.dI.*axis)-(angle.dK.*axis) : 0);
                expectClose(cosine, difference([&](double v) {
                    const auto m = moved(v);
                    return F::bondAngle(m[0], m[1], m[2]).cosine;
                }, at), 1e-7, "angle");
                expectClose(atom == 0 ? bond.dI.*axis : atom == 1 ? -(bond.dI.*axis) : 0, difference([&](double v) {
                    const auto m = moved(v);
                    return F::bondLength(m[0], m[1]).length;
                }, at), 1e-7, "bond");
            }
    }
}

TEST(InternalCoordinates, TorsionHasTheIupacSign) {
    // Looking along j-k, l is turned clockwise from i by +90 degrees.
    const F::Torsion t = F::torsion({1, 0, 0}, {0, 0, 0}, {0, 0, 1}, {0, -1, 1});
    const double expected = [] {
        // definition: sign of (b1 x b2) . b3 with b1 = j-i, b2 = k-j, b3 = l-k
        const double b1[3] = {-1, 0, 0}, b2[3] = {0, 0, 1}, b3[3] = {0, -1, 0};
        const double n[3] = {b1[1]*b2[2]-b1[2]*b2[1], b1[2]*b2[0]-b1[0]*b2[2], b1[0]*b2[1]-b1[1]*b2[0]};
        return n[0]*b3[0]+n[1]*b3[1]+n[2]*b3[2] > 0 ? M_PI/2 : -M_PI/2;
    }();
    EXPECT_NEAR(atan2(t.scaledSine, t.scaledCosine), expected, 1e-14);
}

TEST(SupportContinuation, FormulasAreTwiceContinuouslyDifferentiable) {
    struct Case {
        const char* name;
        function<F::Continued(double)> f;
        vector<double> edges;
    };
    const double lower = 0.1, upper = 0.15, margin = 0.004;
    const Case cases[] = {
        {"smoothStep", [](double x) { return F::smoothStep(x); }, {0, 1}},
        {"saturate", [=](double x) { return F::saturate(x, lower, upper, margin); }, {lower-margin, lower, upper, upper+margin}},
        {"wall", [=](double x) { return F::wall(x, lower, upper, 200); }, {lower, upper}},
    };
    for (const Case& c : cases) {
        for (double x = c.edges.front()-0.5*(c.edges.back()-c.edges.front()); x < 1.5*c.edges.back(); x += 0.00037) {
            const double h = 1e-7;
            expectClose(c.f(x).d1, (c.f(x+h).value-c.f(x-h).value)/(2*h), 1e-4, c.name);
        }
        for (double edge : c.edges) {
            // value, slope and second derivative from both sides, closer and closer
            const double h = 1e-7*(c.edges.back()-c.edges.front());
            const double scale = abs(c.f(edge+1e3*h).d1-c.f(edge-1e3*h).d1)/(2e3*h);
            EXPECT_NEAR(c.f(edge-h).value, c.f(edge+h).value, 3*h*(1+abs(c.f(edge).d1))) << c.name;
            const double left = (c.f(edge).d1-c.f(edge-h).d1)/h, right = (c.f(edge+h).d1-c.f(edge).d1)/h;
            EXPECT_NEAR(left, right, 0.01*max(scale, 1.0)+0.01) << c.name << " at " << edge;
        }
    }
    EXPECT_DOUBLE_EQ(F::saturate(0.12, lower, upper, margin).value, 0.12);
    EXPECT_NEAR(F::saturate(1, lower, upper, margin).value, upper+0.5*margin, 1e-15);
    EXPECT_NEAR(F::saturate(0, lower, upper, margin).value, lower-0.5*margin, 1e-15);
}
