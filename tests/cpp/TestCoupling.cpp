// SPDX-License-Identifier: MIT
// Couplings alone: the densities that they define integrate to 1, and their gradients, for every precision and instruction set.
#include "engine/Coupling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
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

/** A transformer to be tested: a smooth mixture, or one of the others by its name and size. */
Transformer makeTransformer(const string& name, int size, Direction closedForm) {
    for (const TransformerDescriptor& descriptor : transformerDescriptors())
        if (descriptor.name == name) {
            FormulaTransformer transformer = {&descriptor, closedForm, size, {}};
            // Minima that leave no steep places, which quadrature would miss, and bounds of 1 or less.
            for (const TransformerDescriptor::Setting& setting : descriptor.settings) {
                const double upper = setting.upper(size);
                transformer.settings.push_back(string(setting.name).rfind("minimum", 0) == 0 ? 0.3*upper : min(1.0, 0.5*upper));
            }
            return transformer;
        }
    const int exponent = (name.back() == '1' ? 1 : 2);
    const MixtureHead head = (name.find("free") == 0 ? MixtureHead::Free : MixtureHead::Published);
    return SmoothMixtureTransformer{head, closedForm, size, exponent, exponent == 1 ? 0.8660255 : 0.3061863, exponent == 1 ? 2.0 : 0.7, 1,
            1e-3};
}

bool worksOn(const string& name, const vector<Domain>& domains) {
    vector<Domain> allowed = {Domain::Interval, Domain::Circle};
    for (const TransformerDescriptor& descriptor : transformerDescriptors())
        if (descriptor.name == name)
            allowed = descriptor.domains;
    return all_of(domains.begin(), domains.end(), [&](Domain domain) { return count(allowed.begin(), allowed.end(), domain) > 0; });
}

/** A coupling with moderately wild random parameters. */
CouplingLayer randomCoupling(const vector<int>& transformed, const vector<int>& conditionedOn, const vector<Domain>& domains,
        const Transformer& transformer, mt19937& random) {
    CouplingLayer layer;
    layer.transformed = transformed;
    layer.conditionedOn = conditionedOn;
    layer.transformer = transformer;
    layer.conditioner.activation = ActivationType::SiLU;
    int numFeatures = 0;
    for (int i : conditionedOn)
        numFeatures += (domains[i] == Domain::Circle ? 2 : 1);
    // The first two blocks in networks of their own, and one for the rest.
    vector<int> networks = {0, 0, 0};
    const vector<int> lengths = rawBlockLengths(layer, domains);
    for (size_t b = 0; b < lengths.size(); b++)
        networks[min<size_t>(b, 2)] += lengths[b];
    for (int numOutputs : networks) {
        if (numOutputs == 0)
            continue;
        if (conditionedOn.empty())
            layer.conditioner.networks.push_back({randomLayer(0, numOutputs, 1.0, random)});
        else
            layer.conditioner.networks.push_back({randomLayer(numFeatures, 7, 0.6, random), randomLayer(7, 6, 0.4, random),
                    randomLayer(6, numOutputs, 0.4, random)});
    }
    return layer;
}

/** Two couplings that transform each of two coordinates by the other one, or one without conditions for a single coordinate. */
struct SmallFlow {
    vector<Coupling<double>> couplings;
    vector<AlignedArray<double>> arenas;
    int n;

