// SPDX-License-Identifier: MIT
#include "engine/InternalCoordinates.h"

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
        for (int i = 0; i < getNumTorsions(); i++) {
            const array<int, 4>& row = torsionAtoms[i];
            if (!placed[row[0]] && placed[row[1]] && placed[row[2]] && placed[row[3]]) {
                placed[row[0]] = true;
                placementOrder.push_back(i);
            }
        }
    // Angles are divided by pi, torsions by 2 pi; the uniform orientation of the frame has density 1/(8 pi^2).
    logConstant = -getNumAngles()*log(PI)-getNumTorsions()*log(2*PI);
    if (measure == Measure::Cartesian)
        logConstant -= log(8*PI*PI);
}

InternalCoordinates::State InternalCoordinates::createState() const {
    State state;
    state.bonds.resize(getNumBonds());
    state.bondValues.resize(getNumBonds());
    state.bondGradient.resize(getNumBonds());
    state.angles.resize(getNumAngles());
    state.angleValues.resize(getNumAngles());
    state.angleGradient.resize(getNumAngles());
    state.angleCosineGradient.resize(getNumAngles());
    state.torsionAngles.resize(getNumTorsions());
    state.torsionAngleCosineGradient.resize(getNumTorsions());
    state.torsions.resize(getNumTorsions());
    state.torsionValues.resize(getNumTorsions());
    state.torsionGradient.resize(getNumTorsions());
    return state;
}

static F::Vector position(const double* positions, int atom) {
    return {positions[3*atom], positions[3*atom+1], positions[3*atom+2]};
}

void InternalCoordinates::computeBondsAndAngles(const double* positions, State& state) const {
    for (int i = 0; i < getNumBonds(); i++) {
        state.bonds[i] = F::bondLength(position(positions, bondAtoms[i][0]), position(positions, bondAtoms[i][1]));
        state.bondValues[i] = state.bonds[i].length;
    }
    for (int i = 0; i < getNumAngles(); i++) {
        const array<int, 3>& atoms = angleAtoms[i];
        state.angles[i] = F::bondAngle(position(positions, atoms[0]), position(positions, atoms[1]), position(positions, atoms[2]));
        state.angleValues[i] = atan2(state.angles[i].sine, state.angles[i].cosine);
    }
    for (int i = 0; i < getNumTorsions(); i++) {
        const array<int, 4>& atoms = torsionAtoms[i];
        state.torsionAngles[i] =
                F::bondAngle(position(positions, atoms[1]), position(positions, atoms[2]), position(positions, atoms[3]));
    }
}

void InternalCoordinates::computeTorsions(const double* positions, State& state) const {
    for (int i = 0; i < getNumTorsions(); i++) {
        const array<int, 4>& atoms = torsionAtoms[i];
        state.torsions[i] = F::torsion(position(positions, atoms[0]), position(positions, atoms[1]),
                position(positions, atoms[2]), position(positions, atoms[3]));
        state.torsionValues[i] = atan2(state.torsions[i].scaledSine, state.torsions[i].scaledCosine);
    }
}

double InternalCoordinates::normalize(const double* bonds, const double* angles, const double* torsions,
        double* coordinates) const {
    const int numBonds = getNumBonds(), numAngles = getNumAngles();
    for (int i = 0; i < numBonds; i++)
        coordinates[i] = bonds[i];
    for (int i = 0; i < numAngles; i++)
        coordinates[numBonds+i] = angles[i]/PI;
    for (int i = 0; i < getNumTorsions(); i++)
        coordinates[numBonds+numAngles+i] = (torsions[i]+PI)/(2*PI);
    return logDeterminant(bonds, angles);
}

double InternalCoordinates::logDeterminant(const double* bonds, const double* angles) const {
    const int numBonds = getNumBonds();
    double logDet = logConstant;
    for (int i = 2; i < numBonds; i++)
        logDet -= 2*log(bonds[i])+log(sin(angles[i-1]));
    if (measure == Measure::Cartesian)
        logDet -= 2*log(bonds[0])+2*log(bonds[1])+log(sin(angles[0]));
    else
        logDet -= log(bonds[1]);
    return logDet;
}

