// SPDX-License-Identifier: MIT
#include "LocalMemory.h"

#include <algorithm>

namespace OpenMMFlow {

static int roundUp(int number, int multiple) {
    return (number+multiple-1)/multiple*multiple;
}

LocalMemory::LocalMemory(const FlowForce& force, DevicePlan::Shape shape, int available, int realSize, int mixedSize) {
    const DevicePlan plan(force, shape);
    variant.tile = shape.tile;
    variant.parts = plan.parts;
    variant.groupSize = shape.groupSize;
    variant.slices = plan.slices;
    variant.cluster = shape.cluster;
    // Numbers are rounded up, so that compilers find what they have compiled before. What is kept apart adds two operations to a coupling.
    const int mostNumbers = static_cast<int>(plan.table.size()+plan.numCouplings*2*sizeof(FlowOperation)/sizeof(int));
    tableNumbers = roundUp(mostNumbers, 256);
    numConstants = roundUp(static_cast<int>(plan.constants.size()), 128);
    const int tableBytes = tableNumbers*static_cast<int>(sizeof(int))+numConstants*mixedSize;
    if (tableBytes > available)
        return;
    variant.numTableNumbers = tableNumbers;
    variant.numConstants = numConstants;
    bytes = tableBytes;
    for (bool apart : {false, true}) {
        shape.keepsApart = apart;
        const FlowLayout layout = DevicePlan(force, shape).layout;
        const int mixedRows = roundUp(layout.numMixedRows, 64), realRows = roundUp(std::max(layout.numRealRows, 1), 256);
        const int arenaBytes = shape.tile*(mixedRows*mixedSize+realRows*realSize);
        if (tableBytes+arenaBytes > available)
            continue;
        variant.numMixedRows = mixedRows;
        variant.numRealRows = realRows;
        variant.keptIsGlobal = apart;
        bytes = tableBytes+arenaBytes;
        return;
    }
}

} // namespace OpenMMFlow
