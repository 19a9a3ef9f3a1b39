// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_CONDITIONERBOUND_H_
#define OPENMMFLOW_CONDITIONERBOUND_H_

#include "model/Architecture.h"

#include <utility>
#include <vector>

namespace OpenMMFlow {

/**
 * A bound of the absolute values of what the networks of a coupling return, by interval arithmetic: never too small, and wide.
 *
 * @param domains  of all coordinates before the layer
 * @param ranges   least and largest value of each coordinate; not used for those on circles
 */
double largestRawParameter(const CouplingLayer& coupling, const std::vector<Domain>& domains,
        const std::vector<std::pair<double, double>>& ranges);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_CONDITIONERBOUND_H_
