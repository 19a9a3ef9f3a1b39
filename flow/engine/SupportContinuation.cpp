// SPDX-License-Identifier: MIT
#include "engine/SupportContinuation.h"
#include "engine/Marginals.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

using namespace OpenMMFlow;
using namespace std;

using F = Formulas<double>;

namespace {

const double PI = 3.14159265358979323846;

// Scale and strength of the walls: harmonic with 2*strength/width^2, about 4e5 kJ/mol/nm^2 for bonds at 300 K, as stiff as bonds
// are, so that they do not limit the time step.
const double WALL_STRENGTH = 2.0;
const double BOND_WALL_WIDTH = 0.005;
const double COSINE_WALL_WIDTH = 0.05;

// Default margins, capped at this fraction of the support.
const double BOND_MARGIN = 0.004;
const double ANGLE_MARGIN = 0.06;
const double LARGEST_MARGIN_FRACTION = 0.02;
const double TORSION_ANGLE_MARGIN = 0.12;

// What stands in for an edge that a marginal does not have.
const double NORMAL_WIDTHS = 8;
const double SMALLEST_BOND = 0.01, LARGEST_BOND = 1.0;

struct Support {
    double lower, upper;
};

/** Support of every bond (nm) and angle (rad) of the Z-matrix, in coordinate order. */
vector<Support> supports(const Architecture& architecture) {
    const int numBonds = architecture.numParticles-1, numAngles = architecture.numParticles-2;
    vector<Support> supports(numBonds, {SMALLEST_BOND, LARGEST_BOND});
    supports.resize(numBonds+numAngles, {0, PI});
    for (const Layer& layer : architecture.layers)
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            for (size_t i = 0; i < marginal->coordinates.size(); i++) {
                int coordinate = marginal->coordinates[i];
                if (coordinate >= numBonds+numAngles)
                    continue;
                double lower = Marginals::lowerEdge(*marginal, i), upper = Marginals::upperEdge(*marginal, i);
                if (marginal->distribution == Distribution::Normal) {
                    lower = marginal->mean.values[i]-NORMAL_WIDTHS*marginal->std.values[i];
                    upper = marginal->mean.values[i]+NORMAL_WIDTHS*marginal->std.values[i];
                }
                double unit = (coordinate < numBonds ? 1 : PI);
                Support& support = supports[coordinate];
                support.lower = max(unit*lower, coordinate < numBonds ? SMALLEST_BOND : 0);
                support.upper = (coordinate < numBonds ? upper : min(PI*upper, PI));
            }
    return supports;
}

void checkMargins(const vector<double>& margins, const vector<Support>& supports, size_t first, size_t number, const char* what) {
    if (margins.size() != number)
        throw FlowModelError("The support margins of a FlowForce have "+to_string(margins.size())+" values for "+what+
                ", but the model has "+to_string(number)+" of them.");
    for (size_t i = 0; i < number; i++) {
        double width = supports[first+i].upper-supports[first+i].lower;
        if (!(margins[i] > 0 && 2*margins[i] < width))
            throw FlowModelError("Support margin "+to_string(i)+" of the "+what+" is "+to_string(margins[i])+
                    "; it must be positive and less than half of the support's width, "+to_string(0.5*width)+".");
    }
}

} // namespace

SupportMargins OpenMMFlow::defaultMargins(const FlowModel& model) {
    const int P = model.getNumParticles();
    SupportMargins margins;
    vector<Support> all = supports(model.getArchitecture());
    for (int i = 0; i < P-1; i++)
        margins.bonds.push_back(min(BOND_MARGIN, LARGEST_MARGIN_FRACTION*(all[i].upper-all[i].lower)));
    for (int i = P-1; i < 2*P-3; i++)
        margins.angles.push_back(min(ANGLE_MARGIN, LARGEST_MARGIN_FRACTION*(all[i].upper-all[i].lower)));
    margins.torsionAngles.assign(P-3, TORSION_ANGLE_MARGIN);
    return margins;
}

SupportContinuation::SupportContinuation(const FlowModel& model, const SupportMargins& margins, double logProbLowerBound) {
    const int P = model.getNumParticles();
    vector<Support> all = supports(model.getArchitecture());
    checkMargins(margins.bonds, all, 0, P-1, "bonds");
    checkMargins(margins.angles, all, P-1, P-2, "angles");
    checkMargins(margins.torsionAngles, vector<Support>(P-3, {0, PI}), 0, P-3, "angles jkl of torsions");
    for (int i = 0; i < P-1; i++) {
        Range r = {};
        r.margin = margins.bonds[i];
        r.lower = all[i].lower+r.margin;
        r.upper = all[i].upper-r.margin;
        r.wallLower = r.lower;
        r.wallUpper = r.upper;
        r.chiLow1 = 0.5*r.lower;
        r.chiLow0 = 0.25*r.lower;
        bonds.push_back(r);
    }
    for (int i = P-1; i < 2*P-3; i++) {
        Range r = {};
        r.margin = margins.angles[i-(P-1)];
        r.lower = all[i].lower+r.margin;
        r.upper = all[i].upper-r.margin;
        // The cosine falls with the angle.
        r.wallLower = cos(r.upper);
        r.wallUpper = cos(r.lower);
        r.chiHigh1 = cos(0.5*r.lower);
        r.chiHigh0 = cos(0.25*r.lower);
        r.chiLow1 = -cos(0.5*(PI-r.upper));
        r.chiLow0 = -cos(0.25*(PI-r.upper));
        angles.push_back(r);
    }
    for (double margin : margins.torsionAngles) {
        Range r = {};
        r.chiHigh1 = cos(margin);
        r.chiHigh0 = cos(0.5*margin);
        r.chiLow1 = -r.chiHigh1;
        r.chiLow0 = -r.chiHigh0;
        torsionAngles.push_back(r);
    }
    ceiling = 1-logProbLowerBound;
    for (const Range& r : bonds)
        ceiling += 2*log(max(r.upper+r.margin, 1.0));
}

