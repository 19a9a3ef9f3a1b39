// SPDX-License-Identifier: MIT
// The sampling direction: it undoes the density direction, and its samples have the density.
#include "RandomModels.h"
#include "formulas/Formulas.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iostream>
#include <random>
#include <vector>

using namespace OpenMMFlow;
using namespace std;

TEST(Formulas, PlaceAtomUndoesBondAngleAndTorsion) {
    using F = Formulas<double>;
    mt19937 random(1);
    uniform_real_distribution<double> uniform(-1, 1);
    for (int i = 0; i < 1000; i++) {
        F::Vector r[4];
        for (F::Vector& v : r)
            v = {uniform(random), uniform(random), uniform(random)};
        const F::Torsion t = F::torsion(r[0], r[1], r[2], r[3]);
        const F::Angle a = F::bondAngle(r[0], r[1], r[2]);
        const F::Vector placed = F::placeAtom(r[1], r[2], r[3], F::bondLength(r[0], r[1]).length, atan2(a.sine, a.cosine),
                atan2(t.scaledSine, t.scaledCosine));
        const F::Vector error = F::vectorDifference(placed, r[0]);
        EXPECT_LT(sqrt(F::vectorDot(error, error)), 1e-12);
    }
}

TEST(Formulas, NormalQuantileUndoesTheCdf) {
    using F = Formulas<double>;
    for (double p : {1e-300, 1e-100, 1e-20, 1e-9, 0.001, 0.1, 0.4999, 0.5, 0.5001, 0.7, 0.999, 1-1e-12})
        EXPECT_NEAR(F::standardNormalCdf(F::standardNormalQuantile(p))/p, 1, 1e-12) << p;
}

/** seed of the random model */
class SamplingTest : public testing::TestWithParam<unsigned> {
};

TEST_P(SamplingTest, RoundTripAndLogProb) {
    const FlowModel model = randomModel({}, GetParam());
    const int count = 2000, n = model.getNumCoordinates(), size = 3*model.getNumParticles();
    vector<double> x(count*size), logProb(count), again(count), latent(count*n), back(count*size), backLogProb(count);
    model.sample(count, 7, x.data(), logProb.data());
    model.toLatent(x.data(), count, latent.data(), again.data());
    model.toPositions(latent.data(), count, back.data(), backLogProb.data());
    // Compare what does not depend on the orientation: all distances.
    vector<double> errors;
    double logProbError = 0;
    for (int i = 0; i < count; i++) {
        ASSERT_TRUE(isfinite(logProb[i]));
        if (!isfinite(again[i]))
            continue;    // a sample at the very edge of the support
        logProbError = max(logProbError, min(abs(again[i]-logProb[i]), abs(backLogProb[i]-again[i]))/(1+abs(logProb[i])));
        double worst = 0;
        for (int a = 0; a < size; a += 3)
            for (int b = 0; b < a; b += 3) {
                const auto distance = [&](const vector<double>& r) {
                    return hypot(r[i*size+a]-r[i*size+b], r[i*size+a+1]-r[i*size+b+1], r[i*size+a+2]-r[i*size+b+2]);
                };
                worst = max(worst, abs(distance(x)-distance(back)));
            }
        errors.push_back(worst);
    }
    EXPECT_GT(errors.size(), 0.99*count);
    sort(errors.begin(), errors.end());
    const double percentile = errors[errors.size()*999/1000];
    cout << "round trip x -> z -> x: 99.9th percentile " << percentile << " nm, median " << errors[errors.size()/2]
         << " nm; ln p agrees to " << logProbError << endl;
    EXPECT_LT(percentile, 1e-10);
}

TEST_P(SamplingTest, LatentsOfSamplesAreBaseSamples) {
    // With a uniform base the latents of samples are uniform: Kolmogorov-Smirnov for every coordinate.
    const FlowModel model = randomModel({}, GetParam());
    const int count = 4000, n = model.getNumCoordinates();
    vector<double> x(count*3*model.getNumParticles()), logProb(count), latent(count*n);
    model.sample(count, 11, x.data(), logProb.data());
    model.toLatent(x.data(), count, latent.data());
    for (const CoordinateDistributions& base : model.getArchitecture().base)
        if (base.distribution == Distribution::Uniform)
            for (int c : base.coordinates) {
                vector<double> z;
                for (int i = 0; i < count; i++)
                    if (isfinite(latent[i*n+c]))
                        z.push_back(latent[i*n+c]);
                sort(z.begin(), z.end());
                double statistic = 0;
                for (size_t i = 0; i < z.size(); i++)
                    statistic = max({statistic, abs(z[i]-double(i)/z.size()), abs(z[i]-double(i+1)/z.size())});
                // 2.2/sqrt(n): once in 10^4 by chance
                EXPECT_LT(statistic, 2.2/sqrt(double(z.size()))) << "coordinate " << c;
            }
}

TEST_P(SamplingTest, SampleDependsOnSeedAndIndexAlone) {
    const FlowModel model = randomModel({}, GetParam());
    const int size = 3*model.getNumParticles();
    vector<double> many(300*size), few(10*size), other(10*size), logProb(300);
    model.sample(300, 3, many.data(), logProb.data());
    model.sample(10, 3, few.data(), logProb.data());
    model.sample(10, 4, other.data(), logProb.data());
    for (int i = 0; i < 10*size; i++)
        EXPECT_NEAR(many[i], few[i], 1e-9);
    EXPECT_GT(abs(other[0]-few[0]), 1e-9);
    // Samples 200 to 299, with the gradient of ln p where they are.
    vector<double> last(100*size), gradient(100*size), expected(100*size), lastLogProb(100);
    model.sample(100, 3, last.data(), lastLogProb.data(), gradient.data(), 200);
    for (int i = 0; i < 100*size; i++)
        EXPECT_NEAR(last[i], many[200*size+i], 1e-9);
    model.logProbAndGradient(last.data(), 100, lastLogProb.data(), expected.data());
    EXPECT_EQ(memcmp(gradient.data(), expected.data(), expected.size()*sizeof(double)), 0);
    EXPECT_THROW(model.sample(1, 3, last.data(), lastLogProb.data(), nullptr, -1), FlowModelError);
    for (int i = 0; i < 300; i++)
        for (int k = 0; k < 3; k++) {
            double mean = 0;
            for (int a = 0; a < size; a += 3)
                mean += many[i*size+a+k];
            EXPECT_NEAR(mean, 0, 1e-12);
        }
}

INSTANTIATE_TEST_SUITE_P(RandomModels, SamplingTest, testing::Range(0u, 15u));
