// SPDX-License-Identifier: MIT
#include "engine/SupportContinuation.h"
#include "engine/Marginals.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

using namespace OpenMMFlow;
using namespace std;

using Support = SupportContinuation::Support;

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
// The same before a logit, which near 1 magnifies the rounding of the cumulative distribution function.
const double NORMAL_WIDTHS_BEFORE_LOGIT = 5;
const double SMALLEST_BOND = 0.01, LARGEST_BOND = 1.0;

// Of a block in Cartesians: its coordinates, which are whitened, and where its alignment begins to lose its meaning.
const double BLOCK_MARGIN = 0.25;
const double BLOCK_WALL_WIDTH = 0.5;
const double LARGEST_BLOCK_COORDINATE = 8;
const double SMALLEST_DETERMINANT_RATIO = 0.05;

/** Which coordinates of the first layer a logit maps at last: [coordinate]. */
vector<char> meetLogit(const Architecture& architecture) {
    vector<int> order(architecture.numCoordinates());
    iota(order.begin(), order.end(), 0);
    vector<char> result(order.size(), false);
    for (const Layer& layer : architecture.layers)
        if (const PermutationLayer* permutation = get_if<PermutationLayer>(&layer)) {
            const vector<int> before = order;
            for (size_t i = 0; i < order.size(); i++)
                order[i] = before[permutation->order[i]];
        }
        else if (const ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layer)) {
            if (elementwise->map == ElementwiseMap::Logit)
                for (int coordinate : elementwise->coordinates)
                    result[order[coordinate]] = true;
        }
    return result;
}

/** Support of every bond (nm), angle (rad) and coordinate of the block, in this order. */
vector<Support> supports(const Architecture& architecture) {
    const int numBonds = architecture.numBonds(), numAngles = architecture.numAngles(), numTorsions = architecture.numTorsions();
    const int firstOfBlock = numBonds+numAngles+numTorsions;
    vector<Support> supports(numBonds, {SMALLEST_BOND, LARGEST_BOND});
    supports.resize(numBonds+numAngles, {0, PI});
    supports.resize(numBonds+numAngles+architecture.numCoordinates()-firstOfBlock, {-LARGEST_BLOCK_COORDINATE, LARGEST_BLOCK_COORDINATE});
    const vector<vector<CoordinateOrigin>> origins = coordinateOrigins(architecture);
    const vector<char> beforeLogit = meetLogit(architecture);
    for (size_t l = 1; l < architecture.layers.size(); l++)
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&architecture.layers[l]))
            for (size_t i = 0; i < marginal->coordinates.size(); i++) {
                const CoordinateOrigin& origin = origins[l-1][marginal->coordinates[i]];
                if (!origin.known)
                    continue;
                double lower = Marginals::lowerEdge(*marginal, i), upper = Marginals::upperEdge(*marginal, i);
                if (marginal->distribution == Distribution::Normal) {
                    const double widths = (beforeLogit[origin.coordinate] ? NORMAL_WIDTHS_BEFORE_LOGIT : NORMAL_WIDTHS);
                    lower = marginal->mean.values[i]-widths*marginal->std.values[i];
                    upper = marginal->mean.values[i]+widths*marginal->std.values[i];
                }
                lower = origin.scale*lower+origin.shift;
                upper = origin.scale*upper+origin.shift;
                if (origin.coordinate < numBonds)
                    supports[origin.coordinate] = {max(lower, SMALLEST_BOND), upper};
                else if (origin.coordinate < numBonds+numAngles)
                    supports[origin.coordinate] = {max(PI*lower, 0.0), min(PI*upper, PI)};
                else
                    supports[origin.coordinate-numTorsions] = {lower, upper};
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
    const Architecture& architecture = model.getArchitecture();
    const int numBonds = architecture.numBonds(), numAngles = architecture.numAngles();
    SupportMargins margins;
    vector<Support> all = supports(architecture);
    for (int i = 0; i < numBonds; i++)
        margins.bonds.push_back(min(BOND_MARGIN, LARGEST_MARGIN_FRACTION*(all[i].upper-all[i].lower)));
    for (int i = numBonds; i < numBonds+numAngles; i++)
        margins.angles.push_back(min(ANGLE_MARGIN, LARGEST_MARGIN_FRACTION*(all[i].upper-all[i].lower)));
    margins.torsionAngles.assign(architecture.numTorsions(), TORSION_ANGLE_MARGIN);
    return margins;
}

SupportContinuation::SupportContinuation(const FlowModel& model, const SupportMargins& margins, double logProbLowerBound) {
    const Architecture& architecture = model.getArchitecture();
    const int numBonds = architecture.numBonds(), numAngles = architecture.numAngles(), numTorsions = architecture.numTorsions();
    vector<Support> all = supports(architecture);
    checkMargins(margins.bonds, all, 0, numBonds, "bonds");
    checkMargins(margins.angles, all, numBonds, numAngles, "angles");
    checkMargins(margins.torsionAngles, vector<Support>(numTorsions, {0, PI}), 0, numTorsions, "angles jkl of torsions");
    for (int i = 0; i < numBonds; i++) {
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
    for (int i = numBonds; i < numBonds+numAngles; i++) {
        SupportRange r = {};
        r.margin = margins.angles[i-numBonds];
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
    if (const MixedCoordinatesLayer* mixed = get_if<MixedCoordinatesLayer>(&architecture.layers.front()))
        addBlock(BlockWhitening(*mixed, architecture.measure, "layers.0"), vector<Support>(all.begin()+numBonds+numAngles, all.end()));
}

void SupportContinuation::addBlock(const BlockWhitening& whitening, const vector<Support>& supports) {
    const size_t size = whitening.reference.size(), n = supports.size();
    double squares = 0;
    for (double x : whitening.reference)
        squares += x*x;
    double largest = sqrt(squares);    // of |a|
    for (size_t i = 0; i < n; i++) {
        SupportRange r = {};
        const double width = supports[i].upper-supports[i].lower;
        r.margin = min(BLOCK_MARGIN, LARGEST_MARGIN_FRACTION*width);
        r.lower = r.wallLower = supports[i].lower+r.margin;
        r.upper = r.wallUpper = supports[i].upper-r.margin;
        r.inverseWallWidth = 1/BLOCK_WALL_WIDTH;
        block.push_back(r);
        double column = 0;
        for (size_t j = 0; j < size; j++)
            column += whitening.unwhitening[j*n+i]*whitening.unwhitening[j*n+i];
        largest += sqrt(column)*max(abs(supports[i].lower), abs(supports[i].upper));
    }
    radius.wallLower = -1;
    radius.wallUpper = largest/sqrt(whitening.numBlock);
    radius.inverseWallWidth = 1/BOND_WALL_WIDTH;
    ceiling -= min(whitening.logDet, 0.0);
    // det A is at most the cube of a third of its trace, which is twice that of C, which is at most |a| |r|.
    if (whitening.aligned)
        ceiling += max(3*log(2*largest*sqrt(squares)/3), 0.0);
}

void SupportContinuation::describe(GeometryPlan& plan) const {
    plan.bondRanges = bonds.data();
    plan.angleRanges = angles.data();
    plan.torsionAngleRanges = torsionAngles.data();
    plan.block.ranges = block.data();
    plan.block.determinantRatio.lower = SMALLEST_DETERMINANT_RATIO;
    plan.block.determinantRatio.chiLow0 = SMALLEST_DETERMINANT_RATIO/2;
    plan.block.determinantRatio.inverseChiLow = 2/SMALLEST_DETERMINANT_RATIO;
    plan.block.radius = radius;
    plan.ceiling = ceiling;
}
