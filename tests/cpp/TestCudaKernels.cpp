// SPDX-License-Identifier: MIT
// Every variant of the device kernel compiles for CUDA as OpenMM would compile it: with the prologue of its CUDA platform, taken from
// the installed library, and fast math. NVRTC needs no device.
#include "DeviceKernelVariants.h"
#include "DevicePrologue.h"

#include <gtest/gtest.h>
#include <nvrtc.h>

#include <algorithm>
#include <iostream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace OpenMMFlow {

class CudaKernels : public testing::TestWithParam<CompiledVariant> {
};

INSTANTIATE_TEST_SUITE_P(All, CudaKernels, compiledVariants({"75", "80", "90", "100"}), compiledVariantName);

INSTANTIATE_TEST_SUITE_P(Clusters, CudaKernels, clusterVariants({"90", "100"}), compiledVariantName);

static bool readsWeights(const std::string& line) {
    return line.find("ld.global.nc.v4.f32") != std::string::npos || line.find("ld.global.nc.v4.b32") != std::string::npos;
}

/** The longest run of loads of four numbers from read-only global memory with nothing computed from them in between. */
static int numWeightVectors(const std::string& ptx) {
    int longest = 0, run = 0;
    std::istringstream lines(ptx);
    for (std::string line; std::getline(lines, line);) {
        if (readsWeights(line))
            longest = std::max(longest, ++run);
        else if (line.find("fma.") != std::string::npos)
            run = 0;
    }
    return longest;
}

/** Of the instructions between two branches or labels where weights are read and most is multiplied and added: the share that does so. */
static double multiplyAddShare(const std::string& ptx) {
    int most = 0, numMultiplyAdds = 0, numInstructions = 0;
    bool reads = false;
    double share = 0;
    std::istringstream lines(ptx);
    for (std::string line; std::getline(lines, line);) {
        if (line.find("$L__BB") != std::string::npos) {
            if (reads && numMultiplyAdds > most) {
                most = numMultiplyAdds;
                share = static_cast<double>(numMultiplyAdds)/numInstructions;
            }
            numMultiplyAdds = numInstructions = 0;
            reads = false;
        }
        else if (!line.empty() && line[0] == '\t' && line.find(';') != std::string::npos) {
            numInstructions++;
            numMultiplyAdds += (line.find("\tfma.") == 0);
            reads = reads || readsWeights(line);
        }
    }
    return share;
}

TEST_P(CudaKernels, Compile) {
    const auto& [precision, variant, architecture] = GetParam();
    int numArchitectures;
    ASSERT_EQ(nvrtcGetNumSupportedArchs(&numArchitectures), NVRTC_SUCCESS);
    std::vector<int> architectures(numArchitectures);
    ASSERT_EQ(nvrtcGetSupportedArchs(architectures.data()), NVRTC_SUCCESS);
    if (std::find(architectures.begin(), architectures.end(), std::stoi(architecture)) == architectures.end())
        GTEST_SKIP() << "this NVRTC does not know compute_" << architecture;

    const DevicePrologue prologue(OPENMM_CUDA_LIBRARY);
    const std::string text = prologue(precision, "#define SYNC_WARPS __syncwarp();\n", {}, "CUDA definitions for the macros and functions needed",
            flowKernelDefinitions(variant.variant))+prologue.constantWith("inline __device__ int2 operator-(int2 a)")+flowKernelSource;
    // To machine code, which tells whether a multiprocessor has enough of everything.
    const std::string target = "-arch=sm_"+architecture;
    const char* options[] = {target.c_str(), "--use_fast_math", "--ptxas-options=-v"};
    nvrtcProgram program;
    ASSERT_EQ(nvrtcCreateProgram(&program, text.c_str(), nullptr, 0, nullptr, nullptr), NVRTC_SUCCESS);
    const nvrtcResult result = nvrtcCompileProgram(program, 3, options);
    std::size_t size = 0;
    nvrtcGetProgramLogSize(program, &size);
    std::string log(size, ' ');
    nvrtcGetProgramLog(program, log.data());
    ASSERT_EQ(result, NVRTC_SUCCESS) << log;
    std::smatch number;
    ASSERT_TRUE(std::regex_search(log, number, std::regex("Used ([0-9]+) registers"))) << log;
    const int registers = std::stoi(number[1]);
    std::cout << registers << " registers" << std::endl;
    // A multiprocessor has 65,536. CommonCalcFlowForceKernel makes groups smaller where a work-item takes too many of them.
    const bool usual = (variant.name.find("AllParts") == std::string::npos && precision != "double");
    EXPECT_LE(registers, usual ? 65536/512 : 65536/256);
    if (usual) {
        // Of one molecule whose arenas are in global memory, which takes more addresses, a few numbers may be put aside.
        const bool mayPutAside = (variant.name == "OneInGlobalMemory");
        EXPECT_FALSE(std::regex_search(log, std::regex(mayPutAside ? "(6[5-9]|[7-9][0-9]|[0-9]{3,}) bytes spill stores" : "[1-9][0-9]* bytes spill"))) << log;
    }
    ASSERT_EQ(nvrtcGetPTXSize(program, &size), NVRTC_SUCCESS);
    std::string ptx(size, ' ');
    ASSERT_EQ(nvrtcGetPTX(program, ptx.data()), NVRTC_SUCCESS);
    EXPECT_NE(ptx.find(".entry computeFlowForce"), std::string::npos);
    if (precision == "single") {
        EXPECT_EQ(ptx.find(".f64"), std::string::npos) << "single precision computes in double precision somewhere";
    }
    if (precision != "double") {
        if (variant.variant.tile > 1) {
            // In machine code a loop has some ten instructions besides: 64 of 85 are multiply-adds (nvdisasm, sm_90).
            std::cout << "multiply-adds are " << 100*multiplyAddShare(ptx) << " % of where products are added up" << std::endl;
            EXPECT_GE(multiplyAddShare(ptx), 0.7);
        }
        // Slices of a cluster have four inputs or little more, and a tile has no registers for more.
        const int portion = (variant.variant.cluster > 1 || variant.variant.tile > 1 ? 4 : 8);
        EXPECT_GE(numWeightVectors(ptx), portion) << "weights are not read as vectors, a portion at once";
    }
    nvrtcDestroyProgram(&program);
}

} // namespace OpenMMFlow
