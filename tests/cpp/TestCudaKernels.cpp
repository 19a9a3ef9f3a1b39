// SPDX-License-Identifier: MIT
// Every variant of the device kernel compiles for CUDA as OpenMM would compile it: with the prologue of its CUDA platform, taken from
// the installed library, and fast math. NVRTC needs no device.
#include "DeviceKernelVariants.h"
#include "DevicePrologue.h"

#include <gtest/gtest.h>
#include <nvrtc.h>

#include <algorithm>
#include <string>
#include <vector>

namespace OpenMMFlow {

class CudaKernels : public testing::TestWithParam<CompiledVariant> {
};

INSTANTIATE_TEST_SUITE_P(All, CudaKernels, compiledVariants({"75", "80", "90", "100"}), compiledVariantName);

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
    const std::string target = "-arch=compute_"+architecture;
    const char* options[] = {target.c_str(), "--use_fast_math"};
    nvrtcProgram program;
    ASSERT_EQ(nvrtcCreateProgram(&program, text.c_str(), nullptr, 0, nullptr, nullptr), NVRTC_SUCCESS);
    const nvrtcResult result = nvrtcCompileProgram(program, 2, options);
    std::size_t size = 0;
    nvrtcGetProgramLogSize(program, &size);
    std::string log(size, ' ');
    nvrtcGetProgramLog(program, log.data());
    ASSERT_EQ(result, NVRTC_SUCCESS) << log;
    ASSERT_EQ(nvrtcGetPTXSize(program, &size), NVRTC_SUCCESS);
    std::string ptx(size, ' ');
    ASSERT_EQ(nvrtcGetPTX(program, ptx.data()), NVRTC_SUCCESS);
    EXPECT_NE(ptx.find(".entry computeFlowForce"), std::string::npos);
    if (precision == "single") {
        EXPECT_EQ(ptx.find(".f64"), std::string::npos) << "single precision computes in double precision somewhere";
    }
    nvrtcDestroyProgram(&program);
}

} // namespace OpenMMFlow
