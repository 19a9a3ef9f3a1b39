// SPDX-License-Identifier: MIT
// The evaluator on random models: gradients, precisions, blocks, and the continuation outside of the support.
#include "RandomModels.h"
#include "engine/Evaluator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <random>
#include <variant>
#include <vector>

using namespace OpenMMFlow;
using namespace std;

namespace {

double rootMeanSquare(const vector<double>& values) {
    double sum = 0;
    for (double v : values)
        sum += v*v;
    return sqrt(sum/values.size());
}

/** A random model with its evaluator, and conformations (count, numParticles, 3). */
struct RandomFlow {
    FlowModel model;
    Evaluator evaluator;
    Evaluator::WorkspacePointer workspace;
    mt19937 random;
    int size;

    explicit RandomFlow(unsigned seed, const RandomModelOptions& options = {}, Precision precision = Precision::Double, long long count = 1) :
            model(randomModel(options, seed)), evaluator(model, precision), workspace(evaluator.createWorkspace(count)), random(seed),
            size(3*model.getNumParticles()) {
    }

    vector<double> conformations(int count) {
        vector<double> all;
        for (int i = 0; i < count; i++) {
            vector<double> x = randomConformation(model, random);
            all.insert(all.end(), x.begin(), x.end());
        }
        return all;
    }

    /** lambda*flow + wall, k_B T */
    double energy(const vector<double>& x, double lambda, double* gradient = nullptr) {
        const ContinuedPotential u = evaluator.continuedPotential(x.data(), lambda, gradient, *workspace);
        return lambda*u.flow+u.wall;
    }
};

} // namespace

/** seed of the random model */
class EvaluatorTest : public testing::TestWithParam<unsigned> {
};

TEST_P(EvaluatorTest, GradientMatchesDifferences) {
    RandomFlow flow(GetParam());
    const vector<double> x = flow.conformations(1);
    vector<double> gradient(flow.size);
    flow.evaluator.logProb(x.data(), gradient.data(), nullptr, *flow.workspace);
    const double scale = rootMeanSquare(gradient);
    double worst = 0;
    for (int i = 0; i < flow.size; i++) {
        const double h = 2e-6;
        const auto at = [&](double d) {
            vector<double> moved = x;
            moved[i] += d;
            return flow.evaluator.logProb(moved.data(), nullptr, nullptr, *flow.workspace);
        };
        const double numeric = (8*(at(h)-at(-h))-(at(2*h)-at(-2*h)))/(12*h);
        worst = max(worst, abs(gradient[i]-numeric)/max(scale, abs(numeric)));
    }
    cout << "largest error relative to the RMS gradient: " << worst << endl;
    EXPECT_LT(worst, 1e-5);
}

TEST_P(EvaluatorTest, PotentialIsMinusLogProbOnTheInnerSupport) {
    RandomFlow flow(GetParam());
    const vector<double> x = flow.conformations(1);
    vector<double> gradient(flow.size), flowGradient(flow.size);
    const double logProb = flow.evaluator.logProb(x.data(), gradient.data(), nullptr, *flow.workspace);
    const ContinuedPotential u = flow.evaluator.continuedPotential(x.data(), 0.7, flowGradient.data(), *flow.workspace);
    EXPECT_EQ(u.flow, -logProb);
    EXPECT_EQ(u.wall, 0);
    EXPECT_FALSE(u.outside);
    for (int i = 0; i < flow.size; i++)
        EXPECT_NEAR(flowGradient[i], -0.7*gradient[i], 1e-12*(1+abs(gradient[i])));
}

TEST_P(EvaluatorTest, BlocksEqualSingleMolecules) {
    RandomFlow flow(GetParam(), {}, Precision::Double, 1000);
    const int count = 2*flow.evaluator.getBlockSize()+flow.evaluator.getBlockSize()/2+1;    // full blocks, a part of one
    const vector<double> x = flow.conformations(count);
    const int n = flow.model.getNumCoordinates();
    vector<double> logProb(count), gradient(count*flow.size), latent(count*n);
    flow.evaluator.logProb(count, x.data(), logProb.data(), gradient.data(), latent.data(), *flow.workspace);
    for (int m = 0; m < count; m++) {
        vector<double> g(flow.size), z(n);
        const double value = flow.evaluator.logProb(&x[m*flow.size], g.data(), z.data(), *flow.workspace);
        EXPECT_NEAR(logProb[m], value, 1e-10*(1+abs(value)));
        const double scale = rootMeanSquare(g);
        for (int i = 0; i < flow.size; i++)
            EXPECT_NEAR(gradient[m*flow.size+i], g[i], 1e-9*scale);
        for (int i = 0; i < n; i++)
            EXPECT_NEAR(latent[m*n+i], z[i], 1e-12*(1+abs(z[i])));
    }
}

