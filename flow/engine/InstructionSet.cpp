// SPDX-License-Identifier: MIT
#include "engine/CouplingPlan.h"
#include "engine/GeometryPlan.h"
#include "model/FlowModelError.h"

#include <cstdlib>
#include <string>

namespace OpenMMFlow {

// One function for each instruction set that the build compiled CouplingKernels.cpp and GeometryKernels.cpp for.
template <class Real>
const CouplingKernels<Real>& baselineKernels();
const GeometryKernels& baselineGeometryKernels();
#ifdef OPENMMFLOW_X86
template <class Real>
const CouplingKernels<Real>& avx2Kernels();
template <class Real>
const CouplingKernels<Real>& avx512Kernels();
const GeometryKernels& avx2GeometryKernels();
const GeometryKernels& avx512GeometryKernels();
#endif

namespace {

enum class InstructionSet { Baseline, AVX2, AVX512 };

InstructionSet widestInstructionSet() {
#ifdef OPENMMFLOW_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
            __builtin_cpu_supports("avx512cd"))
        return InstructionSet::AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return InstructionSet::AVX2;
#endif
    return InstructionSet::Baseline;
}

InstructionSet chooseInstructionSet() {
    InstructionSet widest = widestInstructionSet();
    const char* limit = std::getenv("OPENMMFLOW_INSTRUCTIONS");
    if (limit == nullptr || *limit == 0)
        return widest;
    const std::string name = limit;
    InstructionSet wanted;
    if (name == "baseline")
        wanted = InstructionSet::Baseline;
    else if (name == "avx2")
        wanted = InstructionSet::AVX2;
    else if (name == "avx512")
        wanted = InstructionSet::AVX512;
    else
        throw FlowModelError("The environment variable OPENMMFLOW_INSTRUCTIONS is '"+name+
                "'; it must be baseline, avx2 or avx512, or not be set.");
    return wanted < widest ? wanted : widest;
}

InstructionSet chosenInstructionSet() {
    // Chosen once: evaluations ask for the size of blocks.
    static const InstructionSet chosen = chooseInstructionSet();
    return chosen;
}

} // namespace

template <class Real>
const CouplingKernels<Real>& selectCouplingKernels() {
    switch (chosenInstructionSet()) {
#ifdef OPENMMFLOW_X86
        case InstructionSet::AVX512: return avx512Kernels<Real>();
        case InstructionSet::AVX2: return avx2Kernels<Real>();
#endif
        default: return baselineKernels<Real>();
    }
}

const GeometryKernels& selectGeometryKernels() {
    switch (chosenInstructionSet()) {
#ifdef OPENMMFLOW_X86
        case InstructionSet::AVX512: return avx512GeometryKernels();
        case InstructionSet::AVX2: return avx2GeometryKernels();
#endif
        default: return baselineGeometryKernels();
    }
}

template const CouplingKernels<float>& selectCouplingKernels<float>();
template const CouplingKernels<double>& selectCouplingKernels<double>();

} // namespace OpenMMFlow
