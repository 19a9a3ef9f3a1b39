// SPDX-License-Identifier: MIT
#include "engine/SupportContinuation.h"
#include "engine/Marginals.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

using namespace OpenMMFlow;
using namespace std;

namespace {

const double PI = 3.14159265358979323846;

// Default margins, capped at this fraction of the support.
const double BOND_MARGIN = 0.004;
const double ANGLE_MARGIN = 0.06;
const double LARGEST_MARGIN_FRACTION = 0.02;
const double TORSION_ANGLE_MARGIN = 0.12;

// Widths of the walls, harmonic with 4/width^2: about 4e5 kJ/mol/nm^2 for bonds at 300 K, as stiff as bonds are, so that they do not limit
// the time step. What is left between the margin of an angle jkl and a straight line is much less than the width of a cosine's wall; a wall of half
// of that is 16/3 k_B T high on the line, and about as stiff as the others for the default margin.
const double BOND_WALL_WIDTH = 0.005;
const double COSINE_WALL_WIDTH = 0.05;
const double TORSION_ANGLE_WALL_FRACTION = 0.5;

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
        SupportRange r = {};
        r.margin = margins.bonds[i];
        r.lower = all[i].lower+r.margin;
        r.upper = all[i].upper-r.margin;
        r.wallLower = r.lower;
        r.wallUpper = r.upper;
        r.inverseWallWidth = 1/BOND_WALL_WIDTH;
        r.chiLow0 = 0.25*r.lower;
        r.inverseChiLow = 1/(0.5*r.lower-r.chiLow0);
        bonds.push_back(r);
    }
    for (int i = P-1; i < 2*P-3; i++) {
        SupportRange r = {};
        r.margin = margins.angles[i-(P-1)];
        r.lower = all[i].lower+r.margin;
        r.upper = all[i].upper-r.margin;
        // The cosine falls with the angle.
        r.wallLower = cos(r.upper);
        r.wallUpper = cos(r.lower);
        r.inverseWallWidth = 1/COSINE_WALL_WIDTH;
        r.chiHigh0 = cos(0.25*r.lower);
        r.inverseChiHigh = 1/(r.chiHigh0-cos(0.5*r.lower));
        r.chiLow0 = -cos(0.25*(PI-r.upper));
        r.inverseChiLow = 1/(-cos(0.5*(PI-r.upper))-r.chiLow0);
        angles.push_back(r);
    }
    for (double margin : margins.torsionAngles) {
        SupportRange r = {};
        r.wallUpper = cos(margin);
        r.wallLower = -r.wallUpper;
        r.inverseWallWidth = 1/min(COSINE_WALL_WIDTH, TORSION_ANGLE_WALL_FRACTION*(1-r.wallUpper));
        r.chiHigh0 = cos(0.5*margin);
        r.inverseChiHigh = 1/(r.chiHigh0-r.wallUpper);
        r.chiLow0 = -r.chiHigh0;
        r.inverseChiLow = r.inverseChiHigh;
        torsionAngles.push_back(r);
    }
    ceiling = 1-logProbLowerBound;
    for (const SupportRange& r : bonds)
        ceiling += 2*log(max(r.upper+r.margin, 1.0));
}

void SupportContinuation::describe(GeometryPlan& plan) const {
    plan.bondRanges = bonds.data();
    plan.angleRanges = angles.data();
    plan.torsionAngleRanges = torsionAngles.data();
    plan.ceiling = ceiling;
}
