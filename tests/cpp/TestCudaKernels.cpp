// SPDX-License-Identifier: MIT
// Every variant of the device kernel compiles for CUDA as OpenMM would compile it: with the prologue of its CUDA platform, taken from
// the installed library, and fast math. NVRTC needs no device.
#include "FlowKernelSource.h"

#include <gtest/gtest.h>
#include <nvrtc.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

namespace OpenMMFlow {

namespace {

/** The string constant of OpenMM's CUDA library that contains a text. */
std::string constantWith(const std::string& text) {
    std::ifstream file(OPENMM_CUDA_LIBRARY, std::ios::binary);
    const std::string library((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const std::size_t place = library.find(text);
    if (place == std::string::npos) {
        ADD_FAILURE() << "'" << text << "' is not in " << OPENMM_CUDA_LIBRARY;
        return "";
    }
    const std::size_t begin = library.rfind('\0', place)+1;
    return library.substr(begin, library.find('\0', place)-begin);
}

/** What CudaContext puts before a source, as far as a program can depend on it; see its createModule(). */
std::string prologue(const std::string& precision) {
    const bool isDouble = precision == "double", mixedIsDouble = precision != "single";
    const std::string real = isDouble ? "double" : "float", mixed = mixedIsDouble ? "double" : "float";
    std::ostringstream text;
    text << "#define SYNC_WARPS __syncwarp();\n";
    if (isDouble)
        text << "#define USE_DOUBLE_PRECISION 1\n";
    else if (mixedIsDouble)
        text << "#define USE_MIXED_PRECISION 1\n";
    for (const char* function : {"sqrt", "rsqrt", "exp", "log", "pow", "cos", "sin", "tan", "acos", "asin", "atan", "erf", "erfc", "fma",
            "fabs"}) {
        std::string name = function;
        std::transform(name.begin(), name.end(), name.begin(), ::toupper);
        text << "#define " << name << " " << function << (isDouble ? "" : "f") << "\n";
    }
    for (const std::string size : {"2", "3", "4"})
        text << "#define make_real" << size << " make_" << real << size << "\n#define make_mixed" << size << " make_" << mixed << size << "\n";
    for (const std::string size : {"", "2", "3", "4"})
        text << "typedef " << real << size << " real" << size << ";\ntypedef " << mixed << size << " mixed" << size << ";\n";
    text << "typedef unsigned int tileflags;\n" << constantWith("CUDA definitions for the macros and functions needed");
    return text.str();
}

using Variant = std::tuple<std::string, FlowKernelVariant, int>;

std::string variantName(const testing::TestParamInfo<Variant>& info) {
    const auto& [precision, variant, architecture] = info.param;
    return precision+"Tile"+std::to_string(variant.tile)+(variant.numRealRows > 0 ? "Local" : "")+"Architecture"+std::to_string(architecture);
}

} // namespace

class CudaKernels : public testing::TestWithParam<Variant> {
};

const FlowKernelVariant localVariant = {1, 704, 5120}, globalVariant = {1}, tileVariant = {16};

/** What GoogleTest prints of a variant. */
void PrintTo(const FlowKernelVariant& variant, std::ostream* out) {
    *out << "tile of " << variant.tile;
}

INSTANTIATE_TEST_SUITE_P(All, CudaKernels, testing::Combine(testing::Values("single", "mixed", "double"),
        testing::Values(localVariant, globalVariant, tileVariant), testing::Values(75, 80, 90, 100)), variantName);

TEST_P(CudaKernels, Compile) {
    const auto& [precision, variant, architecture] = GetParam();
    int numArchitectures;
    ASSERT_EQ(nvrtcGetNumSupportedArchs(&numArchitectures), NVRTC_SUCCESS);
    std::vector<int> architectures(numArchitectures);
    ASSERT_EQ(nvrtcGetSupportedArchs(architectures.data()), NVRTC_SUCCESS);
    if (std::find(architectures.begin(), architectures.end(), architecture) == architectures.end())
        GTEST_SKIP() << "this NVRTC does not know compute_" << architecture;

    std::ostringstream source;
    source << prologue(precision);
    for (const auto& [name, value] : flowKernelDefinitions(variant))
        source << "#define " << name << " " << value << "\n";
    source << constantWith("inline __device__ int2 operator-(int2 a)") << flowKernelSource;
    const std::string text = source.str(), target = "-arch=compute_"+std::to_string(architecture);
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
