// SPDX-License-Identifier: MIT
// The formulas of every transformer of formulas/Transformers.h over random raw parameters: derivatives against central differences,
// ends, periodicity, closed inverses, and bounds of slopes.
#include "formulas/Formulas.h"
#include "model/Architecture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <string>
#include <vector>

using namespace OpenMMFlow;
using namespace std;
using F = Formulas<double>;

namespace {

struct TransformerCase {
    const TransformerDescriptor* descriptor;
    Domain domain;
    int size;
};

vector<TransformerCase> transformerCases() {
    vector<TransformerCase> cases;
    for (const TransformerDescriptor& descriptor : transformerDescriptors())
        for (Domain domain : descriptor.domains)
            for (int size : {descriptor.smallestSize, descriptor.smallestSize+1, 8})
                if (size <= descriptor.largestSize)
                    cases.push_back({&descriptor, domain, size});
    return cases;
}

/** One transformer with random settings and raw parameters. */
class RandomTransformer {
public:
    RandomTransformer(const TransformerCase& example, double spread, mt19937_64& random) :
            descriptor(*example.descriptor), circular(example.domain == Domain::Circle) {
        for (const TransformerDescriptor::Setting& setting : descriptor.settings)
            settings.push_back(min(setting.upper(example.size), 3.0)*uniform_real_distribution<double>(0.05, 0.9)(random));
        vector<double> padded = settings;
        padded.resize(TransformerDescriptor::MAX_SETTINGS);
        numbers = {descriptor.number, example.size, padded[0], padded[1], padded[2], padded[3]};
        for (const TransformerDescriptor::Block& block : descriptor.blocks)
            if (!block.ofIntervals || example.domain == Domain::Interval)
                raw.resize(raw.size()+descriptor.numRows(block, example.size));
        normal_distribution<double> normal(0, spread);
        generate(raw.begin(), raw.end(), [&] { return normal(random); });
    }

    vector<double> parameters(const vector<double>& from) const {
        vector<double> p = from;
        F::transformerHead(numbers, circular, p.data());
        return p;
    }

    F::TransformerValue value(double x, const vector<double>& from) const {
        vector<double> p = parameters(from);
        return F::transformerValue(numbers, circular, x, p.data());
    }

    F::TransformerValue value(double x) const {
        return value(x, raw);
    }

    double inverse(double y) const {
        vector<double> p = parameters(raw);
        return F::transformerInverse(numbers, circular, y, p.data());
    }

    vector<double> gradient(double x, double vF, double vD) const {
        vector<double> p = parameters(raw), g(raw.size(), NAN);
        F::transformerGradient(numbers, circular, x, vF, vD, p.data(), g.data());
        return g;
    }

    const TransformerDescriptor& descriptor;
    const bool circular;
    vector<double> settings, raw;
    F::TransformerSettings numbers;
};

/** Fourth-order central difference. */
template <class Function>
double difference(const Function& f, double h) {
    return (8*(f(h)-f(-h))-(f(2*h)-f(-2*h)))/(12*h);
}

} // namespace

class TransformerTest : public testing::TestWithParam<TransformerCase> {
protected:
    /** Calls test(transformer, x) for transformers with moderate parameters. */
    template <class Test>
    void forEach(int count, const Test& test) const {
        mt19937_64 random(11);
        for (int i = 0; i < count; i++) {
            const RandomTransformer transformer(GetParam(), 1.0, random);
            double x = uniform_real_distribution<double>(0.02, 0.98)(random);
            if (GetParam().domain == Domain::Real)
                x = 6*x-3;
            test(transformer, x);
        }
    }
};