SupportContinuation::State SupportContinuation::createState() const {
    State state = {};
    state.bonds.resize(bonds.size());
    state.saturatedBonds.resize(bonds.size());
    state.chiBonds.resize(bonds.size());
    state.wallBonds.resize(bonds.size());
    state.angles.resize(angles.size());
    state.saturatedAngles.resize(angles.size());
    state.chiAngles.resize(angles.size());
    state.wallAngles.resize(angles.size());
    state.chiTorsionAngles.resize(torsionAngles.size());
    return state;
}

/** 1 for a cosine between the two *1 values, 0 beyond the *0 values. */
static F::Continued chiOfCosine(double cosine, double low0, double low1, double high0, double high1) {
    F::Continued low = F::smoothStep((cosine-low0)/(low1-low0));
    F::Continued high = F::smoothStep((high0-cosine)/(high0-high1));
    return {low.value*high.value, low.d1/(low1-low0)*high.value-low.value*high.d1/(high0-high1)};
}

void SupportContinuation::forward(const InternalCoordinates::State& geometry, State& state) const {
    state.chi = 1;
    state.wall = 0;
    // Not a number counts as outside.
    bool inside = true;
    for (size_t i = 0; i < bonds.size(); i++) {
        const Range& r = bonds[i];
        const double b = geometry.bondValues[i];
        inside &= (b >= r.lower && b <= r.upper);
        state.saturatedBonds[i] = F::saturate(b, r.lower, r.upper, r.margin);
        state.bonds[i] = state.saturatedBonds[i].value;
        F::Continued step = F::smoothStep((b-r.chiLow0)/(r.chiLow1-r.chiLow0));
        state.chiBonds[i] = {step.value, step.d1/(r.chiLow1-r.chiLow0)};
        state.chi *= step.value;
        state.wallBonds[i] = F::wall(b, r.wallLower, r.wallUpper, 1/BOND_WALL_WIDTH, WALL_STRENGTH);
        state.wall += state.wallBonds[i].value;
    }
    for (size_t i = 0; i < angles.size(); i++) {
        const Range& r = angles[i];
        const double angle = geometry.angleValues[i], cosine = geometry.angles[i].cosine;
        inside &= (angle >= r.lower && angle <= r.upper);
        state.saturatedAngles[i] = F::saturate(angle, r.lower, r.upper, r.margin);
        state.angles[i] = state.saturatedAngles[i].value;
        state.chiAngles[i] = chiOfCosine(cosine, r.chiLow0, r.chiLow1, r.chiHigh0, r.chiHigh1);
        state.chi *= state.chiAngles[i].value;
        state.wallAngles[i] = F::wall(cosine, r.wallLower, r.wallUpper, 1/COSINE_WALL_WIDTH, WALL_STRENGTH);
        state.wall += state.wallAngles[i].value;
    }
    for (size_t i = 0; i < torsionAngles.size(); i++) {
        const Range& r = torsionAngles[i];
        const double cosine = geometry.torsionAngles[i].cosine;
        inside &= (cosine >= r.chiLow1 && cosine <= r.chiHigh1);
        state.chiTorsionAngles[i] = chiOfCosine(cosine, r.chiLow0, r.chiLow1, r.chiHigh0, r.chiHigh1);
        state.chi *= state.chiTorsionAngles[i].value;
    }
    state.outside = !inside;
}

void SupportContinuation::backward(double lambda, bool flow, double logProb, InternalCoordinates::State& geometry,
        const State& state) const {
    if (!flow) {
        // chi and all its derivatives are exactly 0
        for (size_t i = 0; i < bonds.size(); i++)
            geometry.bondGradient[i] = state.wallBonds[i].d1;
        for (size_t i = 0; i < angles.size(); i++) {
            geometry.angleGradient[i] = 0;
            geometry.angleCosineGradient[i] = state.wallAngles[i].d1;
        }
        fill(geometry.torsionAngleCosineGradient.begin(), geometry.torsionAngleCosineGradient.end(), 0.0);
        fill(geometry.torsionGradient.begin(), geometry.torsionGradient.end(), 0.0);
        return;
    }
    const double flowFactor = -lambda*state.chi;
    // d chi/dv = chi (chi_i'/chi_i) of its factor i
    const double chiFactor = -lambda*state.chi*(logProb+ceiling);
    for (size_t i = 0; i < bonds.size(); i++)
        geometry.bondGradient[i] = flowFactor*geometry.bondGradient[i]*state.saturatedBonds[i].d1
                +chiFactor*state.chiBonds[i].d1/state.chiBonds[i].value+state.wallBonds[i].d1;
    for (size_t i = 0; i < angles.size(); i++) {
        geometry.angleGradient[i] *= flowFactor*state.saturatedAngles[i].d1;
        geometry.angleCosineGradient[i] =
                chiFactor*state.chiAngles[i].d1/state.chiAngles[i].value+state.wallAngles[i].d1;
    }
    for (size_t i = 0; i < torsionAngles.size(); i++) {
        geometry.torsionAngleCosineGradient[i] = chiFactor*state.chiTorsionAngles[i].d1/state.chiTorsionAngles[i].value;
        geometry.torsionGradient[i] *= flowFactor;
    }
}
