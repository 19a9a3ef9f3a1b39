// SPDX-License-Identifier: MIT
// FlowModel as a value that is evaluated: batches, threads, bad positions.
#include "RandomModels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

using namespace OpenMMFlow;
using namespace std;

namespace {

vector<double> conformations(const FlowModel& model, int count, unsigned seed) {
    mt19937 random(seed);
    vector<double> positions;
    for (int i = 0; i < count; i++) {
        vector<double> one = randomConformation(model, random);
        positions.insert(positions.end(), one.begin(), one.end());
    }
    return positions;
}

class RandomFlowModel : public testing::TestWithParam<int> {
protected:
    const FlowModel model = randomModel({}, GetParam());
    const int numParticles = model.getNumParticles();
};

} // namespace

TEST_P(RandomFlowModel, ConformationsAreInsideTheSupport) {
    const int count = 20;
    vector<double> positions = conformations(model, count, 1), logProb(count), latent(count*model.getNumCoordinates());
    model.toLatent(positions.data(), count, latent.data(), logProb.data());
    for (double value : logProb)
        EXPECT_TRUE(isfinite(value)) << value;
    vector<Domain> domains = coordinateDomains(model.getArchitecture()).back();
    for (size_t i = 0; i < latent.size(); i++)
        if (domains[i%domains.size()] != Domain::Real) {
            EXPECT_GE(latent[i], 0);
            EXPECT_LE(latent[i], 1);
        }
}

TEST_P(RandomFlowModel, AllMethodsAgree) {
    const int count = 7, n = model.getNumCoordinates();
    vector<double> positions = conformations(model, count, 2);
    vector<double> a(count), b(count), c(count), gradient(positions.size()), latent(count*n), latentAlone(count*n);
    model.logProb(positions.data(), count, a.data());
    model.logProbAndGradient(positions.data(), count, b.data(), gradient.data());
    model.toLatent(positions.data(), count, latent.data(), c.data());
    model.toLatent(positions.data(), count, latentAlone.data());
    EXPECT_EQ(a, b);
    EXPECT_EQ(a, c);
    EXPECT_EQ(latent, latentAlone);
}

TEST_P(RandomFlowModel, GradientIsThatOfLogProb) {
    const int count = 3;
    vector<double> positions = conformations(model, count, 3), logProb(count), gradient(positions.size());
    model.logProbAndGradient(positions.data(), count, logProb.data(), gradient.data());
    double largest = 1;
    for (double g : gradient)
        largest = max(largest, fabs(g));
    // The five-point formula.
    const double step = 3e-7;    // nm
    for (int i = 0; i < 3*numParticles*count; i++) {
        double difference = 0;
        for (auto [steps, factor] : {pair{-2, 1.0}, {-1, -8.0}, {1, 8.0}, {2, -1.0}}) {
            vector<double> moved = positions;
            moved[i] += steps*step;
            model.logProb(moved.data(), count, logProb.data());
            difference += factor/(12*step)*logProb[i/(3*numParticles)];
        }
        EXPECT_NEAR(gradient[i], difference, 1e-6*largest) << "coordinate " << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomFlowModel, testing::Range(0, 40));

TEST(FlowModelBatches, DoNotDependOnTheirSize) {
    FlowModel model = randomModel({}, 1);
    const int count = 1000, size = 3*model.getNumParticles();
    vector<double> positions = conformations(model, count, 4), logProb(count), gradient(positions.size());
    model.logProbAndGradient(positions.data(), count, logProb.data(), gradient.data());
    // The same batch again is the same to the last bit, however many threads shared it.
    vector<double> again(count), gradientAgain(positions.size());
    model.logProbAndGradient(positions.data(), count, again.data(), gradientAgain.data());
    EXPECT_EQ(logProb, again);
    EXPECT_EQ(gradient, gradientAgain);
    for (int molecule = 0; molecule < count; molecule += 37) {
        double one;
        model.logProb(positions.data()+molecule*size, 1, &one);
        EXPECT_NEAR(one, logProb[molecule], 1e-10*(1+fabs(one)));
    }
}

TEST(FlowModelBatches, MayBeEmpty) {
    FlowModel model = randomModel({}, 1);
    model.logProb(nullptr, 0, nullptr);
    model.logProbAndGradient(nullptr, 0, nullptr, nullptr);
    model.toLatent(nullptr, 0, nullptr);
}

TEST(FlowModelBatches, OutsideOfTheSupport) {
    RandomModelOptions options;
    options.marginal = Distribution::Uniform;
    FlowModel model = randomModel(options, 1);
    const int size = 3*model.getNumParticles(), n = model.getNumCoordinates();
    vector<double> positions = conformations(model, 3, 5);
    for (int i = size; i < 2*size; i++)
        positions[i] *= 3;    // bonds of half a nanometre
    vector<double> logProb(3), gradient(positions.size()), latent(3*n);
    model.logProbAndGradient(positions.data(), 3, logProb.data(), gradient.data());
    model.toLatent(positions.data(), 3, latent.data());
    EXPECT_TRUE(isfinite(logProb[0]) && isfinite(logProb[2]));
    EXPECT_EQ(logProb[1], -numeric_limits<double>::infinity());
    for (int i = 0; i < 3*size; i++)
        EXPECT_EQ(isnan(gradient[i]), i/size == 1);
    for (int i = 0; i < 3*n; i++)
        EXPECT_EQ(isnan(latent[i]), i/n == 1);
}

TEST(FlowModelBatches, RefusePositionsThatAreNotFinite) {
    FlowModel model = randomModel({}, 1);
    vector<double> positions = conformations(model, 3, 5), logProb(3);
    positions[3*model.getNumParticles()+3*2+1] = numeric_limits<double>::quiet_NaN();
    try {
        model.logProb(positions.data(), 3, logProb.data());
        FAIL() << "no error";
    }
    catch (const FlowModelError& error) {
        EXPECT_NE(string(error.what()).find("molecule 1, particle 2"), string::npos) << error.what();
    }
}

TEST(FlowModelBatches, RefuseNegativeCounts) {
    FlowModel model = randomModel({}, 1);
    EXPECT_THROW(model.logProb(nullptr, -1, nullptr), FlowModelError);
    EXPECT_THROW(model.logProbAndGradient(nullptr, -1, nullptr, nullptr), FlowModelError);
    EXPECT_THROW(model.toLatent(nullptr, -1, nullptr), FlowModelError);
    EXPECT_THROW(model.toPositions(nullptr, -1, nullptr, nullptr), FlowModelError);
    EXPECT_THROW(model.sample(-1, 0, nullptr, nullptr), FlowModelError);
}

TEST(FlowModelThreads, ShareOneModel) {
    // The first evaluation compiles the model; here eight threads come first at once.
    FlowModel model = randomModel({}, 2);
    const int count = 16;
    vector<double> positions = conformations(model, count, 6);
    vector<vector<double>> results(8, vector<double>(count));
    vector<thread> threads;
    for (vector<double>& result : results)
        threads.emplace_back([&, copy = model] { copy.logProb(positions.data(), count, result.data()); });
    for (thread& thread : threads)
        thread.join();
    for (const vector<double>& result : results)
        EXPECT_EQ(result, results[0]);
}
