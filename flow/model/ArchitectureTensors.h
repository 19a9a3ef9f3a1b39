// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_ARCHITECTURETENSORS_H_
#define OPENMMFLOW_ARCHITECTURETENSORS_H_

#include "model/Architecture.h"

#include <map>
#include <string>

namespace OpenMMFlow {

/** All tensors of an architecture by their name in files: layers.L.networks.N.M.weight, ... */
std::map<std::string, const Tensor*> namedTensors(const Architecture& architecture);

/**
 * Give an architecture its weights.
 *
 * @param architecture  in, with the shapes of readArchitecture and a valid structure; out, with its tensors
 * @param tensors       by name; moved from
 * @throws FlowModelError  a tensor is missing, unknown, of another shape, or has values that are not finite
 */
void attachTensors(Architecture& architecture, std::map<std::string, Tensor> tensors);

/** The number of features that the networks of a coupling read; domains are those before the coupling. */
int numFeatures(const CouplingLayer& coupling, const std::vector<Domain>& domains);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_ARCHITECTURETENSORS_H_
