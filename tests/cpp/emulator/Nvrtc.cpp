// SPDX-License-Identifier: MIT
// CUDA's compiler of kernels: what it calls PTX is the path of a library, which the driver next to it loads.
#include "KernelCompiler.h"

#include <nvrtc.h>

#include <cstring>
#include <exception>
#include <string>

struct _nvrtcProgram {
    std::string source, code, log;
};

namespace {

nvrtcResult size(const std::string& text, size_t* size) {
    *size = text.size()+1;
    return NVRTC_SUCCESS;
}

nvrtcResult copy(const std::string& text, char* target) {
    std::strcpy(target, text.c_str());
    return NVRTC_SUCCESS;
}

} // namespace

extern "C" {

const char* nvrtcGetErrorString(nvrtcResult result) {
    return result == NVRTC_SUCCESS ? "no error" : "the kernels could not be compiled";
}

nvrtcResult nvrtcGetNumSupportedArchs(int* number) {
    *number = 1;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetSupportedArchs(int* architectures) {
    *architectures = 90;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCreateProgram(nvrtcProgram* program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new _nvrtcProgram{source, "", ""};
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
    delete *program;
    *program = nullptr;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int, const char* const*) {
    try {
        program->code = emulator::compileKernels(program->source, emulator::Language::Cuda).string();
        return NVRTC_SUCCESS;
    }
    catch (const std::exception& error) {
        program->log = error.what();
        return NVRTC_ERROR_COMPILATION;
    }
}

nvrtcResult nvrtcGetPTXSize(nvrtcProgram program, size_t* number) {
    return size(program->code, number);
}

nvrtcResult nvrtcGetPTX(nvrtcProgram program, char* text) {
    return copy(program->code, text);
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t* number) {
    return size(program->log, number);
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* text) {
    return copy(program->log, text);
}

} // extern "C"