TEST_P(EvaluatorTest, AMoleculeOutsideDoesNotDisturbItsBlock) {
    RandomModelOptions options;
    options.marginal = Distribution::TruncatedNormal;
    RandomFlow flow(GetParam(), options, Precision::Double, 1000);
    const int count = flow.evaluator.getBlockSize();
    vector<double> x = flow.conformations(count);
    vector<double> before(count), after(count), gradient(count*flow.size);
    flow.evaluator.logProb(count, x.data(), before.data(), nullptr, nullptr, *flow.workspace);
    for (int i = 0; i < flow.size; i++)
        x[i] *= 3;    // every bond of molecule 0 three times as long
    flow.evaluator.logProb(count, x.data(), after.data(), gradient.data(), nullptr, *flow.workspace);
    EXPECT_EQ(after[0], -INFINITY);
    EXPECT_TRUE(isnan(gradient[0]));
    for (int m = 1; m < count; m++) {
        EXPECT_EQ(after[m], before[m]);
        EXPECT_TRUE(isfinite(gradient[m*flow.size]));
    }
}

TEST_P(EvaluatorTest, SinglePrecisionIsCloseToDouble) {
    RandomFlow exact(GetParam());
    RandomFlow fast(GetParam(), {}, Precision::Single, 100);
    const int count = 50;
    const vector<double> x = exact.conformations(count);
    vector<double> logProb(count), gradient(count*exact.size), g(exact.size);
    fast.evaluator.logProb(count, x.data(), logProb.data(), gradient.data(), nullptr, *fast.workspace);
    double worst = 0, sum = 0, norm = 0;
    for (int m = 0; m < count; m++) {
        worst = max(worst, abs(logProb[m]-exact.evaluator.logProb(&x[m*exact.size], g.data(), nullptr, *exact.workspace)));
        for (int i = 0; i < exact.size; i++) {
            sum += pow(gradient[m*exact.size+i]-g[i], 2);
            norm += g[i]*g[i];
        }
    }
    cout << "largest |d ln p|: " << worst << ", gradient error relative to its RMS: " << sqrt(sum/norm) << endl;
    EXPECT_LT(worst, 1e-2);
    EXPECT_LT(sqrt(sum/norm), 1e-3);
}

TEST_P(EvaluatorTest, NetworksOfEveryWidthAreEvaluatedRightly) {
    // Matrices of whole vectors and tiles, and of what does not fill them, for one molecule, half blocks and blocks.
    RandomModelOptions options;
    options.numHiddenLayers = 2;
    options.hiddenWidth = array{16, 37, 64, 71, 130}[GetParam() % 5];
    RandomFlow exact(GetParam(), options), fast(GetParam(), options, Precision::Single, 1000);
    const int count = 2*fast.evaluator.getBlockSize();
    const vector<double> x = exact.conformations(count);
    vector<double> expected(x.size());
    for (int m = 0; m < count; m++)
        exact.evaluator.logProb(&x[m*exact.size], &expected[m*exact.size], nullptr, *exact.workspace);
    // Double precision against differences along a random direction.
    normal_distribution<double> normal;
    vector<double> direction(exact.size);
    for (double& d : direction)
        d = normal(exact.random);
    double slope = 0;
    for (int i = 0; i < exact.size; i++)
        slope += expected[i]*direction[i];
    const auto at = [&](double h) {
        vector<double> moved(x.begin(), x.begin()+exact.size);
        for (int i = 0; i < exact.size; i++)
            moved[i] += h*direction[i];
        return exact.evaluator.logProb(moved.data(), nullptr, nullptr, *exact.workspace);
    };
    const double h = 1e-6, numeric = (8*(at(h)-at(-h))-(at(2*h)-at(-2*h)))/(12*h);
    EXPECT_NEAR(slope, numeric, 1e-5*(abs(slope)+rootMeanSquare(expected)));
    for (int group : {1, fast.evaluator.getBlockSize()/2, fast.evaluator.getBlockSize()}) {
        vector<double> logProb(count), gradient(x.size()), error(x.size());
        for (int m = 0; m < count; m += group)
            fast.evaluator.logProb(group, &x[m*exact.size], &logProb[m], &gradient[m*exact.size], nullptr, *fast.workspace);
        for (size_t i = 0; i < x.size(); i++)
            error[i] = gradient[i]-expected[i];
        const double relative = rootMeanSquare(error)/rootMeanSquare(expected);
        cout << "groups of " << group << ", gradient error relative to its RMS: " << relative << endl;
        EXPECT_LT(relative, 1e-3);
    }
}

