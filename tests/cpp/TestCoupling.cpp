// SPDX-License-Identifier: MIT
// Couplings alone: the densities that they define integrate to 1, and their gradients, for every precision and instruction set.
#include "engine/Coupling.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <tuple>
#include <vector>

using namespace OpenMMFlow;
using namespace std;

namespace {

DenseLayer randomLayer(int numInputs, int numOutputs, double scale, mt19937& random) {
    normal_distribution<double> normal(0, scale);
    DenseLayer layer;
    layer.weight.shape = {numOutputs, numInputs};
    layer.bias.shape = {numOutputs};
    for (int i = 0; i < numOutputs*numInputs; i++)
        layer.weight.values.push_back(normal(random));
    for (int i = 0; i < numOutputs; i++)
        layer.bias.values.push_back(normal(random));
    return layer;
}

/** A coupling with moderately wild random parameters. */
CouplingLayer randomCoupling(const vector<int>& transformed, const vector<int>& conditionedOn, const vector<Domain>& domains,
        MixtureHead head, Direction closedForm, int exponent, mt19937& random) {
    CouplingLayer layer;
    layer.transformed = transformed;
    layer.conditionedOn = conditionedOn;
    const int K = 5;
    layer.transformer = {head, closedForm, K, exponent, exponent == 1 ? 0.8660255 : 0.3061863, exponent == 1 ? 2.0 : 0.7, 1, 1e-3};
    layer.conditioner.activation = ActivationType::SiLU;
    int numFeatures = 0;
    for (int i : conditionedOn)
        numFeatures += (domains[i] == Domain::Circle ? 2 : 1);
    const int D = static_cast<int>(transformed.size());
    const vector<int> blocks = (head == MixtureHead::Published ? vector<int>{1, 1, 3} : vector<int>{5});
    for (int numBlocks : blocks) {
        if (conditionedOn.empty())
            layer.conditioner.networks.push_back({randomLayer(0, numBlocks*D*K, 1.0, random)});
        else
            layer.conditioner.networks.push_back({randomLayer(numFeatures, 7, 0.6, random), randomLayer(7, 6, 0.4, random),
                    randomLayer(6, numBlocks*D*K, 0.4, random)});
    }
    return layer;
}

/** Two couplings that transform each of two coordinates by the other one, or one without conditions for a single coordinate. */
struct SmallFlow {
    vector<Coupling<double>> couplings;
    vector<AlignedArray<double>> arenas;
    int n;

    SmallFlow(const vector<Domain>& domains, MixtureHead head, Direction closedForm, int exponent, unsigned seed) :
            n(static_cast<int>(domains.size())) {
        mt19937 random(seed);
        if (n == 1)
            couplings.emplace_back(randomCoupling({0}, {}, domains, head, closedForm, exponent, random), domains);
        else
            for (int i : {0, 1})
                couplings.emplace_back(randomCoupling({i}, {1-i}, domains, head, closedForm, exponent, random), domains);
        for (const Coupling<double>& coupling : couplings)
            arenas.push_back(coupling.createArena(1));
    }

    /** ln|det J|, the log density for a uniform latent. */
    double forward(double* q) {
        RootFinding roots;
        double logDet = 0;
        for (size_t i = 0; i < couplings.size(); i++)
            couplings[i].forward(1, true, q, &logDet, arenas[i].data(), roots);
        return logDet;
    }

    void backward(double* gradient) {
        for (size_t i = couplings.size(); i-- > 0; )
            couplings[i].backward(1, gradient, arenas[i].data());
    }
};

} // namespace

/** domains, head, closed form, exponent */
class CouplingTest : public testing::TestWithParam<tuple<vector<Domain>, MixtureHead, Direction, int>> {
protected:
    SmallFlow flow(unsigned seed) const {
        return apply([&](auto... parameters) { return SmallFlow(parameters..., seed); }, GetParam());
    }
    int dimension() const {
        return static_cast<int>(get<0>(GetParam()).size());
    }
};