TEST_P(TransformerTest, DerivativesMatchDifferences) {
    // A difference that reaches over a knot of a spline is none; there are few.
    vector<double> slopes, curvatures, gradients;
    const double h = 1e-4;
    forEach(300, [&](const RandomTransformer& f, double x) {
        const F::TransformerValue v = f.value(x);
        slopes.push_back(abs(difference([&](double d) { return f.value(x+d).value; }, h)-v.d1)/(1+abs(v.d1)));
        curvatures.push_back(abs(difference([&](double d) { return f.value(x+d).d1; }, h)-v.d2)/(1+abs(v.d1)+abs(v.d2)));
        for (const auto& [vF, vD] : {pair(1.0, 0.0), pair(0.0, 1.0), pair(0.7, -0.3)}) {
            const vector<double> g = f.gradient(x, vF, vD);
            double worst = 0, size = 1+abs(v.d1);
            for (size_t i = 0; i < g.size(); i++) {
                const double numeric = difference([&, vF = vF, vD = vD](double d) {
                    vector<double> moved = f.raw;
                    moved[i] += d;
                    const F::TransformerValue w = f.value(x, moved);
                    return vF*w.value+vD*w.d1;
                }, h);
                size = max(size, abs(numeric));
                worst = max(worst, abs(numeric-g[i]));
            }
            gradients.push_back(worst/size);
        }
    });
    for (vector<double>* errors : {&slopes, &curvatures, &gradients})
        sort(errors->begin(), errors->end());
    const auto median = [](const vector<double>& errors) { return errors[errors.size()/2]; };
    const auto almostAll = [](const vector<double>& errors) { return errors[errors.size()*9/10]; };
    cout << "errors of F', F'' and parameters, 9 of 10 below: " << almostAll(slopes) << ", " << almostAll(curvatures) << ", "
         << almostAll(gradients) << "; medians " << median(slopes) << ", " << median(curvatures) << ", " << median(gradients) << endl;
    EXPECT_LT(almostAll(slopes), 1e-7);
    EXPECT_LT(almostAll(curvatures), 1e-6);
    EXPECT_LT(almostAll(gradients), 1e-6);
}

TEST_P(TransformerTest, EndsAndPeriods) {
    if (GetParam().domain == Domain::Real)
        return;
    double worst = 0, worstSlope = 0;
    forEach(100, [&](const RandomTransformer& f, double) {
        const F::TransformerValue first = f.value(0), last = f.value(1);
        worst = max(worst, abs(last.value-first.value-1));
        if (f.circular)
            worstSlope = max(worstSlope, abs(last.d1/first.d1-1));
        else
            worst = max(worst, abs(first.value));
        EXPECT_GT(first.d1, 0);
        EXPECT_GT(last.d1, 0);
    });
    cout << "F at the ends to " << worst << ", periodic slope to " << worstSlope << endl;
    EXPECT_LT(worst, 1e-13);
    EXPECT_LT(worstSlope, 1e-8);
}

TEST_P(TransformerTest, InverseUndoesIt) {
    double worst = 0;
    bool hasInverse = true;
    forEach(1000, [&](const RandomTransformer& f, double x) {
        hasInverse = F::transformerHasInverse(f.numbers);
        const F::TransformerValue v = f.value(x);
        if (hasInverse)
            worst = max(worst, abs(f.inverse(v.value)-x)*min(1.0, v.d1));
    });
    if (!hasInverse)
        cout << "no closed inverse" << endl;
    else
        cout << "residual of the closed inverse: " << worst << endl;
    EXPECT_LT(worst, 1e-11);
}

TEST_P(TransformerTest, SlopesAreWithinTheBounds) {
    mt19937_64 random(3);
    double highest = 0;
    for (int i = 0; i < 300; i++) {
        const RandomTransformer f(GetParam(), i%2 == 0 ? 1.0 : 20.0, random);
        double largestRaw = 0;
        for (double r : f.raw)
            largestRaw = max(largestRaw, abs(r));
        const pair<double, double> range = f.descriptor.logSlopeRange(GetParam().size, f.settings, largestRaw);
        for (double x = 0; x <= 1; x += 0.01) {
            const double logSlope = log(f.value(x).d1);
            ASSERT_TRUE(isfinite(logSlope));
            EXPECT_GE(logSlope, range.first-1e-9);
            EXPECT_LE(logSlope, range.second+1e-9);
            highest = max(highest, max(logSlope/range.second, logSlope/range.first));
        }
    }
    cout << "slopes reach up to " << 100*highest << " % of their bounds" << endl;
}

TEST(Transformers, DescriptorsAreInTheOrderOfTheirNumbers) {
    for (size_t i = 0; i < transformerDescriptors().size(); i++) {
        EXPECT_EQ(transformerDescriptors()[i].number, static_cast<int>(i));
        EXPECT_LE(transformerDescriptors()[i].settings.size(), size_t(TransformerDescriptor::MAX_SETTINGS));
    }
}

INSTANTIATE_TEST_SUITE_P(All, TransformerTest, testing::ValuesIn(transformerCases()), [](const auto& info) {
    return string(info.param.descriptor->name)+"_"+describe(info.param.domain)+"_"+to_string(info.param.size);
});
