// SPDX-License-Identifier: MIT
// What the device kernel puts into local memory, which a device refuses to exceed.
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

/** One molecule of the shipped model works in the local memory of CUDA in single and mixed precision. */
TEST(LocalMemoryOfCuda, HoldsTheShippedModel) {
    const FlowForce force(std::string("python/openmmflow/data/alanine_dipeptide.safetensors"));
    for (int mixedSize : {4, 8}) {
        const LocalMemory local(force, {1, 512}, cudaBytes, 4, mixedSize);
        EXPECT_GT(local.variant.numTableNumbers, 0);
        EXPECT_GT(local.variant.numRealRows, 0);
        std::cout << "single molecule, mixed of " << mixedSize << " bytes: " << local.bytes << " bytes"
                << (local.variant.keptIsGlobal ? ", with what is kept elsewhere" : "") << std::endl;
    }
}

} // namespace OpenMMFlow
