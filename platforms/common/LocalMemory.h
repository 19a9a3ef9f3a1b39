// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_LOCALMEMORY_H_
#define OPENMMFLOW_LOCALMEMORY_H_

#include "DevicePlan.h"

namespace OpenMMFlow {

/**
 * What of a kernel lies in local memory, as much as there is room for: tables, for which operations wait one after the other; then what operations
 * work on; then what is kept for the way back, for which they wait once.
 */
struct LocalMemory {
    /**
     * @param available  bytes
     * @param realSize, mixedSize  bytes of a number in each arena
     */
    LocalMemory(const FlowForce& force, DevicePlan::Shape shape, int available, int realSize, int mixedSize);

    FlowKernelVariant variant;
    int bytes = 0;                     // of it
    int tableNumbers, numConstants;    // that the plan's are to be filled up to
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_LOCALMEMORY_H_
