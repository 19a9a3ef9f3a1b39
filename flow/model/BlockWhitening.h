// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_BLOCKWHITENING_H_
#define OPENMMFLOW_BLOCKWHITENING_H_

#include "model/Architecture.h"

#include <vector>

namespace OpenMMFlow {

/**
 * The block of mixed coordinates: w = W (a - r) of its B particles, and back. See docs/theory.md, "Mixed coordinates". In measure
 * "cartesian" the conformations a are aligned to r, so they lie in a space of 3B-6 dimensions.
 */
struct BlockWhitening {
    /** Throws FlowModelError if the reference lies on a line or the whitening has no inverse; `name` is that of the layer. */
    BlockWhitening(const MixedCoordinatesLayer& layer, Measure measure, const std::string& name);

    int numBlock, dimensions;
    bool aligned;
    /** (B, 3), nm; centred if aligned. */
    std::vector<double> reference;
    /** W: (dimensions, 3B), per nm; only the part in the space of aligned conformations, if aligned. */
    std::vector<double> whitening;
    /** Its inverse on that space: (3B, dimensions), nm. */
    std::vector<double> unwhitening;
    /** det A of the reference; 0 if not aligned. */
    double referenceDeterminant;
    /** ln|det| of the block, but for -ln det A if aligned. */
    double logDet;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_BLOCKWHITENING_H_
