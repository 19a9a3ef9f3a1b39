// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_LOGPROBBOUND_H_
#define OPENMMFLOW_LOGPROBBOUND_H_

#include "model/Architecture.h"

namespace OpenMMFlow {

/**
 * A lower bound of ln p on the support, up to the logarithms of bonds and sines: from the edges of the marginals, normal distributions
 * within 8 standard deviations, and the floors of the couplings' components. Exact for a closed form in density direction, of that
 * order for its inverse.
 */
double logProbLowerBound(const Architecture& architecture);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_LOGPROBBOUND_H_
