// SPDX-License-Identifier: MIT
// Every variant of the device kernel compiles for HIP as OpenMM would compile it: with the prologue of its HIP platform, taken from the
// installed library, and fast math. hipRTC needs no device.
#include "DeviceKernelVariants.h"
#include "DevicePrologue.h"

#include <gtest/gtest.h>
#include <hip/hiprtc.h>

#include <string>
#include <vector>

namespace OpenMMFlow {

class HipKernels : public testing::TestWithParam<CompiledVariant> {
};

// One architecture with wavefronts of 64 and one with 32.
INSTANTIATE_TEST_SUITE_P(All, HipKernels, compiledVariants({"gfx90a", "gfx1030"}), compiledVariantName);

TEST_P(HipKernels, Compile) {
    const auto& [precision, variant, architecture] = GetParam();
    const DevicePrologue prologue(OPENMM_HIP_LIBRARY);
    const std::string first = std::string("#define USE_HIP 1\n")+(architecture == "gfx1030" ? "#define AMD_RDNA 1\n" : "");
    const std::string text = prologue(precision, first,
            {{"sqrt", "__fsqrt_rn"}, {"rsqrt", "__frsqrt_rn"}, {"exp", "__expf"}, {"log", "__logf"}},
            "HIP definitions for the macros and functions needed", flowKernelDefinitions(variant.variant))+
            prologue.constantWith("T warpShuffle(const T& input")+prologue.constantWith("vector operations to simplify code")+
            flowKernelSource;
    hiprtcProgram program;
    ASSERT_EQ(hiprtcCreateProgram(&program, text.c_str(), nullptr, 0, nullptr, nullptr), HIPRTC_SUCCESS);
    const std::string target = "--gpu-architecture="+architecture;
    // What OpenMM compiles with, but for what headers of ROCm before 6.1 want.
    std::vector<const char*> options = {"-O3", "-ffast-math", "-munsafe-fp-atomics", "--gpu-max-threads-per-block=256",
            "-DHIP_INCLUDE_HIP_AMD_DETAIL_HIP_COMPLEX_H", target.c_str()};
    if (architecture == "gfx90a")
        options.push_back("-fno-slp-vectorize");
    const hiprtcResult result = hiprtcCompileProgram(program, static_cast<int>(options.size()), options.data());
    std::size_t size = 0;
    hiprtcGetProgramLogSize(program, &size);
    std::string log(size, ' ');
    if (size > 0)
        hiprtcGetProgramLog(program, log.data());
    ASSERT_EQ(result, HIPRTC_SUCCESS) << log;
    ASSERT_EQ(hiprtcGetCodeSize(program, &size), HIPRTC_SUCCESS);
    std::string code(size, ' ');
    ASSERT_EQ(hiprtcGetCode(program, code.data()), HIPRTC_SUCCESS);
    EXPECT_NE(code.find("computeFlowForce"), std::string::npos);
    hiprtcDestroyProgram(&program);
}

} // namespace OpenMMFlow
