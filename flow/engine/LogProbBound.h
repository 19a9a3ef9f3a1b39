// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_LOGPROBBOUND_H_
#define OPENMMFLOW_LOGPROBBOUND_H_

#include "model/Architecture.h"

namespace OpenMMFlow {

/**
 * A lower bound of ln p on the support, up to the logarithms of bonds and sines: from the edges of the marginals, normal distributions
 * within 8 standard deviations, and the smallest slopes of the transformers. Exact but for the inverse of a smooth mixture, for which it is
 * of the right order. Real coordinates with a normal base density have no edges: where they get to from bonds of up to 1 nm and from angles is
 * bounded by interval arithmetic.
 */
double logProbLowerBound(const Architecture& architecture);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_LOGPROBBOUND_H_
