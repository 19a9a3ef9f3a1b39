// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_TRANSFORMERLAYOUT_H_
#define OPENMMFLOW_TRANSFORMERLAYOUT_H_

#include "model/Architecture.h"

#include <vector>

namespace OpenMMFlow {

/**
 * The order in which the outputs of a coupling's networks are evaluated for a FormulaTransformer. In the file a block of raw
 * parameters is (coordinates, rows); here it is (rows, coordinates), coordinates on circles after all others, as those two kinds may have
 * different numbers of parameters.
 */
struct TransformerLayout {
    /** @param domains  of all coordinates before the layer */
    TransformerLayout(const CouplingLayer& layer, const std::vector<Domain>& domains);

    /** The transformed coordinates, those on circles last. */
    std::vector<int> transformed;
    int numCircles;
    /** [network][output] which of its outputs stands at each place. */
    std::vector<std::vector<int>> outputs;
    /** Of all networks. */
    int numOutputs = 0;
    /** Of each parameter of a coordinate: where its outputs begin, for coordinates on circles and for the others. */
    std::vector<int> circleOffsets, otherOffsets;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TRANSFORMERLAYOUT_H_
