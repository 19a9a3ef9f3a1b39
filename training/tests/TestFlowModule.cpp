// SPDX-License-Identifier: MIT
// FlowModule against the engine, whose reverse mode is written by hand, on random models.
#include "module/FlowModule.h"

#include "../../tests/cpp/RandomModels.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <random>

using namespace OpenMMFlow;

namespace {

at::Tensor randomConformations(const FlowModel& model, int count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<double> positions;
    for (int i = 0; i < count; i++) {
        const std::vector<double> one = randomConformation(model, random);
        positions.insert(positions.end(), one.begin(), one.end());
    }
    return at::tensor(positions, at::kDouble).reshape({count, model.getNumParticles(), 3});
}

class RandomModel : public testing::TestWithParam<unsigned> {
protected:
    RandomModel() {
        RandomModelOptions options;
        options.tensorType = TensorType::Float64;
        model = std::make_unique<FlowModel>(randomModel(options, GetParam()));
    }
    std::unique_ptr<FlowModel> model;
};

TEST_P(RandomModel, GradientsAreThoseOfTheEngine) {
    const int count = 11;
    const at::Tensor positions = randomConformations(*model, count, GetParam());
    std::vector<double> logProb(count), gradient(positions.numel());
    model->logProbAndGradient(positions.const_data_ptr<double>(), count, logProb.data(), gradient.data());

    const auto [moduleLogProb, moduleGradient] = FlowModule(*model).logProbAndGradient(positions);
    const at::Tensor engineGradient = at::tensor(gradient, at::kDouble).reshape(positions.sizes());
    const double error = ((moduleGradient-engineGradient).abs().max()/engineGradient.abs().max()).item<double>();
    const double logProbError = (moduleLogProb-at::tensor(logProb, at::kDouble)).abs().max().item<double>();
    std::printf("d ln p/dx %.1e relative, ln p %.1e\n", error, logProbError);
    EXPECT_LE(error, 1e-10);
    EXPECT_LE(logProbError, 1e-9);
}

TEST_P(RandomModel, LatentsAreThoseOfTheEngine) {
    const int count = 5;
    const at::Tensor positions = randomConformations(*model, count, GetParam());
    std::vector<double> latent(count*model->getNumCoordinates());
    model->toLatent(positions.const_data_ptr<double>(), count, latent.data());
    const at::Tensor expected = at::tensor(latent, at::kDouble).reshape({count, model->getNumCoordinates()});
    EXPECT_LE((FlowModule(*model).toLatent(positions).first-expected).abs().max().item<double>(), 1e-10);
}

TEST_P(RandomModel, GoesBackToTheSameModel) {
    EXPECT_EQ(FlowModule(*model).toModel().toBytes(), model->toBytes());
}

INSTANTIATE_TEST_SUITE_P(FlowModule, RandomModel, testing::Range(0u, 30u));

TEST(FlowModule, ParametersCarryTheNamesOfTheFile) {
    RandomModelOptions options;
    options.numCouplings = 1;
    options.numHiddenLayers = 1;
    const FlowModule module(randomModel(options, 1));
    const auto parameters = module.named_parameters();
    EXPECT_GE(parameters.size(), 4u);
    for (const auto& parameter : parameters) {
        EXPECT_NE(parameter.key().find(".networks."), std::string::npos);
        EXPECT_TRUE(parameter.value().requires_grad());
    }
    for (const auto& buffer : module.named_buffers())
        EXPECT_EQ(buffer.key().find(".networks."), std::string::npos);
}

TEST(FlowModule, ForceMatchingReachesEveryWeight) {
    RandomModelOptions options;
    options.numHiddenLayers = 1;
    const FlowModel model = randomModel(options, 2);
    FlowModule module(model);
    const auto gradient = module.logProbAndGradient(randomConformations(model, 4, 2), true).second;
    gradient.square().mean().backward();
    for (const auto& parameter : module.named_parameters()) {
        ASSERT_TRUE(parameter.value().grad().defined()) << parameter.key();
        EXPECT_TRUE(parameter.value().grad().isfinite().all().item<bool>()) << parameter.key();
    }
}

TEST(FlowModule, OutsideOfTheSupport) {
    RandomModelOptions options;
    options.marginal = Distribution::Uniform;
    const FlowModel model = randomModel(options, 3);
    const auto [logProb, gradient] = FlowModule(model).logProbAndGradient(randomConformations(model, 1, 3)*10);
    EXPECT_EQ(logProb.item<double>(), -std::numeric_limits<double>::infinity());
    EXPECT_TRUE(gradient.isnan().all().item<bool>());
}

} // namespace
