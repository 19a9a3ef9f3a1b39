// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_ARCHITECTUREVALIDATION_H_
#define OPENMMFLOW_ARCHITECTUREVALIDATION_H_

#include "model/Architecture.h"

namespace OpenMMFlow {

/**
 * Check everything in docs/model_format.md that does not depend on weights: the molecule, indices, domains, ranges of numbers.
 *
 * @throws FlowModelError  naming the place, what stands there, and what was expected
 */
void validateStructure(const Architecture& architecture);

/**
 * Check the stored distributions and the number of outputs of every conditioner. The structure must be valid and the tensors
 * attached.
 *
 * @throws FlowModelError  naming the tensor, what is wrong with it, and what was expected
 */
void validateWeights(const Architecture& architecture);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_ARCHITECTUREVALIDATION_H_
