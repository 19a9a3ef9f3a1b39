// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EMULATEDKERNEL_H_
#define OPENMMFLOW_EMULATEDKERNEL_H_

#include "FlowForce.h"

#include <openmm/Vec3.h>

#include <cstdint>
#include <vector>

namespace OpenMMFlow {

/** What the device kernel adds for one molecule. */
struct KernelResult {
    double energy;                       // kJ/mol
    std::vector<OpenMM::Vec3> forces;    // kJ/mol/nm
};

/** The precision of networks and transformers, and of geometry and sums. */
enum class KernelPrecision {
    Single, Mixed, Double
};

/**
 * The device kernel, the same text that GPUs compile, run as C++ by one work-item, with FastFloat in place of float.
 *
 * @param positions  of one molecule, in the order of the model
 * @param seed       of the random signs of fast math's errors
 */
KernelResult emulatedKernel(const FlowForce& force, const std::vector<OpenMM::Vec3>& positions, KernelPrecision precision,
        std::uint64_t seed);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_EMULATEDKERNEL_H_
