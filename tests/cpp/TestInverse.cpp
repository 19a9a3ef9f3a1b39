// SPDX-License-Identifier: MIT
// The inverse of transformers: root finding over random parameters, among them all extremes that heads allow, for both precisions.
#include "engine/Coupling.h"
#include "formulas/Formulas.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

using namespace OpenMMFlow;
using namespace std;

namespace {

const int D = 96;

/** A coupling without conditions, so that the biases are the raw parameters of D transformers. */
CouplingLayer randomTransformers(MixtureHead head, int exponent, double logSteepnessBound, mt19937_64& random) {
    CouplingLayer layer;
    for (int i = 0; i < D; i++)
        layer.transformed.push_back(i);
    const int K = uniform_int_distribution<int>(1, 8)(random);
    const bool published = (head == MixtureHead::Published);
    const double offset = (exponent == 1 ? 0.8656721 : 0.3052033);
    layer.transformer = SmoothMixtureTransformer{head, Direction::Density, K, exponent, offset, 10.0, logSteepnessBound,
            published ? 1e-6 : 1e-4};
    layer.conditioner.activation = ActivationType::SiLU;
    DenseLayer biases;
    biases.weight.shape = {5*D*K, 0};
    biases.bias.shape = {5*D*K};
    biases.bias.values.resize(5*D*K);
    for (int d = 0; d < D; d++)
        for (int block = 0; block < 5; block++) {
            // Moderate, wild, or at the extremes of what a head makes of them.
            const double spreads[] = {1, 5, 40};
            normal_distribution<double> normal(0, spreads[uniform_int_distribution<int>(0, 2)(random)]);
            for (int k = 0; k < K; k++)
                biases.bias.values[(block*D+d)*K+k] = normal(random);
        }
    layer.conditioner.networks.push_back({biases});
    return layer;
}

/** The same for another transformer. */
CouplingLayer randomFormulaTransformers(const TransformerDescriptor& descriptor, Domain domain, mt19937_64& random) {
    CouplingLayer layer;
    for (int i = 0; i < D; i++)
        layer.transformed.push_back(i);
    FormulaTransformer transformer = {&descriptor, Direction::Density, descriptor.smallestSize, {}};
    if (descriptor.sizeName != nullptr)
        transformer.size = uniform_int_distribution<int>(descriptor.smallestSize, 8)(random);
    for (const TransformerDescriptor::Setting& setting : descriptor.settings)
        transformer.settings.push_back(string(setting.name).rfind("minimum", 0) == 0 ? 1e-3 : min(0.5*setting.upper(transformer.size), 1.0));
    layer.transformer = transformer;
    layer.conditioner.activation = ActivationType::SiLU;
    DenseLayer biases;
    const vector<int> lengths = rawBlockLengths(layer, vector<Domain>(D, domain));
    for (int length : lengths) {
        const double spreads[] = {1, 5, 40};
        for (int i = 0; i < length; i++) {
            // Of one coordinate, whose rows follow each other, all moderate, wild, or extreme.
            const int d = i/(length/D);
            biases.bias.values.push_back(normal_distribution<double>(0, spreads[d%3])(random));
        }
    }
    const int64_t numOutputs = static_cast<int64_t>(biases.bias.values.size());
    biases.weight.shape = {numOutputs, 0};
    biases.bias.shape = {numOutputs};
    layer.conditioner.networks.push_back({biases});
    return layer;
}

/** What was seen of the inverses of one kind. */
struct Residuals {
    double worst = 0;                    // in units of eps (1 + F')
    long long roots = 0;
    RootFinding rootFinding;
};

template <class Real>
void invert(Coupling<Real>& coupling, AlignedArray<Real>& arena, mt19937_64& random, Residuals& residuals, bool modulo = false) {
    const int M = Coupling<Real>::blockSize();
    const double eps = numeric_limits<Real>::epsilon();
    uniform_real_distribution<double> uniform(0, 1);
    vector<double> x(D*M), y(D*M), logDet(M);
    // Values to find: of arguments drawn evenly or next to 0 and 1, where F is evaluated; and values that are drawn themselves.
    for (double& argument : x) {
        const double u = uniform(random);
        argument = (u < 0.7 ? uniform(random) : u < 0.85 ? pow(10.0, -12*uniform(random)) : 1-pow(10.0, -8*uniform(random)));
        argument = static_cast<Real>(argument);
    }
    y = x;
    coupling.forward(M, false, y.data(), logDet.data(), arena.data(), residuals.rootFinding);
    for (double& value : y) {
        const double u = uniform(random);
        if (u < 0.4)
            value = uniform(random);
        else if (u < 0.42)
            value = pow(10.0, -30*uniform(random));
        else if (u < 0.44)
            value = 1-eps*uniform_int_distribution<int>(1, 4)(random);
        else if (u < 0.46)
            value = uniform_int_distribution<int>(0, 1)(random);
        value = static_cast<Real>(min(max(value, 0.0), 1.0));
    }
    x = y;
    coupling.sample(M, x.data(), logDet.data(), arena.data(), residuals.rootFinding);
    for (int i = 0; i < D*M; i++)
        ASSERT_TRUE(x[i] >= 0 && x[i] <= 1) << "no root of " << y[i];
    // F' of each: the gradient for dL/dy = 1 less that for dL/dy = 0, dL/dx = F' dL/dy + d ln F'/dx.
    vector<double> again, gradients[2];
    for (double cotangent : {0.0, 1.0}) {
        again = x;
        coupling.forward(M, true, again.data(), logDet.data(), arena.data(), residuals.rootFinding);
        gradients[int(cotangent)].assign(D*M, cotangent);
        coupling.backward(M, gradients[int(cotangent)].data(), arena.data());
    }
    for (int i = 0; i < D*M; i++) {
        const double error = abs(again[i]-y[i]);
        const double residual = (modulo ? min(error, abs(error-1)) : error)/(eps*(1+abs(gradients[1][i]-gradients[0][i])));
        residuals.worst = max(residuals.worst, residual);
        residuals.roots++;
    }
}

/** In all, over 16 kinds and three bounds of ln sigma. */
const long long NUM_ROOTS = 10'000'000;

} // namespace

