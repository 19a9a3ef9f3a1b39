// SPDX-License-Identifier: MIT
#include "model/TopologyValidation.h"
#include "model/Failure.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>

using namespace OpenMMFlow;
using namespace std;

namespace {

string describeRow(const array<int, 4>& row) {
    return "["+to_string(row[0])+", "+to_string(row[1])+", "+to_string(row[2])+", "+to_string(row[3])+"]";
}

/** The number of particles in a row, which -1 must only follow. */
int rowLength(const array<int, 4>& row, size_t index, int numParticles) {
    int length = (int) (find(row.begin(), row.end(), -1)-row.begin());
    for (int n = 0; n < 4; n++) {
        if (n >= length && row[n] != -1)
            fail("zMatrix[", index, "] is ", describeRow(row), "; -1 may only stand at the end of a row");
        if (n < length && (row[n] < 0 || row[n] >= numParticles))
            fail("zMatrix[", index, "] is ", describeRow(row), ", but there is no particle ", row[n], " in a molecule of ",
                    numParticles);
        if (n < length && count(row.begin(), row.begin()+length, row[n]) > 1)
            fail("zMatrix[", index, "] is ", describeRow(row), ": particle ", row[n], " stands in it twice");
    }
    if (length == 0)
        fail("zMatrix[", index, "] places no particle");
    return length;
}

/** Raise unless all rows can be placed one after the other, each from particles that have been placed or stand already. */
void checkPlaceable(const vector<array<int, 4>>& zMatrix, int numParticles, const vector<int>& standing) {
    const size_t numRows = zMatrix.size();
    vector<vector<size_t>> dependents(numParticles);    // [particle] rows that are placed from it
    vector<int> missing(numRows, 0);                    // [row] particles that must be placed first
    vector<size_t> ready;
    for (size_t r = 0; r < numRows; r++) {
        for (int n = 1; n < 4 && zMatrix[r][n] >= 0; n++) {
            if (find(standing.begin(), standing.end(), zMatrix[r][n]) != standing.end())
                continue;
            dependents[zMatrix[r][n]].push_back(r);
            missing[r]++;
        }
        if (missing[r] == 0)
            ready.push_back(r);
    }
    size_t numPlaced = 0;
    while (!ready.empty()) {
        size_t row = ready.back();
        ready.pop_back();
        numPlaced++;
        for (size_t dependent : dependents[zMatrix[row][0]])
            if (--missing[dependent] == 0)
                ready.push_back(dependent);
    }
    if (numPlaced == numRows)
        return;
    size_t stuck = find_if(missing.begin(), missing.end(), [](int m) { return m > 0; })-missing.begin();
    fail("the Z-matrix has a cycle: zMatrix[", stuck, "], ", describeRow(zMatrix[stuck]),
            ", cannot be placed, because it depends on particles that depend on particle ", zMatrix[stuck][0],
            " or on another cycle. Every row must lead back to the ", standing.empty() ? "frame" : "block");
}

/** That no other row places the particle of row r; rowOf[particle] is which one did, or -1. */
void checkPlacedOnce(const vector<array<int, 4>>& zMatrix, size_t r, vector<int>& rowOf) {
    int& row = rowOf[zMatrix[r][0]];
    if (row >= 0)
        fail("zMatrix[", r, "] places particle ", zMatrix[r][0], ", which zMatrix[", row, "] places already");
    row = (int) r;
}

void checkPair(int particle1, int particle2, int numParticles, const string& where, set<pair<int, int>>& seen) {
    for (int particle : {particle1, particle2})
        if (particle < 0 || particle >= numParticles)
            fail(where, " names particle ", particle, ", but the molecule has the particles 0 to ", numParticles-1);
    if (particle1 == particle2)
        fail(where, " is of particle ", particle1, " with itself");
    if (!seen.insert(minmax({particle1, particle2})).second)
        fail(where, " repeats the pair of particles ", particle1, " and ", particle2, "; name each pair once");
}

} // namespace

