// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DEVICEFEATURES_H_
#define OPENMMFLOW_DEVICEFEATURES_H_

#include <openmm/common/ComputeContext.h>

namespace OpenMMFlow {

/** What a device has that OpenMM's common compute layer does not tell of. */
struct DeviceFeatures {
    bool warps = false;        // work-items of a warp can exchange numbers
    int largestCluster = 1;    // so many groups can write into each other's local memory: a power of two
};

using FeaturesOf = DeviceFeatures (*)(OpenMM::ComputeContext& context);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DEVICEFEATURES_H_
