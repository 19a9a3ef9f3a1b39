// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EMULATOR_LAUNCH_H_
#define OPENMMFLOW_EMULATOR_LAUNCH_H_

#include <cstddef>
#include <string>

namespace emulator {

struct Kernel {
    void (*call)(void** arguments) = nullptr;    // for one work-item
    unsigned int cluster = 1;                    // blocks of a cluster
};

/** Compiled kernels, loaded. */
class Module {
public:
    /**
     * @param library  by compileKernels
     * @throws std::runtime_error if it cannot be loaded
     */
    explicit Module(const std::string& library);

    /** One without a function if there is none of this name. */
    Kernel kernel(const std::string& name) const;

    /** Local memory of the block that runs, as far as its size is that of the kernels. */
    char* localMemory() const {
        return localBegin;
    }
    std::size_t localSize() const {
        return localEnd-localBegin;
    }

private:
    void* handle;
    char *localBegin, *localEnd;
};

struct LaunchShape {
    unsigned int gridSize, blockSize, dynamicBytes, warpSize;
    bool warpsMayBranch;    // whether one part of a warp may exchange numbers while the other waits for the block
};

/**
 * Run a kernel to its end, cluster after cluster of blocks. The work-items of a block are fibers, which run in another, random order after each
 * barrier, as do the blocks of a cluster, so that results differ if a barrier is missing. One launch runs at a time.
 *
 * @throws std::runtime_error if not all work-items of a block or of a cluster come to the same kind of barrier, or one reaches for the local memory
 *                            of a block that has not begun or has ended
 */
void launch(const Module& module, const Kernel& kernel, LaunchShape shape, void** arguments);

} // namespace emulator

#endif // OPENMMFLOW_EMULATOR_LAUNCH_H_
