// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EMULATOR_PROGRAM_H_
#define OPENMMFLOW_EMULATOR_PROGRAM_H_

#include "KernelCompiler.h"

#include <cstring>
#include <exception>
#include <string>

namespace emulator {

/** What a compiler is given and gives back; its code is the path of a library, which the driver loads. */
struct Program {
    std::string source, code, log;

    /** @return whether there is code; otherwise the log says why */
    bool compile(Language language) {
        try {
            code = compileKernels(source, language).string();
            return true;
        }
        catch (const std::exception& error) {
            log = error.what();
            return false;
        }
    }
};

/** What a program asks for first: the bytes of a text. */
inline std::size_t sizeOf(const std::string& text) {
    return text.size()+1;
}

/** And then: the text. */
inline void copy(const std::string& text, char* target) {
    std::memcpy(target, text.c_str(), sizeOf(text));
}

} // namespace emulator

#endif // OPENMMFLOW_EMULATOR_PROGRAM_H_
