// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_MOLECULECHECKS_H_
#define OPENMMFLOW_MOLECULECHECKS_H_

#include "FlowForce.h"

#include <openmm/System.h>

#include <vector>

namespace OpenMMFlow {

/**
 * The molecules that a force has in a System: those added to it or, if there are none, all particles as one.
 * OpenMMException unless each has the model's number of particles, all in range and none twice in the force.
 */
std::vector<std::vector<int>> resolveMolecules(const FlowForce& force, const OpenMM::System& system);

/** OpenMMException if a particle of a molecule is massless, a virtual site, or part of a Drude oscillator. */
void checkParticles(const std::vector<std::vector<int>>& molecules, const OpenMM::System& system);

/**
 * OpenMMException if the constraints of the System differ from those of the model: within a molecule by their pairs or, by more
 * than a relative 1e-4, in their distances; or if one ties a molecule to another particle.
 */
void checkConstraints(const FlowModel& model, const std::vector<std::vector<int>>& molecules, const OpenMM::System& system);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_MOLECULECHECKS_H_