/** head, exponent, domain */
class InverseTest : public testing::TestWithParam<tuple<MixtureHead, int, Domain>> {
protected:
    template <class Real>
    void testInverses(const char* precision) {
        const auto [head, exponent, domain] = GetParam();
        mt19937_64 random(7);
        for (double logSteepnessBound : {0.5, 1.0, 3.0}) {
            Residuals residuals;
            while (residuals.roots < NUM_ROOTS/48) {
                Coupling<Real> coupling(randomTransformers(head, exponent, logSteepnessBound, random), vector<Domain>(D, domain));
                AlignedArray<Real> arena = coupling.createArena(Coupling<Real>::blockSize());
                invert(coupling, arena, random, residuals);
            }
            cout << precision << ", " << (head == MixtureHead::Free ? "free" : "published") << " head, exponent " << exponent << ", "
                 << (domain == Domain::Circle ? "circle" : "interval") << ", |ln sigma| <= " << logSteepnessBound << ": " << residuals.roots
                 << " roots, largest residual " << residuals.worst << " eps (1 + F'), " << residuals.rootFinding.notConverged
                 << " not converged, " << double(residuals.rootFinding.evaluations)/residuals.rootFinding.vectors
                 << " evaluations for a vector of roots" << endl;
            EXPECT_EQ(residuals.rootFinding.notConverged, 0);
            // On an interval, components that are wider than it by 1/sigma are differences of nearly equal numbers, and F is uncertain by
            // eps/sigma: no x has a smaller residual than that.
            const bool wide = (domain == Domain::Interval && logSteepnessBound > 1);
            EXPECT_LE(residuals.worst, wide ? exp(logSteepnessBound) : 4);
        }
    }
};

TEST_P(InverseTest, ResidualDouble) {
    testInverses<double>("double");
}

TEST_P(InverseTest, ResidualSingle) {
    testInverses<float>("single");
}

INSTANTIATE_TEST_SUITE_P(Kinds, InverseTest, testing::Combine(testing::Values(MixtureHead::Free, MixtureHead::Published),
        testing::Values(1, 2), testing::Values(Domain::Interval, Domain::Circle)));

/** name and domain of a transformer on an interval or a circle, in both directions */
class FormulaInverseTest : public testing::TestWithParam<pair<const TransformerDescriptor*, Domain>> {
protected:
    template <class Real>
    void testInverses(const char* precision) {
        const auto [descriptor, domain] = GetParam();
        mt19937_64 random(5);
        Residuals residuals;
        while (residuals.roots < 100'000) {
            Coupling<Real> coupling(randomFormulaTransformers(*descriptor, domain, random), vector<Domain>(D, domain));
            AlignedArray<Real> arena = coupling.createArena(Coupling<Real>::blockSize());
            invert(coupling, arena, random, residuals, domain == Domain::Circle);
        }
        cout << precision << ", " << descriptor->name << ", " << describe(domain) << ": " << residuals.roots << " inverses, largest residual "
             << residuals.worst << " eps (1 + F'), " << residuals.rootFinding.notConverged << " not converged";
        if (residuals.rootFinding.vectors > 0)
            cout << ", " << double(residuals.rootFinding.evaluations)/residuals.rootFinding.vectors << " evaluations for a vector of roots";
        cout << endl;
        EXPECT_EQ(residuals.rootFinding.notConverged, 0);
        // In a spline the steep end of a bin magnifies what the flat one rounds. On a circle each of up to 8 analytic steps may magnify what
        // those before have rounded by its slope, up to 3 here.
        const bool inSteps = (descriptor->number == TRANSFORMER_ANALYTIC && domain == Domain::Circle);
        EXPECT_LE(residuals.worst, inSteps ? pow(3, 8) : 100);
    }
};

TEST_P(FormulaInverseTest, ResidualDouble) {
    testInverses<double>("double");
}

TEST_P(FormulaInverseTest, ResidualSingle) {
    testInverses<float>("single");
}

namespace {

vector<pair<const TransformerDescriptor*, Domain>> compactTransformers() {
    vector<pair<const TransformerDescriptor*, Domain>> kinds;
    for (const TransformerDescriptor& descriptor : transformerDescriptors())
        for (Domain domain : descriptor.domains)
            if (domain != Domain::Real)
                kinds.emplace_back(&descriptor, domain);
    return kinds;
}

} // namespace

INSTANTIATE_TEST_SUITE_P(Transformers, FormulaInverseTest, testing::ValuesIn(compactTransformers()), [](const auto& info) {
    return string(info.param.first->name)+"_"+describe(info.param.second);
});
