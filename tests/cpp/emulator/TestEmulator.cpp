// SPDX-License-Identifier: MIT
// What the emulator can see of a faulty kernel or program, through the interface of CUDA.
#include <cuda.h>
#include <nvrtc.h>

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

namespace {

class EmulatorTest : public testing::Test {
protected:
    CUcontext context = nullptr;

    void SetUp() override {
        CUdevice device;
        ASSERT_EQ(cuInit(0), CUDA_SUCCESS);
        ASSERT_EQ(cuDeviceGet(&device, 0), CUDA_SUCCESS);
        context = newContext(device);
    }

    void TearDown() override {
        cuCtxDestroy(context);
    }

    static CUcontext newContext(CUdevice device) {
        CUcontext context;
        CUctxCreateParams parameters = {};
        EXPECT_EQ(cuCtxCreate(&context, &parameters, 0, device), CUDA_SUCCESS);
        return context;
    }

    /** The kernel called test of a source; nullptr, and what the compiler said, if there is none. */
    CUfunction kernel(const std::string& source) {
        nvrtcProgram program;
        nvrtcCreateProgram(&program, source.c_str(), nullptr, 0, nullptr, nullptr);
        const nvrtcResult result = nvrtcCompileProgram(program, 0, nullptr);
        std::size_t size;
        nvrtcGetProgramLogSize(program, &size);
        log.resize(size);
        nvrtcGetProgramLog(program, log.data());
        nvrtcGetPTXSize(program, &size);
        std::vector<char> code(size);
        nvrtcGetPTX(program, code.data());
        nvrtcDestroyProgram(&program);
        CUmodule module;
        CUfunction function = nullptr;
        if (result == NVRTC_SUCCESS && cuModuleLoadDataEx(&module, code.data(), 0, nullptr, nullptr) == CUDA_SUCCESS)
            cuModuleGetFunction(&function, module, "test");
        return function;
    }

    static CUresult launch(CUfunction function, unsigned int gridSize, unsigned int blockSize, std::vector<void*> arguments,
            unsigned int dynamicBytes = 0) {
        return cuLaunchKernel(function, gridSize, 1, 1, blockSize, 1, 1, dynamicBytes, nullptr, arguments.data(), nullptr);
    }

    /** What a kernel without further arguments writes into an array, a number for each work-item. */
    template <class T>
    std::vector<T> results(const std::string& source, unsigned int gridSize, unsigned int blockSize, unsigned int dynamicBytes = 0) {
        std::vector<T> host(gridSize*blockSize);
        CUdeviceptr array;
        EXPECT_EQ(cuMemAlloc(&array, host.size()*sizeof(T)), CUDA_SUCCESS);
        CUfunction function = kernel(source);
        EXPECT_NE(function, nullptr) << log;
        if (function != nullptr) {
            EXPECT_EQ(launch(function, gridSize, blockSize, {&array}, dynamicBytes), CUDA_SUCCESS);
        }
        EXPECT_EQ(cuMemcpyDtoH(host.data(), array, host.size()*sizeof(T)), CUDA_SUCCESS);
        EXPECT_EQ(cuMemFree(array), CUDA_SUCCESS);
        return host;
    }

