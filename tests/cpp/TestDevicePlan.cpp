// SPDX-License-Identifier: MIT
// What the device kernel has to do for a model, and what it puts into local memory, which a device refuses to exceed.
#include "FlowForceTesting.h"
#include "LocalMemory.h"

#include <gtest/gtest.h>

namespace OpenMMFlow {

/** Bytes that a CUDA kernel may have without asking for more, as OpenMM's CUDA platform tells of them. */
constexpr int cudaBytes = 48*1024-64;

class LocalMemoryTest : public testing::TestWithParam<int> {
};

INSTANTIATE_TEST_SUITE_P(Tiles, LocalMemoryTest, testing::Values(1, 4, 8, 16, 32));

/** Never more than there is, and what there is room for comes in its order: the less room, the less of it. */
TEST_P(LocalMemoryTest, HoldsWhatThereIsRoomFor) {
    for (int index = 0; index < numTestModels; index++) {
        const FlowForce force(testModel(index));
        int last = 4;
        for (int available : {1 << 24, cudaBytes, 40000, 32768, 24000, 16384, 8000, 4000, 0})
            for (int realSize : {8, 4}) {
                const LocalMemory local(force, {GetParam(), 512}, available, realSize, 8);
                const FlowKernelVariant& v = local.variant;
                EXPECT_LE(local.bytes, available);
                const int tables = 4*v.numTableNumbers+8*v.numConstants;
                EXPECT_EQ(tables+v.tile*(8*v.numMixedRows+realSize*v.numRealRows), local.bytes);
                EXPECT_TRUE(tables > 0 || v.numRealRows == 0) << "arenas without tables";
                EXPECT_TRUE(v.numRealRows > 0 || !v.keptIsGlobal);
                if (realSize == 8) {
                    const int held = (tables > 0)+(v.numRealRows > 0)+(v.numRealRows > 0 && !v.keptIsGlobal);
                    EXPECT_LE(held, last);
                    last = held;
                }
                const DevicePlan plan(force, {GetParam(), 512, v.keptIsGlobal});
                EXPECT_LE(static_cast<int>(plan.table.size()), local.tableNumbers);
                EXPECT_LE(static_cast<int>(plan.constants.size()), local.numConstants);
                if (v.numRealRows > 0) {
                    EXPECT_LE(plan.layout.numRealRows, v.numRealRows);
                    EXPECT_LE(plan.layout.numMixedRows, v.numMixedRows);
                }
                EXPECT_EQ(plan.layout.numKeptRows > 0, v.keptIsGlobal);
            }
        EXPECT_EQ(last, 0);
    }
}

/** The products of a step; behind the last step, the end of all. */
static const FlowProduct* productsOf(const DevicePlan& plan, int index) {
    const FlowLayout& layout = plan.layout;
    const auto* steps = reinterpret_cast<const FlowStep*>(&plan.table[layout.stepsTable]);
    const auto* products = reinterpret_cast<const FlowProduct*>(&plan.table[layout.productsTable]);
    const int numSteps = (layout.productsTable-layout.stepsTable)*static_cast<int>(sizeof(int))/static_cast<int>(sizeof(FlowStep));
    const int numProducts = (layout.roundsTable-layout.productsTable)*static_cast<int>(sizeof(int))/static_cast<int>(sizeof(FlowProduct));
    return products+(index < numSteps ? steps[index].firstProduct : numProducts);
}

/** What a launch has to do for a molecule of the shipped model: every weight is read once in either direction, with little besides. */
TEST(DevicePlanOfTheShippedModel, ReadsEveryWeightOnceInEitherDirection) {
    const FlowForce force(std::string("python/openmmflow/data/alanine_dipeptide.safetensors"));
    long long numWeights = 0, numOutputs = 0;    // outputs in both directions
    for (const Layer& layer : force.getModel().getArchitecture().layers)
        if (const CouplingLayer* coupling = std::get_if<CouplingLayer>(&layer))
            for (const std::vector<DenseLayer>& network : coupling->conditioner.networks)
                for (const DenseLayer& dense : network) {
                    numWeights += static_cast<long long>(dense.weight.values.size());
                    numOutputs += dense.weight.shape[0]+dense.weight.shape[1];
                }
    const DevicePlan::Shape shapes[] = {{1, 512, true, true}, {1, 512, true, true, 8}, {32, 512, false, true}, {1, 512}, {32, 512}};
    for (const DevicePlan::Shape& shape : shapes) {
        const DevicePlan plan(force, shape);
        const auto* program = reinterpret_cast<const FlowOperation*>(&plan.table[plan.layout.programTable]);
        long long numRead = 0;
        for (int i = 0; i < plan.layout.numOperations; i++)
            if (program[i].code == FLOW_PRODUCT)
                for (const FlowProduct* product = productsOf(plan, program[i].index); product != productsOf(plan, program[i].index+1); product++)
                    numRead += 4ll*product->inputs*((product->outputs+3)/4);
        // Where work-items of a warp add up, each output has one place in a round, of one group or another.
        long long numPlaced = 0;
        for (const FlowQuad& quad : plan.quads) {
            numRead += 4ll*quad.inputs;
            numPlaced += quad.outputs;
        }
        EXPECT_EQ(numPlaced, shape.sumsInWarps ? numOutputs : 0);
        std::cout << "tile of " << shape.tile << ", cluster of " << shape.cluster << ", " << plan.slices << " slices in warps: "
                << plan.layout.numOperations << " operations, "
                << numRead << " weights read of " << numWeights << " in matrices" << std::endl;
        EXPECT_GE(numRead, 2*numWeights);
        EXPECT_LE(numRead, 2.05*numWeights);
    }
}

/** One molecule of the shipped model works in the local memory of CUDA in single and mixed precision. */
TEST(LocalMemoryOfCuda, HoldsTheShippedModel) {
    const FlowForce force(std::string("python/openmmflow/data/alanine_dipeptide.safetensors"));
    for (int mixedSize : {4, 8})
        for (int cluster : {1, 8}) {
            const LocalMemory local(force, {1, 512, false, true, cluster}, cudaBytes, 4, mixedSize);
            EXPECT_GT(local.variant.numTableNumbers, 0);
            EXPECT_GT(local.variant.numRealRows, 0);
            std::cout << "single molecule, cluster of " << cluster << ", mixed of " << mixedSize << " bytes: " << local.bytes << " bytes"
                    << (local.variant.keptIsGlobal ? ", with what is kept elsewhere" : "") << std::endl;
        }
}

} // namespace OpenMMFlow
