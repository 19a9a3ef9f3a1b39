// SPDX-License-Identifier: MIT
#include "engine/GeometryKernels.h"

namespace OpenMMFlow {

const GeometryKernels& scalarGeometryKernels() {
    static constexpr GeometryKernels table = Geometry<double>::table();
    return table;
}

} // namespace OpenMMFlow
