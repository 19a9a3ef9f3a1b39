// SPDX-License-Identifier: MIT
// CUDA's compiler of kernels, as far as OpenMM uses it.
#include "Program.h"

#include <nvrtc.h>

struct _nvrtcProgram : emulator::Program {
};

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
    *program = new _nvrtcProgram{{source, "", ""}};
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcDestroyProgram(nvrtcProgram* program) {
    delete *program;
    *program = nullptr;
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcCompileProgram(nvrtcProgram program, int, const char* const*) {
    return program->compile(emulator::Language::Cuda) ? NVRTC_SUCCESS : NVRTC_ERROR_COMPILATION;
}

nvrtcResult nvrtcGetPTXSize(nvrtcProgram program, size_t* size) {
    *size = emulator::sizeOf(program->code);
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetPTX(nvrtcProgram program, char* text) {
    emulator::copy(program->code, text);
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLogSize(nvrtcProgram program, size_t* size) {
    *size = emulator::sizeOf(program->log);
    return NVRTC_SUCCESS;
}

nvrtcResult nvrtcGetProgramLog(nvrtcProgram program, char* text) {
    emulator::copy(program->log, text);
    return NVRTC_SUCCESS;
}

} // extern "C"