TEST_P(CouplingTest, DensityIntegratesToOne) {
    // All derivatives of a density on a circle are periodic, so the midpoint rule converges fast; on an interval it is second order,
    // which Richardson's extrapolation mends.
    double worst = 0;
    for (unsigned seed = 0; seed < (dimension() == 1 ? 3 : 1); seed++) {
        SmallFlow f = flow(seed);
        const auto integral = [&](int points) {
            double sum = 0;
            for (int i = 0; i < points; i++)
                for (int j = 0; j < (dimension() == 1 ? 1 : points); j++) {
                    double q[2] = {(i+0.5)/points, (j+0.5)/points};
                    sum += exp(f.forward(q));
                }
            return sum/pow(points, dimension());
        };
        const int points = (dimension() == 1 ? 1000 : 120);
        const double fine = integral(2*points), coarse = integral(points);
        worst = max(worst, abs((4*fine-coarse)/3-1));
    }
    cout << "largest |integral - 1|: " << worst << endl;
    EXPECT_LT(worst, dimension() == 1 ? 1e-7 : 1e-4);
}

TEST_P(CouplingTest, GradientMatchesDifferences) {
    mt19937 random(7);
    uniform_real_distribution<double> uniform(0.03, 0.97);
    double worst = 0;
    for (unsigned seed = 0; seed < 20; seed++) {
        SmallFlow f = flow(seed);
        double q[2] = {uniform(random), uniform(random)};
        const double weights[2] = {0.3, -0.8};
        const auto loss = [&](array<double, 2> x) {
            double logDet = f.forward(x.data());
            for (int i = 0; i < dimension(); i++)
                logDet += weights[i]*x[i];
            return logDet;
        };
        double gradient[2] = {weights[0], weights[1]};
        loss({q[0], q[1]});
        f.backward(gradient);
        for (int i = 0; i < dimension(); i++) {
            const double h = 1e-5;
            const auto at = [&](double d) {
                array<double, 2> x = {q[0], q[1]};
                x[i] += d;
                return loss(x);
            };
            const double numeric = (8*(at(h)-at(-h))-(at(2*h)-at(-2*h)))/(12*h);
            worst = max(worst, abs(gradient[i]-numeric)/max(1.0, abs(numeric)));
        }
    }
    cout << "largest relative gradient error: " << worst << endl;
    EXPECT_LT(worst, 2e-6);
}

INSTANTIATE_TEST_SUITE_P(All, CouplingTest, testing::Combine(
        testing::Values(vector<Domain>{Domain::Interval}, vector<Domain>{Domain::Circle},
                vector<Domain>{Domain::Interval, Domain::Interval}, vector<Domain>{Domain::Circle, Domain::Circle},
                vector<Domain>{Domain::Interval, Domain::Circle}),
        testing::Values(MixtureHead::Free, MixtureHead::Published), testing::Values(Direction::Density, Direction::Sampling),
        testing::Values(1, 2)));

TEST(Coupling, InverseDirectionUndoesTheClosedForm) {
    // The same weights with the closed form in either direction are inverse maps: density direction of one, then of the other.
    double worst = 0;
    for (Domain domain : {Domain::Interval, Domain::Circle})
        for (unsigned seed = 0; seed < 200; seed++) {
            SmallFlow closed({domain}, MixtureHead::Free, Direction::Density, 1, seed);
            SmallFlow inverse({domain}, MixtureHead::Free, Direction::Sampling, 1, seed);
            for (double x : {0.0, 1e-9, 0.013, 0.31, 0.5, 0.77, 0.999, 1-1e-9}) {
                double q = x;
                double logDet = closed.forward(&q);
                logDet += inverse.forward(&q);
                // the error of the root is that of y, divided by the slope
                worst = max(worst, abs(logDet));
                EXPECT_NEAR(q, x, 1e-10);
            }
        }
    cout << "largest |ln det| of there and back: " << worst << endl;
    EXPECT_LT(worst, 1e-6);
}
