// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EMULATOR_WORKITEM_H_
#define OPENMMFLOW_EMULATOR_WORKITEM_H_

namespace emulator {

/** Along x; the other two directions, which OpenMM does not use, are there for the language. */
struct Index {
    unsigned int x, y, z;
};

/** What a kernel sees of the device: the work-item that runs, one at a time. */
struct WorkItem {
    Index thread, block, blockSize, gridSize;
    void* dynamicMemory;       // local memory whose size is that of the launch
    void (*waitForBlock)();
    void (*waitForWarp)();
    char* (*warpSlots)();      // 16 bytes for each work-item of the warp
    void (*arriveAtCluster)();
    void (*waitForCluster)();
    void* (*localMemoryOf)(const void* pointer, unsigned int rank);    // the same place in another block of the cluster
};

} // namespace emulator

#endif // OPENMMFLOW_EMULATOR_WORKITEM_H_
