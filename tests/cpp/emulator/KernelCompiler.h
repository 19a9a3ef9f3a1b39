// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EMULATOR_KERNELCOMPILER_H_
#define OPENMMFLOW_EMULATOR_KERNELCOMPILER_H_

#include <filesystem>
#include <string>

namespace emulator {

/** Of whose language kernels are. */
enum class Language {
    Cuda, Hip
};

/**
 * Compile kernels for the processor. What was compiled once is kept for other processes.
 *
 * @return a shared library, for Module
 * @throws std::runtime_error with what the compiler said
 */
std::filesystem::path compileKernels(const std::string& source, Language language);

/** Whether a library is there and newer than what compileKernels puts into it. */
bool isUpToDate(const std::filesystem::path& library);

} // namespace emulator

#endif // OPENMMFLOW_EMULATOR_KERNELCOMPILER_H_
