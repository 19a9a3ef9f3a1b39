// SPDX-License-Identifier: MIT
#include "engine/InternalCoordinates.h"
#include "formulas/Formulas.h"

#include <algorithm>
#include <cmath>

using namespace OpenMMFlow;
using namespace std;

using F = Formulas<double>;

static const double PI = 3.14159265358979323846;

InternalCoordinates::InternalCoordinates(const Architecture& architecture) :
        numParticles(architecture.numParticles), measure(architecture.measure), logConstant(0) {
    vector<bool> placed(numParticles, false);
    if (const MixedCoordinatesLayer* mixed = get_if<MixedCoordinatesLayer>(&architecture.layers.front())) {
        block.emplace(*mixed, measure);
        for (int atom : mixed->block)
            placed[atom] = true;
        addRows(mixed->zMatrix, placed);
    }
    else {
        const vector<array<int, 4>>& zMatrix = get<InternalCoordinatesLayer>(architecture.layers.front()).zMatrix;
        // The frame atoms first, whatever the order of their rows.
        for (int numReferences : {1, 2})
            for (const array<int, 4>& row : zMatrix)
                if (3-count(row.begin()+1, row.end(), -1) == numReferences) {
                    bondAtoms.push_back({row[0], row[1]});
                    if (numReferences == 2)
                        angleAtoms.push_back({row[0], row[1], row[2]});
                }
        for (int atom : {bondAtoms[0][0], bondAtoms[0][1], bondAtoms[1][0]})
            placed[atom] = true;
        addRows(zMatrix, placed);
        // The uniform orientation of the frame has density 1/(8 pi^2).
        if (measure == Measure::Cartesian)
            logConstant -= log(8*PI*PI);
    }
    // Angles are divided by pi, torsions by 2 pi.
    logConstant -= log(PI)*angleAtoms.size()+log(2*PI)*torsionAtoms.size();
}

/** The full ones of the rows, in the order in which atoms can be placed from those that are. */
void InternalCoordinates::addRows(const vector<array<int, 4>>& rows, vector<bool> placed) {
    for (const array<int, 4>& row : rows)
        if (row[3] != -1) {
            bondAtoms.push_back({row[0], row[1]});
            angleAtoms.push_back({row[0], row[1], row[2]});
            torsionAtoms.push_back(row);
        }
    while (placementOrder.size() < torsionAtoms.size())
        for (int i = 0; i < static_cast<int>(torsionAtoms.size()); i++) {
            const array<int, 4>& row = torsionAtoms[i];
            if (!placed[row[0]] && placed[row[1]] && placed[row[2]] && placed[row[3]]) {
                placed[row[0]] = true;
                placementOrder.push_back(i);
            }
        }
}

void InternalCoordinates::describe(GeometryPlan& plan) const {
    plan.numParticles = numParticles;
    plan.numBonds = static_cast<int>(bondAtoms.size());
    plan.numAngles = static_cast<int>(angleAtoms.size());
    plan.numTorsions = static_cast<int>(torsionAtoms.size());
    plan.hasFrame = !block;
    plan.bonds = (bondAtoms.empty() ? nullptr : bondAtoms.data()->data());
    plan.angles = (angleAtoms.empty() ? nullptr : angleAtoms.data()->data());
    plan.torsions = (torsionAtoms.empty() ? nullptr : torsionAtoms.data()->data());
    plan.cartesian = (measure == Measure::Cartesian);
    plan.logConstant = logConstant;
    plan.block = {};
    if (block)
        block->describe(plan);
}

static F::Vector position(const double* positions, int atom) {
    return {positions[3*atom], positions[3*atom+1], positions[3*atom+2]};
}

static void setPosition(double* positions, int atom, const F::Vector& r) {
    positions[3*atom] = r.x;
    positions[3*atom+1] = r.y;
    positions[3*atom+2] = r.z;
}

/** @return its part of ln|det| */
double InternalCoordinates::placeFrame(const double* bonds, const double* angles, double* positions) const {
    const double b0 = bonds[0], b1 = bonds[1], angle = PI*angles[0];
    // The third frame atom may hang on either of the other two.
    const bool onSecond = (bondAtoms[1][1] == bondAtoms[0][0]);
    setPosition(positions, bondAtoms[0][1], {0, 0, 0});
    setPosition(positions, bondAtoms[0][0], {b0, 0, 0});
    setPosition(positions, bondAtoms[1][0], {onSecond ? b0-b1*cos(angle) : b1*cos(angle), b1*sin(angle), 0});
    return measure == Measure::Cartesian ? -(2*log(b0)+2*log(b1)+log(sin(angle))) : -log(b1);
}

double InternalCoordinates::place(const double* coordinates, double* positions) const {
    const double* bonds = coordinates;
    const double* angles = bonds+bondAtoms.size();
    const double* torsions = angles+angleAtoms.size();
    double logDet = logConstant+(block ? block->place(torsions+torsionAtoms.size(), positions) :
            placeFrame(bonds, angles, positions));
    const int frame = (block ? 0 : 1);
    for (int i : placementOrder) {
        const array<int, 4>& row = torsionAtoms[i];
        const double b = bonds[i+2*frame], theta = PI*angles[i+frame];
        setPosition(positions, row[0], F::placeAtom(position(positions, row[1]), position(positions, row[2]),
                position(positions, row[3]), b, theta, 2*PI*torsions[i]-PI));
        logDet -= 2*log(b)+log(sin(theta));
    }
    return logDet;
}
