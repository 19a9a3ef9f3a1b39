// SPDX-License-Identifier: MIT
#include "engine/InternalCoordinates.h"
#include "formulas/Formulas.h"

#include <algorithm>
#include <cmath>

using namespace OpenMMFlow;
using namespace std;

using F = Formulas<double>;

static const double PI = 3.14159265358979323846;

InternalCoordinates::InternalCoordinates(const vector<array<int, 4>>& zMatrix, int numParticles, Measure measure) :
        numParticles(numParticles), measure(measure) {
    // The frame atoms first, whatever the order of their rows.
    for (int numReferences : {1, 2})
        for (const array<int, 4>& row : zMatrix)
            if (3-count(row.begin()+1, row.end(), -1) == numReferences) {
                bondAtoms.push_back({row[0], row[1]});
                if (numReferences == 2)
                    angleAtoms.push_back({row[0], row[1], row[2]});
            }
    for (const array<int, 4>& row : zMatrix)
        if (row[3] != -1) {
            bondAtoms.push_back({row[0], row[1]});
            angleAtoms.push_back({row[0], row[1], row[2]});
            torsionAtoms.push_back(row);
        }
    vector<bool> placed(numParticles, false);
    for (int atom : {bondAtoms[0][0], bondAtoms[0][1], bondAtoms[1][0]})
        placed[atom] = true;
    while (placementOrder.size() < torsionAtoms.size())
        for (int i = 0; i < static_cast<int>(torsionAtoms.size()); i++) {
            const array<int, 4>& row = torsionAtoms[i];
            if (!placed[row[0]] && placed[row[1]] && placed[row[2]] && placed[row[3]]) {
                placed[row[0]] = true;
                placementOrder.push_back(i);
            }
        }
    // Angles are divided by pi, torsions by 2 pi; the uniform orientation of the frame has density 1/(8 pi^2).
    logConstant = -log(PI)*angleAtoms.size()-log(2*PI)*torsionAtoms.size();
    if (measure == Measure::Cartesian)
        logConstant -= log(8*PI*PI);
}

void InternalCoordinates::describe(GeometryPlan& plan) const {
    plan.numParticles = numParticles;
    plan.bonds = bondAtoms.data()->data();
    plan.angles = angleAtoms.data()->data();
    plan.torsions = (torsionAtoms.empty() ? nullptr : torsionAtoms.data()->data());
    plan.cartesian = (measure == Measure::Cartesian);
    plan.logConstant = logConstant;
}

static F::Vector position(const double* positions, int atom) {
    return {positions[3*atom], positions[3*atom+1], positions[3*atom+2]};
}

double InternalCoordinates::place(const double* coordinates, double* positions) const {
    const double* bonds = coordinates;
    const double* angles = bonds+bondAtoms.size();
    const double* torsions = angles+angleAtoms.size();
    const auto put = [&](int atom, const F::Vector& r) {
        positions[3*atom] = r.x;
        positions[3*atom+1] = r.y;
        positions[3*atom+2] = r.z;
    };
    const double b0 = bonds[0], b1 = bonds[1], angle = PI*angles[0];
    // The third frame atom may hang on either of the other two.
    const bool onSecond = (bondAtoms[1][1] == bondAtoms[0][0]);
    put(bondAtoms[0][1], {0, 0, 0});
    put(bondAtoms[0][0], {b0, 0, 0});
    put(bondAtoms[1][0], {onSecond ? b0-b1*cos(angle) : b1*cos(angle), b1*sin(angle), 0});
    double logDet = logConstant-(measure == Measure::Cartesian ? 2*log(b0)+2*log(b1)+log(sin(angle)) : log(b1));
    for (int i : placementOrder) {
        const array<int, 4>& row = torsionAtoms[i];
        const double b = bonds[i+2], theta = PI*angles[i+1];
        put(row[0], F::placeAtom(position(positions, row[1]), position(positions, row[2]), position(positions, row[3]),
                b, theta, 2*PI*torsions[i]-PI));
        logDet -= 2*log(b)+log(sin(theta));
    }
    return logDet;
}