TEST_P(EvaluatorTest, IsFiniteAndConservativeForGarbage) {
    RandomFlow flow(GetParam());
    uniform_real_distribution<double> box(0, 0.5);
    const double lambda = 0.8;
    double worst = 0;
    for (int sample = 0; sample < 100; sample++) {
        vector<double> x(flow.size), gradient(flow.size);
        for (double& v : x)
            v = box(flow.random);
        const double energy = flow.energy(x, lambda, gradient.data());
        ASSERT_TRUE(isfinite(energy));
        const double scale = rootMeanSquare(gradient);
        for (int i = 0; i < flow.size; i++) {
            ASSERT_TRUE(isfinite(gradient[i]));
            const double h = 1e-7;
            const auto at = [&](double d) {
                vector<double> moved = x;
                moved[i] += d;
                return flow.energy(moved, lambda);
            };
            const double numeric = (8*(at(h)-at(-h))-(at(2*h)-at(-2*h)))/(12*h);
            worst = max(worst, abs(gradient[i]-numeric)/(scale+1e-9*abs(energy)/h));
        }
    }
    cout << "largest gradient error: " << worst << endl;
    EXPECT_LT(worst, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(RandomModels, EvaluatorTest, testing::Range(0u, 20u));

namespace {

/**
 * How much the second derivative along a path jumps at t, relative to its size nearby, from slopes at distances h: of order h for a
 * C2 potential, of order 1 where it is not.
 */
template <class Slope>
double jump(const Slope& slope, double t, double h) {
    const double left = (slope(t-h)-slope(t-2*h))/h, right = (slope(t+2*h)-slope(t+h))/h;
    const double distance = 1e-3*t;
    const double nearby = abs(slope(t+distance)-slope(t-distance))/(2*distance);
    return abs(right-left)/(abs(left)+abs(right)+nearby+1);
}

/** The particle that the last full row of the Z-matrix places. */
array<int, 4> lastRow(const FlowModel& model) {
    array<int, 4> last = {};
    for (const array<int, 4>& row : get<InternalCoordinatesLayer>(model.getArchitecture().layers[0]).zMatrix)
        if (row[3] != -1)
            last = row;
    return last;
}

/** Whether other particles are placed from this one. */
bool isReferred(const FlowModel& model, int particle) {
    for (const array<int, 4>& row : get<InternalCoordinatesLayer>(model.getArchitecture().layers[0]).zMatrix)
        if (find(row.begin()+1, row.end(), particle) != row.end())
            return true;
    return false;
}

} // namespace

TEST(EvaluatorEdges, SecondDerivativeHasNoJump) {
    // Walk the last particle along its bond and around its angle, through every point at which the continuation changes its form.
    RandomModelOptions options;
    options.marginal = Distribution::Uniform;
    options.mixedCoordinates = options.elementwise = false;
    options.numHiddenLayers = 1;
    double worst = 0;
    int edges = 0, flagsChecked = 0;
    for (unsigned seed = 0; seed < 30; seed++) {
        RandomFlow flow(seed, options);
        const array<int, 4> row = lastRow(flow.model);
        const int P = flow.model.getNumParticles();
        const SupportMargins margins = defaultMargins(flow.model);
        // Coordinates of the last row, and the edges of their marginals.
        const int coordinates[2] = {P-2, 2*P-4};
        double lower[2] = {}, upper[2] = {};
        for (const Layer& layer : flow.model.getArchitecture().layers)
            if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
                for (size_t i = 0; i < marginal->coordinates.size(); i++)
                    for (int which : {0, 1})
                        if (marginal->coordinates[i] == coordinates[which]) {
                            lower[which] = marginal->lower.values[i]*(which == 0 ? 1 : M_PI);
                            upper[which] = marginal->upper.values[i]*(which == 0 ? 1 : M_PI);
                        }
        const vector<double> start = flow.conformations(1);
        const auto at = [&](int atom) { return &start[3*atom]; };
        double u[3], v[3], b = 0, c = 0;    // unit vectors from j to i and, in the plane of the angle and normal to it, towards larger angles
        for (int k = 0; k < 3; k++) {
            u[k] = at(row[0])[k]-at(row[1])[k];
            v[k] = at(row[1])[k]-at(row[2])[k];
            b += u[k]*u[k];
            c += v[k]*v[k];
        }
        b = sqrt(b);
        double dot = 0;
        for (int k = 0; k < 3; k++) {
            u[k] /= b;
            v[k] /= sqrt(c);
            dot += u[k]*v[k];
        }
        const double angle = acos(-dot);
        for (int k = 0; k < 3; k++)
            v[k] = (v[k]-dot*u[k])/sin(angle);
        vector<double> x = start, gradient(flow.size);
        // Energy's derivative along the bond, and around the angle, with the last particle at (length, angle+turn).
        const auto place = [&](double length, double turn) {
            for (int k = 0; k < 3; k++)
                x[3*row[0]+k] = at(row[1])[k]+length*(cos(turn)*u[k]+sin(turn)*v[k]);
            EXPECT_TRUE(isfinite(flow.energy(x, 1.0, gradient.data())));
        };
        const auto bondSlope = [&](double length) {
            place(length, 0);
            double s = 0;
            for (int k = 0; k < 3; k++)
                s += gradient[3*row[0]+k]*u[k];
            return s;
        };
        const auto angleSlope = [&](double theta) {
            place(b, theta-angle);
            double s = 0;
            for (int k = 0; k < 3; k++)
                s += gradient[3*row[0]+k]*b*(cos(theta-angle)*v[k]-sin(theta-angle)*u[k]);
            return s;
        };
        const double bondMargin = margins.bonds[coordinates[0]], angleMargin = margins.angles[coordinates[1]-(P-1)];
        const double innerBond = lower[0]+bondMargin, innerLow = lower[1]+angleMargin, innerHigh = upper[1]-angleMargin;
        for (double t : {0.25*innerBond, 0.5*innerBond, lower[0], innerBond, upper[0]-bondMargin, upper[0]}) {
            worst = max(worst, jump(bondSlope, t, 1e-8*b));
            edges++;
        }
        const auto isOutside = [&](double length, double theta) {
            place(length, theta-angle);
            return flow.evaluator.continuedPotential(x.data(), 1.0, nullptr, *flow.workspace).outside;
        };
        // Unless other coordinates move as well, or are outside already.
        if (!isReferred(flow.model, row[0]) && !isOutside(b, angle)) {
            const double highBond = upper[0]-bondMargin, near = 1e-7;
            EXPECT_FALSE(isOutside(innerBond*(1+near), angle));
            EXPECT_TRUE(isOutside(innerBond*(1-near), angle));
            EXPECT_FALSE(isOutside(highBond*(1-near), angle));
            EXPECT_TRUE(isOutside(highBond*(1+near), angle));
            EXPECT_FALSE(isOutside(b, innerLow+near));
            EXPECT_TRUE(isOutside(b, innerLow-near));
            EXPECT_FALSE(isOutside(b, innerHigh-near));
            EXPECT_TRUE(isOutside(b, innerHigh+near));
            flagsChecked++;
        }
        for (double t : {0.25*innerLow, 0.5*innerLow, lower[1], innerLow, innerHigh, upper[1], M_PI-0.5*(M_PI-innerHigh),
                M_PI-0.25*(M_PI-innerHigh), M_PI}) {
            worst = max(worst, jump(angleSlope, t, 1e-8));
            edges++;
        }
    }
    cout << "largest relative jump of the second derivative at " << edges << " edges: " << worst << endl;
    EXPECT_LT(worst, 1e-3);
    EXPECT_GE(flagsChecked, 10);
}

TEST(EvaluatorEdges, MarginsAreChecked) {
    const FlowModel model = randomModel({}, 1);
    SupportMargins margins = defaultMargins(model);
    margins.bonds[0] = -1;
    EXPECT_THROW(Evaluator(model, margins), FlowModelError);
    margins = defaultMargins(model);
    margins.angles.pop_back();
    EXPECT_THROW(Evaluator(model, margins), FlowModelError);
}
