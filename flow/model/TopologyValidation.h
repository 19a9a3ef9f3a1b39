// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_TOPOLOGYVALIDATION_H_
#define OPENMMFLOW_TOPOLOGYVALIDATION_H_

#include "model/Architecture.h"

#include <array>
#include <vector>

/** Checks of what an architecture says about its molecule. Each throws FlowModelError. */
namespace OpenMMFlow {

/** Every particle is placed once, by a row of distinct particles, and without a cycle; three rows make the frame. */
void validateZMatrix(const std::vector<std::array<int, 4>>& zMatrix, int numParticles);

/** Every particle is in the block or placed once, by a full row of distinct particles, and without a cycle. */
void validateMixedCoordinates(const MixedCoordinatesLayer& layer, int numParticles, Measure measure);

/** Pairs of particles, none twice, that connect all of them. */
void validateBonds(const std::vector<std::array<int, 2>>& bonds, int numParticles);

/** Pairs of particles, none twice, with positive distances. */
void validateConstraints(const std::vector<DistanceConstraint>& constraints, int numParticles);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TOPOLOGYVALIDATION_H_
