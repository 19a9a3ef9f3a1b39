// SPDX-License-Identifier: MIT
// Fuzz target: any bytes as a model file. Either FlowModelError says what is wrong with them, or they are a model that is written
// and read again byte by byte, and that can be evaluated anywhere without touching memory that is not its own.
#include "FuzzTarget.h"

#include "engine/Evaluator.h"
#include "model/FlowModel.h"
#include "model/FlowModelError.h"

#include <random>
#include <vector>

using namespace OpenMMFlow;

namespace {

/** Models beyond this size are read but not evaluated, so that an input takes milliseconds. */
constexpr int maxEvaluatedParticles = 16;
constexpr long long maxEvaluatedParameters = 10000;

/** @param variant  of precision and of how many molecules are evaluated together */
void evaluate(const FlowModel& model, unsigned variant) {
    const Evaluator evaluator(model, (variant & 1) == 0 ? Precision::Double : Precision::Single);
    const int count = ((variant & 2) == 0 ? 1 : evaluator.getBlockSize()+1), size = 3*model.getNumParticles();
    const auto workspace = evaluator.createWorkspace(count);
    std::mt19937 random(1);
    std::uniform_real_distribution<double> box(0, 0.5), latents(0, 1);
    std::vector<double> positions(count*size), gradient(count*size), logProb(count), latent(count*model.getNumCoordinates());
    std::vector<ContinuedPotential> potentials(count);
    for (double& x : positions)
        x = box(random);
    evaluator.continuedPotential(count, positions.data(), 1, potentials.data(), gradient.data(), *workspace);
    evaluator.logProb(count, positions.data(), logProb.data(), gradient.data(), latent.data(), *workspace);
    for (double& z : latent)
        z = latents(random);
    evaluator.sampleLatent(count, latent.data());
    evaluator.toPositions(count, latent.data(), positions.data(), logProb.data(), *workspace);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const FlowModel model = FlowModel::fromBytes(std::string(reinterpret_cast<const char*>(data), size));
        const std::string bytes = model.toBytes();
        require(FlowModel::fromBytes(bytes).toBytes() == bytes, "a model is read as it was written");
        if (model.getNumParticles() <= maxEvaluatedParticles && model.getNumParameters() <= maxEvaluatedParameters)
            evaluate(model, static_cast<unsigned>(model.getChecksum().back()));
    }
    catch (const FlowModelError& error) {
        require(*error.what() != '\0', "an error says what is wrong");
    }
    return 0;
}