    std::string log;
};

/** Each work-item writes to local memory and reads what the next one wrote, many times. */
std::string rotation(const std::string& barrier) {
    return "extern \"C\" __global__ void test(int* result) {\n"
            "    __shared__ int values[96];\n"
            "    int value = threadIdx.x;\n"
            "    for (int i = 0; i < 10; i++) {\n"
            "        values[threadIdx.x] = value;\n"
            "        "+barrier+";\n"
            "        value = values[(threadIdx.x+1)%blockDim.x];\n"
            "        "+barrier+";\n"
            "    }\n"
            "    result[blockIdx.x*blockDim.x+threadIdx.x] = value;\n"
            "}\n";
}

TEST_F(EmulatorTest, BarriersAreWaitedFor) {
    const std::vector<int> found = results<int>(rotation("__syncthreads()"), 2, 96);
    for (int i = 0; i < 2*96; i++)
        EXPECT_EQ(found[i], (i+10)%96);
}

TEST_F(EmulatorTest, AMissingBarrierIsSeen) {
    int numWrong = 0;
    const std::vector<int> found = results<int>(rotation("__threadfence_block()"), 1, 96);
    for (int i = 0; i < 96; i++)
        numWrong += (found[i] != (i+10)%96);
    EXPECT_GT(numWrong, 48);
}

TEST_F(EmulatorTest, WorkItemsThatEndBeforeABarrierAreAnError) {
    CUdeviceptr array;
    ASSERT_EQ(cuMemAlloc(&array, 4), CUDA_SUCCESS);
    CUfunction function = kernel("extern \"C\" __global__ void test(int* result) {\n"
            "    if (threadIdx.x < 5)\n"
            "        return;\n"
            "    __syncthreads();\n"
            "    *result = 1;\n"
            "}\n");
    ASSERT_NE(function, nullptr) << log;
    EXPECT_EQ(launch(function, 1, 64, {&array}), CUDA_ERROR_LAUNCH_FAILED);
    // The device goes on.
    EXPECT_EQ(results<int>(rotation("__syncthreads()"), 1, 96)[0], 10);
    EXPECT_EQ(cuMemFree(array), CUDA_SUCCESS);
}

TEST_F(EmulatorTest, WarpsExchangeNumbers) {
    const std::vector<unsigned int> found = results<unsigned int>("extern \"C\" __global__ void test(unsigned int* result) {\n"
            "    const double down = __shfl_down_sync(0xffffffff, 1.5*threadIdx.x, 1), other = __shfl_xor_sync(0xffffffff, 1.5*threadIdx.x, 3);\n"
            "    const int seventh = __shfl_sync(0xffffffff, (int) threadIdx.x, 7);\n"
            "    const unsigned int even = __ballot_sync(0xffffffff, threadIdx.x%2 == 0);\n"
            "    const int lane = threadIdx.x%32, first = threadIdx.x-lane;\n"
            "    const bool isDown = (down == 1.5*(lane == 31 ? threadIdx.x : threadIdx.x+1));\n"
            "    result[threadIdx.x] = isDown+2*(other == 1.5*(first+(lane^3)))+4*(seventh == first+7)+8*(even == 0x55555555);\n"
            "}\n", 1, 64);
    for (unsigned int flags : found)
        EXPECT_EQ(flags, 15);
}

TEST_F(EmulatorTest, LocalMemoryIsShared) {
    // With a size that the launch gives.
    const std::vector<float> found = results<float>("extern \"C\" __global__ void test(float* result) {\n"
            "    extern __shared__ float4 values[];\n"
            "    const int i = threadIdx.x;\n"
            "    values[i] = make_float4(i, 2*i, 3*i, 4*i);\n"
            "    __syncthreads();\n"
            "    const float4 next = values[(i+1)%blockDim.x];\n"
            "    result[i] = next.x+next.w;\n"
            "}\n", 1, 32, 32*16);
    for (int i = 0; i < 32; i++)
        EXPECT_EQ(found[i], 5*((i+1)%32));
}

/** Blocks of a cluster of three write into each other's local memory, many times. */
std::string rotationOfBlocks(const std::string& waitBefore, const std::string& waitAfter) {
    return "extern \"C\" __global__ __cluster_dims__(3, 1, 1) void test(int* result) {\n"
            "    __shared__ int values[64];\n"
            "    const int rank = blockIdx.x%3;\n"
            "    values[threadIdx.x] = 100*rank+threadIdx.x;\n"
            "    for (int i = 0; i < 10; i++) {\n"
            "        __syncthreads();\n"
            "        const int value = values[(threadIdx.x+1)%blockDim.x];\n"
            "        "+waitBefore+"\n"
            "        ((int*) __cluster_map_shared_rank(values, (rank+1)%3))[threadIdx.x] = value;\n"
            "        "+waitAfter+"\n"
            "    }\n"
            "    result[blockIdx.x*blockDim.x+threadIdx.x] = values[threadIdx.x];\n"
            "}\n";
}

const char* const clusterBarrier = "__cluster_barrier_arrive(); __cluster_barrier_wait();";

TEST_F(EmulatorTest, BlocksOfAClusterWriteIntoEachOthersMemory) {
    const std::vector<int> found = results<int>(rotationOfBlocks(clusterBarrier, clusterBarrier), 6, 64);
    for (int i = 0; i < 6*64; i++)
        EXPECT_EQ(found[i], 100*((i/64+2)%3)+(i+10)%64);
}

TEST_F(EmulatorTest, AMissingBarrierOfAClusterIsSeen) {
    // Of one of the two barriers; blocks that end or have not begun are told apart by the others.
    int numWrong = 0;
    const std::vector<int> found = results<int>(rotationOfBlocks("if (i == 0) { "+std::string(clusterBarrier)+" }", clusterBarrier), 3, 64);
    for (int i = 0; i < 3*64; i++)
        numWrong += (found[i] != 100*((i/64+2)%3)+(i+10)%64);
    EXPECT_GT(numWrong, 64);
}

TEST_F(EmulatorTest, MisusedClustersAreErrors) {
    CUdeviceptr array;
    ASSERT_EQ(cuMemAlloc(&array, 6*64*sizeof(int)), CUDA_SUCCESS);
    const auto result = [&](const std::string& waitBefore, const std::string& waitAfter, unsigned int gridSize) {
        CUfunction function = kernel(rotationOfBlocks(waitBefore, waitAfter));
        EXPECT_NE(function, nullptr) << log;
        return launch(function, gridSize, 64, {&array});
    };
    EXPECT_EQ(result(clusterBarrier, clusterBarrier, 6), CUDA_SUCCESS);
    EXPECT_EQ(result(clusterBarrier, clusterBarrier, 4), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    EXPECT_EQ(result("", "", 3), CUDA_ERROR_LAUNCH_FAILED) << "blocks that have not begun or have ended";
    EXPECT_EQ(result(clusterBarrier, "__cluster_barrier_wait();", 3), CUDA_ERROR_LAUNCH_FAILED) << "a wait without an arrival";
    EXPECT_EQ(result(clusterBarrier, "__cluster_barrier_arrive();", 3), CUDA_ERROR_LAUNCH_FAILED) << "two arrivals without a wait";
    EXPECT_EQ(result(clusterBarrier, "if (rank > 0) { "+std::string(clusterBarrier)+" }", 3), CUDA_ERROR_LAUNCH_FAILED)
            << "one block does not come to the barrier";
    EXPECT_EQ(cuMemFree(array), CUDA_SUCCESS);
}

TEST_F(EmulatorTest, WhatNobodyWroteIsNoNumber) {
    const std::vector<float> local = results<float>("extern \"C\" __global__ void test(float* result) {\n"
            "    __shared__ float values[4];\n"
            "    result[threadIdx.x] = values[threadIdx.x];\n"
            "    values[threadIdx.x] = 1;\n"
            "}\n", 1, 4);
    const std::vector<double> global = results<double>("extern \"C\" __global__ void test(double*) { }\n", 1, 4);
    for (int i = 0; i < 4; i++) {
        EXPECT_TRUE(std::isnan(local[i]));
        EXPECT_TRUE(std::isnan(global[i]));
    }
}

TEST_F(EmulatorTest, AtomicSumsAreComplete) {
    long long sum = 0;
    CUdeviceptr array;
    ASSERT_EQ(cuMemAlloc(&array, sizeof(sum)), CUDA_SUCCESS);
    ASSERT_EQ(cuMemcpyHtoD(array, &sum, sizeof(sum)), CUDA_SUCCESS);
    CUfunction function = kernel("extern \"C\" __global__ void test(unsigned long long* sum, int factor) {\n"
            "    atomicAdd(sum, (unsigned long long) (factor*(long long) threadIdx.x));\n"
            "}\n");
    ASSERT_NE(function, nullptr) << log;
    int factor = -2;
    EXPECT_EQ(launch(function, 3, 100, {&array, &factor}), CUDA_SUCCESS);
    EXPECT_EQ(cuMemcpyDtoH(&sum, array, sizeof(sum)), CUDA_SUCCESS);
    EXPECT_EQ(sum, -2*3*99*50);
    EXPECT_EQ(cuMemFree(array), CUDA_SUCCESS);
}

TEST_F(EmulatorTest, CopiesMustBeInsideOfArrays) {
    char host[40] = {};
    CUdeviceptr array;
    ASSERT_EQ(cuMemAlloc(&array, 32), CUDA_SUCCESS);
    EXPECT_EQ(cuMemcpyHtoD(array, host, 32), CUDA_SUCCESS);
    EXPECT_EQ(cuMemcpyHtoD(array+8, host, 24), CUDA_SUCCESS);
    EXPECT_NE(cuMemcpyHtoD(array, host, 33), CUDA_SUCCESS);
    EXPECT_NE(cuMemcpyDtoH(host, array+8, 25), CUDA_SUCCESS);
    EXPECT_NE(cuMemcpyDtoH(host, array-1, 1), CUDA_SUCCESS);
    EXPECT_EQ(cuMemFree(array), CUDA_SUCCESS);
    EXPECT_NE(cuMemFree(array), CUDA_SUCCESS);
    EXPECT_NE(cuMemcpyHtoD(array, host, 32), CUDA_SUCCESS);
}

TEST_F(EmulatorTest, WhatLiesBehindAnArrayIsNotThere) {
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    EXPECT_DEATH(results<float>("extern \"C\" __global__ void test(float* result) {\n"
            "    result[threadIdx.x+1] = 1;\n"
            "}\n", 1, 64), "");
    EXPECT_EQ(results<float>("extern \"C\" __global__ void test(float* result) {\n"
            "    result[threadIdx.x] = 1;\n"
            "}\n", 1, 64)[63], 1);
}

TEST_F(EmulatorTest, KernelsBelongToTheirContext) {
    const std::string source = "extern \"C\" __global__ void test() { }\n";
    CUfunction function = kernel(source);
    ASSERT_NE(function, nullptr) << log;
    EXPECT_EQ(launch(function, 1, 32, {}), CUDA_SUCCESS);
    CUcontext other = newContext(1), popped;
    EXPECT_NE(launch(function, 1, 32, {}), CUDA_SUCCESS);
    EXPECT_EQ(cuCtxPopCurrent(&popped), CUDA_SUCCESS);
    EXPECT_EQ(popped, other);
    EXPECT_EQ(launch(function, 1, 32, {}), CUDA_SUCCESS);
    EXPECT_EQ(cuCtxPopCurrent(&popped), CUDA_SUCCESS);
    EXPECT_NE(launch(function, 1, 32, {}), CUDA_SUCCESS);
    CUdeviceptr array;
    EXPECT_NE(cuMemAlloc(&array, 4), CUDA_SUCCESS);
    EXPECT_EQ(cuCtxDestroy(other), CUDA_SUCCESS);
}

TEST_F(EmulatorTest, ShapesAreThoseOfADevice) {
    CUfunction function = kernel("extern \"C\" __global__ void test() { }\n");
    ASSERT_NE(function, nullptr) << log;
    EXPECT_EQ(launch(function, 1, 1024, {}, 49152), CUDA_SUCCESS);
    EXPECT_NE(launch(function, 1, 1025, {}), CUDA_SUCCESS);
    EXPECT_NE(launch(function, 0, 32, {}), CUDA_SUCCESS);
    EXPECT_NE(launch(function, 1, 32, {}, 49153), CUDA_SUCCESS);
}

TEST_F(EmulatorTest, CompilersSayWhatIsWrong) {
    EXPECT_EQ(kernel("extern \"C\" __global__ void test() { undeclared = 1; }\n"), nullptr);
    EXPECT_NE(log.find("undeclared"), std::string::npos);
}

} // namespace
