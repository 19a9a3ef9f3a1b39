// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FUZZTARGET_H_
#define OPENMMFLOW_FUZZTARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>

/**
 * What libFuzzer, and StandaloneFuzzer.cpp where there is none, call with each input (https://llvm.org/docs/LibFuzzer.html). Returns 0; whatever an
 * input must not do ends the process: a signal, an exception that nobody expects, a broken requirement, a sanitizer's report.
 */
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace OpenMMFlow {

/** Ends the process unless a condition holds. */
inline void require(bool condition, const char* what) {
    if (condition)
        return;
    std::cerr << "violated: " << what << std::endl;
    std::abort();
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FUZZTARGET_H_
