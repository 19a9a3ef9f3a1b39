// SPDX-License-Identifier: MIT
// HIP's compiler of kernels, as far as OpenMM uses it. Declarations are written out, as in HipRuntime.cpp.
#include "Program.h"

using emulator::Program;

namespace {

/** hiprtcResult */
enum Result {
    Success = 0, CompilationFailed = 6
};

} // namespace

extern "C" {

const char* hiprtcGetErrorString(int result) {
    return result == Success ? "no error" : "the kernels could not be compiled";
}

int hiprtcCreateProgram(Program** program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new Program{source, "", ""};
    return Success;
}

int hiprtcDestroyProgram(Program** program) {
    delete *program;
    *program = nullptr;
    return Success;
}

int hiprtcAddNameExpression(Program*, const char*) {
    return Success;
}

int hiprtcCompileProgram(Program* program, int, const char* const*) {
    return program->compile(emulator::Language::Hip) ? Success : CompilationFailed;
}

int hiprtcGetCodeSize(const Program* program, std::size_t* size) {
    *size = emulator::sizeOf(program->code);
    return Success;
}

int hiprtcGetCode(const Program* program, char* text) {
    emulator::copy(program->code, text);
    return Success;
}

int hiprtcGetProgramLogSize(const Program* program, std::size_t* size) {
    *size = emulator::sizeOf(program->log);
    return Success;
}

int hiprtcGetProgramLog(const Program* program, char* text) {
    emulator::copy(program->log, text);
    return Success;
}

} // extern "C"
