// SPDX-License-Identifier: MIT
#include "internal/MoleculeGatherer.h"

#include <cmath>

using OpenMM::Vec3;

namespace OpenMMFlow {

MoleculeGatherer::MoleculeGatherer(const Architecture& architecture) {
    std::vector<std::vector<int>> neighbours(architecture.numParticles);
    for (const auto& bond : architecture.bonds) {
        neighbours[bond[0]].push_back(bond[1]);
        neighbours[bond[1]].push_back(bond[0]);
    }
    std::vector<bool> reached(architecture.numParticles, false);
    std::vector<int> queue = {0};
    reached[0] = true;
    for (std::size_t next = 0; next < queue.size(); next++) {
        int parent = queue[next];
        for (int child : neighbours[parent])
            if (!reached[child]) {
                reached[child] = true;
                queue.push_back(child);
                tree.push_back({parent, child});
            }
    }
}

void MoleculeGatherer::gather(const std::vector<Vec3>& positions, const std::vector<int>& particles, const Vec3* boxVectors,
        double* moleculePositions) const {
    for (std::size_t i = 0; i < particles.size(); i++)
        for (int k = 0; k < 3; k++)
            moleculePositions[3*i+k] = positions[particles[i]][k];
    if (boxVectors == nullptr)
        return;
    for (const TreeBond& bond : tree) {
        const double* parent = moleculePositions+3*bond.parent;
        double* child = moleculePositions+3*bond.child;
        Vec3 difference(child[0]-parent[0], child[1]-parent[1], child[2]-parent[2]);
        // In reduced form each vector is the only one left with a component along its axis, when taken from c to a.
        Vec3 shift;
        for (int axis = 2; axis >= 0; axis--) {
            Vec3 images = boxVectors[axis]*std::floor(difference[axis]/boxVectors[axis][axis]+0.5);
            difference -= images;
            shift += images;
        }
        for (int k = 0; k < 3; k++)
            child[k] -= shift[k];
    }
}

} // namespace OpenMMFlow