    SmallFlow(const vector<Domain>& domains, const Transformer& transformer, unsigned seed) : n(static_cast<int>(domains.size())) {
        mt19937 random(seed);
        if (n == 1)
            couplings.emplace_back(randomCoupling({0}, {}, domains, transformer, random), domains);
        else
            for (int i : {0, 1})
                couplings.emplace_back(randomCoupling({i}, {1-i}, domains, transformer, random), domains);
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

/** name of the transformer, its size, domains, closed form */
using CouplingCase = tuple<string, int, vector<Domain>, Direction>;

class CouplingTest : public testing::TestWithParam<CouplingCase> {
protected:
    SmallFlow flow(unsigned seed) const {
        const auto& [name, size, domains, closedForm] = GetParam();
        return SmallFlow(domains, makeTransformer(name, size, closedForm), seed);
    }
    int dimension() const {
        return static_cast<int>(get<2>(GetParam()).size());
    }
    bool isReal() const {
        return get<2>(GetParam())[0] == Domain::Real;
    }
    /** Splines: the density, or its second derivative, jumps at places that depend on all parameters. */
    bool hasKinks() const {
        return get<0>(GetParam()).find("Spline") != string::npos;
    }
};

TEST_P(CouplingTest, DensityIntegratesToOne) {
    // All derivatives of a density on a circle are periodic, so the midpoint rule converges fast; on an interval it is second order,
    // which Richardson's extrapolation mends. On the real line the latent is normal, and nothing is left 30 units from 0.
    double worst = 0;
    for (unsigned seed = 0; seed < (dimension() == 1 ? 3 : 1); seed++) {
        SmallFlow f = flow(seed);
        const auto integral = [&](int points) {
            const double width = (isReal() ? 60 : 1), start = (isReal() ? -30 : 0);
            double sum = 0;
            for (int i = 0; i < points; i++)
                for (int j = 0; j < (dimension() == 1 ? 1 : points); j++) {
                    double q[2] = {start+width*(i+0.5)/points, start+width*(j+0.5)/points};
                    double logDensity = f.forward(q);
                    for (int k = 0; k < (isReal() ? dimension() : 0); k++)
                        logDensity -= 0.5*q[k]*q[k]+0.91893853320467274;
                    sum += exp(logDensity);
                }
            return sum*pow(width/points, dimension());
        };
        const int points = (dimension() == 1 ? (hasKinks() ? 10000 : 1000) : isReal() ? 400 : 120);
        const double fine = integral(2*points), coarse = integral(points);
        worst = max(worst, abs((4*fine-coarse)/3-1));
    }
    cout << "largest |integral - 1|: " << worst << endl;
    EXPECT_LT(worst, dimension() == 1 ? (hasKinks() ? 1e-5 : 1e-7) : (hasKinks() ? 1e-3 : 1e-4));
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

namespace {

/** All transformers on what they work on. */
vector<CouplingCase> couplingCases() {
    vector<pair<string, int>> transformers;
    for (const char* head : {"free", "published"})
        for (const char* exponent : {"1", "2"})
            transformers.emplace_back(string(head)+exponent, 5);
    for (const TransformerDescriptor& descriptor : transformerDescriptors()) {
        transformers.emplace_back(descriptor.name, descriptor.smallestSize);
        if (descriptor.largestSize > descriptor.smallestSize)
            transformers.emplace_back(descriptor.name, 4);
    }
    const Domain I = Domain::Interval, C = Domain::Circle, R = Domain::Real;
    vector<CouplingCase> cases;
    for (const auto& [name, size] : transformers)
        for (const vector<Domain>& domains : {vector<Domain>{I}, vector<Domain>{C}, vector<Domain>{R}, vector<Domain>{I, I},
                vector<Domain>{C, C}, vector<Domain>{I, C}, vector<Domain>{R, R}})
            for (Direction closedForm : {Direction::Density, Direction::Sampling})
                // In two dimensions, where quadrature takes long, only what says most of the new ones.
                if (worksOn(name, domains) && !(domains.size() == 2 && size < 5 && (size < 4 || domains[0] == domains[1]) &&
                        worksOn(name, {I, C})))
                    cases.emplace_back(name, size, domains, closedForm);
    return cases;
}

string caseName(const testing::TestParamInfo<CouplingCase>& info) {
    const auto& [name, size, domains, closedForm] = info.param;
    string text = name+"_"+to_string(size)+"_";
    for (Domain domain : domains)
        text += describe(domain);
    return text+(closedForm == Direction::Density ? "_density" : "_sampling");
}

} // namespace

INSTANTIATE_TEST_SUITE_P(All, CouplingTest, testing::ValuesIn(couplingCases()), caseName);

TEST(Coupling, InverseDirectionUndoesTheClosedForm) {
    // The same weights with the closed form in either direction are inverse maps: density direction of one, then of the other.
    for (const CouplingCase& example : couplingCases()) {
        const auto& [name, size, domains, closedForm] = example;
        if (domains.size() > 1 || closedForm == Direction::Sampling)
            continue;
        double worst = 0;
        for (unsigned seed = 0; seed < 100; seed++) {
            SmallFlow closed(domains, makeTransformer(name, size, Direction::Density), seed);
            SmallFlow inverse(domains, makeTransformer(name, size, Direction::Sampling), seed);
            for (double x : {0.0, 1e-9, 0.013, 0.31, 0.5, 0.77, 0.999, 1-1e-9}) {
                double q = x;
                double logDet = closed.forward(&q);
                logDet += inverse.forward(&q);
                // the error of the root is that of y, divided by the slope
                worst = max(worst, abs(logDet));
                const double turns = (domains[0] == Domain::Circle ? round(q-x) : 0.0);
                EXPECT_NEAR(q-turns, x, 1e-10) << name;
            }
        }
        cout << name << ", " << describe(domains[0]) << ", size " << size << ": largest |ln det| of there and back: " << worst << endl;
        EXPECT_LT(worst, 1e-6) << name;
    }
}
