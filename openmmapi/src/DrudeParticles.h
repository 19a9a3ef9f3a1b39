// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DRUDEPARTICLES_H_
#define OPENMMFLOW_DRUDEPARTICLES_H_

#include <openmm/System.h>

#include <set>

namespace OpenMMFlow {

/** The Drude particles of all DrudeForces of a System and the particles that they belong to. */
std::set<int> drudeParticles(const OpenMM::System& system);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DRUDEPARTICLES_H_
