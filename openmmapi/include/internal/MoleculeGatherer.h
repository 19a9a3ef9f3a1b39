// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_MOLECULEGATHERER_H_
#define OPENMMFLOW_MOLECULEGATHERER_H_

#include "model/Architecture.h"

#include <openmm/Vec3.h>

#include <vector>

namespace OpenMMFlow {

/**
 * Gathers the positions of a molecule out of those of a System and, if asked to, makes it whole along the bonds of its model.
 * Immutable; nothing is allocated after construction.
 */
class MoleculeGatherer {
public:
    /** A bond of a spanning tree of the bond graph. */
    struct TreeBond {
        int parent, child;
    };

    explicit MoleculeGatherer(const Architecture& architecture);
    /**
     * Positions of one molecule.
     *
     * A molecule is made whole by moving each particle by whole box vectors next to the one that it is bonded to, beginning
     * with the first particle of the model, which stays. Positions that are whole come out bit for bit.
     *
     * @param positions     of all particles of the System, nm
     * @param particles     (numParticles) indices, in the order of the model
     * @param boxVectors    the three periodic box vectors, nm, in OpenMM's reduced form; null to take positions as they are
     * @param moleculePositions  out, (numParticles, 3), nm
     */
    void gather(const std::vector<OpenMM::Vec3>& positions, const std::vector<int>& particles, const OpenMM::Vec3* boxVectors,
            double* moleculePositions) const;

    const std::vector<TreeBond>& getTree() const {
        return tree;
    }

private:
    /** Each parent is the first particle or a child further up. */
    std::vector<TreeBond> tree;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_MOLECULEGATHERER_H_