void OpenMMFlow::validateZMatrix(const vector<array<int, 4>>& zMatrix, int numParticles) {
    if (zMatrix.size() != (size_t) numParticles)
        fail("zMatrix has ", zMatrix.size(), " rows, expected one for each of the ", numParticles, " particles");
    const array<int, 4>* frame[4] = {};    // by the number of particles in the row
    vector<int> rowOf(numParticles, -1);
    for (size_t r = 0; r < zMatrix.size(); r++) {
        const array<int, 4>& row = zMatrix[r];
        int length = rowLength(row, r, numParticles);
        checkPlacedOnce(zMatrix, r, rowOf);
        if (length < 4) {
            if (frame[length] != nullptr)
                fail("zMatrix has more than one row with ", 4-length,
                        " entries of -1; expected one each with three, two and one");
            frame[length] = &row;
        }
    }
    for (int length = 1; length < 4; length++)
        if (frame[length] == nullptr)
            fail("zMatrix has no row with ", 4-length,
                    " entries of -1; expected one each with three, two and one, for the frame");
    int f0 = (*frame[1])[0], f1 = (*frame[2])[0];
    if ((*frame[2])[1] != f0)
        fail("the second frame atom is placed by ", describeRow(*frame[2]), ", expected the first one, ", f0,
                ", in second place");
    if (minmax({(*frame[3])[1], (*frame[3])[2]}) != minmax({f0, f1}))
        fail("the third frame atom is placed by ", describeRow(*frame[3]), ", expected the frame atoms ", f0, " and ", f1,
                " in second and third place");
    checkPlaceable(zMatrix, numParticles, {});
}

void OpenMMFlow::validateMixedCoordinates(const MixedCoordinatesLayer& layer, int numParticles, Measure measure) {
    const int numBlock = (int) layer.block.size();
    if (numBlock < 3)
        fail("block has ", numBlock, " particles, expected at least 3");
    vector<char> inBlock(numParticles, false);
    for (int particle : layer.block) {
        if (particle < 0 || particle >= numParticles)
            fail("block names particle ", particle, ", but the molecule has the particles 0 to ", numParticles-1);
        if (inBlock[particle])
            fail("block names particle ", particle, " a second time");
        inBlock[particle] = true;
    }
    const int aligned = 3*numBlock-6;
    if (measure == Measure::Cartesian && layer.blockDimensions != aligned)
        fail("blockDimensions is ", layer.blockDimensions, ", expected ", aligned, " for a block of ", numBlock,
                " particles: in measure \"cartesian\" it is aligned to the reference");
    if (layer.blockDimensions < 1 || layer.blockDimensions > 3*numBlock)
        fail("blockDimensions is ", layer.blockDimensions, ", expected 1 to ", 3*numBlock, " for a block of ", numBlock, " particles");
    vector<int> rowOf(numParticles, -1);
    for (size_t r = 0; r < layer.zMatrix.size(); r++) {
        const array<int, 4>& row = layer.zMatrix[r];
        if (rowLength(row, r, numParticles) != 4)
            fail("zMatrix[", r, "] is ", describeRow(row), "; with a block in Cartesian coordinates all rows are full");
        if (inBlock[row[0]])
            fail("zMatrix[", r, "] places particle ", row[0], ", which is in the block");
        checkPlacedOnce(layer.zMatrix, r, rowOf);
    }
    for (int particle = 0; particle < numParticles; particle++)
        if (!inBlock[particle] && rowOf[particle] < 0)
            fail("particle ", particle, " is not in the block, and no row of zMatrix places it");
    checkPlaceable(layer.zMatrix, numParticles, layer.block);
}

void OpenMMFlow::validateBonds(const vector<array<int, 2>>& bonds, int numParticles) {
    // Union-find over the particles.
    vector<int> parent(numParticles);
    iota(parent.begin(), parent.end(), 0);
    auto root = [&](int particle) {
        while (parent[particle] != particle)
            particle = parent[particle] = parent[parent[particle]];
        return particle;
    };
    set<pair<int, int>> seen;
    for (size_t b = 0; b < bonds.size(); b++) {
        checkPair(bonds[b][0], bonds[b][1], numParticles, "bonds["+to_string(b)+"]", seen);
        parent[root(bonds[b][0])] = root(bonds[b][1]);
    }
    for (int particle = 1; particle < numParticles; particle++)
        if (root(particle) != root(0))
            fail("the bonds do not connect the molecule: there is no path from particle 0 to particle ", particle,
                    ". Add bonds (pseudo-bonds will do) until all particles are connected");
}

void OpenMMFlow::validateConstraints(const vector<DistanceConstraint>& constraints, int numParticles) {
    set<pair<int, int>> seen;
    for (size_t c = 0; c < constraints.size(); c++) {
        const string where = "constraints["+to_string(c)+"]";
        checkPair(constraints[c].particle1, constraints[c].particle2, numParticles, where, seen);
        if (!(constraints[c].distance > 0))
            fail(where, " has the distance ", constraints[c].distance, " nm, which must be positive");
    }
}