void InternalCoordinates::normalizeBackward(const double* bonds, const double* angles, const double* gradient,
        double* bondGradient, double* angleGradient, double* torsionGradient) const {
    const int numBonds = getNumBonds(), numAngles = getNumAngles();
    for (int i = 0; i < numBonds; i++)
        bondGradient[i] = gradient[i]-2/bonds[i];
    for (int i = 0; i < numAngles; i++)
        angleGradient[i] = gradient[numBonds+i]/PI-cos(angles[i])/sin(angles[i]);
    if (measure == Measure::Frame) {
        bondGradient[0] = gradient[0];
        bondGradient[1] = gradient[1]-1/bonds[1];
        angleGradient[0] = gradient[numBonds]/PI;
    }
    for (int i = 0; i < getNumTorsions(); i++)
        torsionGradient[i] = gradient[numBonds+numAngles+i]/(2*PI);
}

double InternalCoordinates::place(const double* coordinates, double* positions, State& state) const {
    const int numBonds = getNumBonds(), numAngles = getNumAngles();
    for (int i = 0; i < numBonds; i++)
        state.bondValues[i] = coordinates[i];
    for (int i = 0; i < numAngles; i++)
        state.angleValues[i] = PI*coordinates[numBonds+i];
    for (int i = 0; i < getNumTorsions(); i++)
        state.torsionValues[i] = 2*PI*coordinates[numBonds+numAngles+i]-PI;
    const auto put = [&](int atom, const F::Vector& r) {
        positions[3*atom] = r.x;
        positions[3*atom+1] = r.y;
        positions[3*atom+2] = r.z;
    };
    const double b0 = state.bondValues[0], b1 = state.bondValues[1], angle = state.angleValues[0];
    // The third frame atom may hang on either of the other two.
    const bool onSecond = (bondAtoms[1][1] == bondAtoms[0][0]);
    put(bondAtoms[0][1], {0, 0, 0});
    put(bondAtoms[0][0], {b0, 0, 0});
    put(bondAtoms[1][0], {onSecond ? b0-b1*cos(angle) : b1*cos(angle), b1*sin(angle), 0});
    for (int i : placementOrder) {
        const array<int, 4>& row = torsionAtoms[i];
        put(row[0], F::placeAtom(position(positions, row[1]), position(positions, row[2]), position(positions, row[3]),
                state.bondValues[i+2], state.angleValues[i+1], state.torsionValues[i]));
    }
    return logDeterminant(state.bondValues.data(), state.angleValues.data());
}

static void add(double* positions, int atom, double factor, const F::Vector& v) {
    positions[3*atom] += factor*v.x;
    positions[3*atom+1] += factor*v.y;
    positions[3*atom+2] += factor*v.z;
}

/** The gradient of the cosine of the angle at `atoms[1]`, spread over its atoms. */
static void addAngle(double* positions, int i, int j, int k, double factor, const F::Angle& angle) {
    add(positions, i, factor, angle.dI);
    add(positions, k, factor, angle.dK);
    add(positions, j, -factor, angle.dI);
    add(positions, j, -factor, angle.dK);
}

void InternalCoordinates::backward(double* positionGradient, bool withTorsions, State& state) const {
    fill_n(positionGradient, 3*numParticles, 0.0);
    for (int i = 0; i < getNumBonds(); i++) {
        add(positionGradient, bondAtoms[i][0], state.bondGradient[i], state.bonds[i].dI);
        add(positionGradient, bondAtoms[i][1], -state.bondGradient[i], state.bonds[i].dI);
    }
    for (int i = 0; i < getNumAngles(); i++) {
        // d angle = -d cosine/sine; a vanishing gradient is how the continuation says that the angle is out of reach.
        double factor = state.angleCosineGradient[i];
        if (state.angleGradient[i] != 0)
            factor -= state.angleGradient[i]/state.angles[i].sine;
        addAngle(positionGradient, angleAtoms[i][0], angleAtoms[i][1], angleAtoms[i][2], factor, state.angles[i]);
    }
    for (int i = 0; i < getNumTorsions(); i++) {
        const array<int, 4>& atoms = torsionAtoms[i];
        addAngle(positionGradient, atoms[1], atoms[2], atoms[3], state.torsionAngleCosineGradient[i], state.torsionAngles[i]);
        if (withTorsions) {
            add(positionGradient, atoms[0], state.torsionGradient[i], state.torsions[i].dI);
            add(positionGradient, atoms[1], state.torsionGradient[i], state.torsions[i].dJ);
            add(positionGradient, atoms[2], state.torsionGradient[i], state.torsions[i].dK);
            add(positionGradient, atoms[3], state.torsionGradient[i], state.torsions[i].dL);
        }
    }
}
