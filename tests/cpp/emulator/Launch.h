// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EMULATOR_LAUNCH_H_
#define OPENMMFLOW_EMULATOR_LAUNCH_H_

#include <string>

namespace emulator {

/** Compiled kernels, loaded. */
class Module {
public:
    using Kernel = void (*)(void** arguments);

    /**
     * @param library  by compileKernels
     * @throws std::runtime_error if it cannot be loaded
     */
    explicit Module(const std::string& library);

    /** nullptr if there is none of this name. */
    Kernel kernel(const std::string& name) const;

    /** Give local memory contents that no kernel may count on. */
    void spoilLocalMemory() const;

private:
    void* handle;
    char *localBegin, *localEnd;
};

struct LaunchShape {
    unsigned int gridSize, blockSize, dynamicBytes, warpSize;
    bool warpsMayBranch;    // whether one part of a warp may exchange numbers while the other waits for the block
};

/**
 * Run a kernel to its end, block after block. The work-items of a block are fibers, which run in another, random order after each barrier, so
 * that results differ if a barrier is missing. One launch runs at a time.
 *
 * @throws std::runtime_error if not all work-items of a block come to the same kind of barrier
 */
void launch(const Module& module, Module::Kernel kernel, LaunchShape shape, void** arguments);

} // namespace emulator

#endif // OPENMMFLOW_EMULATOR_LAUNCH_H_
