// SPDX-License-Identifier: MIT
// The volume element of the coordinates, with a block in Cartesians and without, against the full numerical Jacobian; the potential where the
// alignment of the block has no unique answer.
#include "RandomModels.h"
#include "engine/Evaluator.h"
#include "engine/Marginals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <vector>

using namespace OpenMMFlow;
using namespace std;

namespace {

/** ln|det| by elimination with pivots; a row of the matrix is a vector. */
double logDeterminant(vector<vector<double>> matrix) {
    double sum = 0;
    for (size_t column = 0; column < matrix.size(); column++) {
        const auto pivot = max_element(matrix.begin()+column, matrix.end(), [&](const auto& a, const auto& b) {
            return abs(a[column]) < abs(b[column]);
        });
        swap(*pivot, matrix[column]);
        sum += log(abs(matrix[column][column]));
        for (size_t row = column+1; row < matrix.size(); row++) {
            const double factor = matrix[row][column]/matrix[column][column];
            for (size_t i = column; i < matrix.size(); i++)
                matrix[row][i] -= factor*matrix[column][i];
        }
    }
    return sum;
}

RandomModelOptions cartesian(bool mixed) {
    RandomModelOptions options;
    options.measure = Measure::Cartesian;
    options.mixedCoordinates = mixed;
    options.numParticles = 6;
    return options;
}

} // namespace

/** seed of the random model; odd ones have a block in Cartesians */
class CoordinateVolume : public testing::TestWithParam<unsigned> {
};

TEST_P(CoordinateVolume, IsThatOfTheNumericalJacobian) {
    const FlowModel model = randomModel(cartesian(GetParam()%2 == 1), GetParam());
    const Evaluator evaluator(model);
    const auto workspace = evaluator.createWorkspace(1);
    const int n = model.getNumCoordinates(), size = 3*model.getNumParticles();
    mt19937 random(GetParam());
    const vector<double> conformation = randomConformation(model, random);
    vector<double> z(n);
    evaluator.logProb(conformation.data(), nullptr, z.data(), *workspace);
    double logProb;
    vector<double> x(size);
    evaluator.toPositions(1, z.data(), x.data(), &logProb, *workspace);
    // x of latents, of the place and of a turn.
    vector<vector<double>> jacobian;
    const auto at = [&](int i, double d) {
        vector<double> moved = z, y(size);
        moved[i] += d;
        double unused;
        evaluator.toPositions(1, moved.data(), y.data(), &unused, *workspace);
        return y;
    };
    for (int i = 0; i < n; i++) {
        const double h = 1e-5*max(1.0, abs(z[i]));
        const vector<double> a = at(i, h), b = at(i, -h), c = at(i, 2*h), d = at(i, -2*h);
        vector<double> row(size);
        for (int k = 0; k < size; k++)
            row[k] = (8*(a[k]-b[k])-(c[k]-d[k]))/(12*h);
        jacobian.push_back(row);
    }
    for (int k = 0; k < 3; k++) {
        vector<double> shift(size, 0.0), turn(size, 0.0);
        for (int i = 0; i < size; i += 3) {
            shift[i+k] = 1;
            turn[i+(k+1)%3] = -x[i+(k+2)%3];
            turn[i+(k+2)%3] = x[i+(k+1)%3];
        }
        jacobian.push_back(shift);
        jacobian.push_back(turn);
    }
    double logBase = 0;
    for (const CoordinateDistributions& base : model.getArchitecture().base)
        Marginals(base).addLogDensity(1, z.data(), &logBase);
    const double expected = logBase-logDeterminant(jacobian)-log(8*M_PI*M_PI);
    cout << size << " x " << size << ": ln p " << logProb << ", by the numerical Jacobian off by " << logProb-expected << endl;
    EXPECT_NEAR(logProb, expected, 1e-5);
    // It is also that of the conformation that the latents came from, wherever it stands.
    EXPECT_NEAR(logProb, evaluator.logProb(conformation.data(), nullptr, nullptr, *workspace), 1e-9*(1+abs(logProb)));
}

TEST_P(CoordinateVolume, ExertsNoForceAndNoTorqueOnTheWhole) {
    const FlowModel model = randomModel(cartesian(GetParam()%2 == 1), GetParam());
    const Evaluator evaluator(model);
    const auto workspace = evaluator.createWorkspace(1);
    mt19937 random(GetParam());
    const vector<double> x = randomConformation(model, random);
    vector<double> gradient(x.size());
    evaluator.logProb(x.data(), gradient.data(), nullptr, *workspace);
    double force[3] = {}, torque[3] = {}, scale = 0;
    for (size_t i = 0; i < x.size(); i += 3)
        for (int k = 0; k < 3; k++) {
            const int a = (k+1)%3, b = (k+2)%3;
            force[k] += gradient[i+k];
            torque[k] += x[i+a]*gradient[i+b]-x[i+b]*gradient[i+a];
            scale = max(scale, abs(gradient[i+k]));
        }
    for (int k = 0; k < 3; k++) {
        EXPECT_NEAR(force[k], 0, 1e-9*scale);
        EXPECT_NEAR(torque[k], 0, 1e-9*scale);
    }
}

INSTANTIATE_TEST_SUITE_P(RandomModels, CoordinateVolume, testing::Range(0u, 20u));

namespace {

/** Four particles whose principal axes are x, y and z: their sums of squares along these, and positions. */
const double SQUARES[3] = {2*0.15*0.15, 2*0.12*0.12, 4*0.06*0.06};
const vector<double> FOUR = {0.15, 0, 0.06, -0.15, 0, 0.06, 0, 0.12, -0.06, 0, -0.12, -0.06};

/** A model of these four particles as a block. */
FlowModel modelOfFour(unsigned seed) {
    RandomModelOptions options = cartesian(true);
    options.numParticles = 4;
    options.smoothness = Smoothness::Infinite;
    while (true) {
        ModelParts parts = randomModelParts(options, seed);
        Tensor& reference = parts.tensors.at("layers.0.reference");
        if (reference.values.size() == FOUR.size()) {
            reference.values = FOUR;
            // No longer orthogonal to the rigid motions, but still independent of them.
            return FlowModel::fromBytes(parts.toBytes());
        }
        seed += 1000;
    }
}

/** det A over that of the reference, of the reference with the coordinates z multiplied by t. */
double determinantRatio(double t) {
    const double x = SQUARES[0], y = SQUARES[1], z = SQUARES[2];
    return (x+t*z)*(y+t*z)/((x+z)*(y+z));
}

/** The potential along a path, k_B T. */
class Walk {
public:
    Walk(const FlowModel& model, double lambda, const vector<double>& offset) :
            evaluator(model), workspace(evaluator.createWorkspace(1)), block(get<MixedCoordinatesLayer>(model.getArchitecture().layers[0]).block),
            lambda(lambda), offset(offset) {
    }

    /** Energy and slope where the reference with its coordinates z multiplied by t is, moved by the offset. */
    pair<double, double> at(double t) {
        vector<double> x(FOUR.size()), velocity(FOUR.size(), 0.0), gradient(FOUR.size());
        for (size_t i = 0; i < block.size(); i++)
            for (int k = 0; k < 3; k++) {
                x[3*block[i]+k] = FOUR[3*i+k]*(k == 2 ? t : 1)+offset[3*i+k];
                velocity[3*block[i]+k] = (k == 2 ? FOUR[3*i+k] : 0);
            }
        const ContinuedPotential u = evaluator.continuedPotential(x.data(), lambda, gradient.data(), *workspace);
        double slope = 0;
        for (size_t i = 0; i < x.size(); i++) {
            EXPECT_TRUE(isfinite(gradient[i]));
            largestGradient = max(largestGradient, abs(gradient[i]));
            slope += gradient[i]*velocity[i];
        }
        EXPECT_TRUE(isfinite(u.flow) && isfinite(u.wall));
        return {lambda*u.flow+u.wall, slope};
    }

    double largestGradient = 0;

private:
    Evaluator evaluator;
    Evaluator::WorkspacePointer workspace;
    const vector<int> block;
    const double lambda;
    const vector<double> offset;
};

} // namespace

/** seed of the random model */
class AlignmentDegeneracy : public testing::TestWithParam<unsigned> {
};

TEST_P(AlignmentDegeneracy, IsWalkedThroughSmoothly) {
    const FlowModel model = modelOfFour(GetParam());
    // The rotation jumps by a half turn where t SQUARES[2] = -SQUARES[1]; beyond it, another answer is the best.
    const double degenerate = -SQUARES[1]/SQUARES[2];
    // Before it the continuation switches off all that depends on the rotation.
    vector<double> edges = {degenerate};
    for (double ratio : {0.05, 0.025}) {
        double low = degenerate, high = 1;
        for (int i = 0; i < 60; i++) {
            const double middle = 0.5*(low+high);
            (determinantRatio(middle) < ratio ? low : high) = middle;
        }
        edges.push_back(low);
    }
    mt19937 random(GetParam());
    normal_distribution<double> normal;
    double worst = 0, energyJump = 0, slopeJump = 0, curvatureJump = 0, largest = 0;
    // Exactly through it, and by it, where the rotation turns as fast as the distance is small.
    for (double distance : {0.0, 1e-8, 1e-5, 1e-3})
        for (double lambda : {1.0, 0.0}) {
            vector<double> offset(FOUR.size());
            for (double& x : offset)
                x = distance*normal(random);
            Walk walk(model, lambda, offset);
            // The energy against the integral of its slope, which a jump would break.
            const int numIntervals = 3200;
            const double begin = 1, end = 1.6*degenerate, width = (end-begin)/numIntervals, node = sqrt(0.6);
            double previous = walk.at(begin).first, change = 0, error = 0;
            for (int n = 0; n < numIntervals; n++) {
                const double middle = begin+width*(n+0.5);
                const double integral = width/18*(5*walk.at(middle-0.5*width*node).second+8*walk.at(middle).second
                        +5*walk.at(middle+0.5*width*node).second);
                const double energy = walk.at(begin+width*(n+1)).first;
                error = max(error, abs(energy-previous-integral));
                change += abs(energy-previous);
                previous = energy;
            }
            worst = max(worst, error/change);
            largest = max(largest, walk.largestGradient);
            const double h = 1e-7, nearby = 1e-3;
            for (double edge : edges) {
                const auto [leftEnergy, leftSlope] = walk.at(edge-h);
                const auto [rightEnergy, rightSlope] = walk.at(edge+h);
                const double curvature = abs(walk.at(edge+nearby).second-walk.at(edge-nearby).second)/(2*nearby);
                energyJump = max(energyJump, abs(rightEnergy-leftEnergy-h*(leftSlope+rightSlope))/(1+abs(leftEnergy)));
                slopeJump = max(slopeJump, abs(leftSlope-rightSlope)/(1+abs(leftSlope)+curvature));
                const double left = (leftSlope-walk.at(edge-2*h).second)/h, right = (walk.at(edge+2*h).second-rightSlope)/h;
                curvatureJump = max(curvatureJump, abs(left-right)/(1+abs(left)+abs(right)+curvature));
            }
        }
    cout << "largest gradient " << largest << " k_B T/nm; energy against the integral of its slope " << worst << ", jumps of the energy " << energyJump <<
            ", of the slope " << slopeJump << ", of the second derivative " << curvatureJump << endl;
    EXPECT_LT(worst, 1e-4);
    EXPECT_LT(energyJump, 1e-9);
    EXPECT_LT(slopeJump, 1e-5);
    EXPECT_LT(curvatureJump, 1e-2);
}

TEST_P(AlignmentDegeneracy, LeavesNothingOfTheFlow) {
    // There the potential is the constant of the continuation, whatever the rotation.
    const FlowModel model = modelOfFour(GetParam());
    const Evaluator evaluator(model);
    Walk flow(model, 1, vector<double>(FOUR.size(), 0.0)), walls(model, 0, vector<double>(FOUR.size(), 0.0));
    const double degenerate = -SQUARES[1]/SQUARES[2];
    const double ceiling = flow.at(degenerate).first-walls.at(degenerate).first;
    EXPECT_GT(ceiling, flow.at(1).first-walls.at(1).first);
    for (double t : {degenerate-1e-3, degenerate-1e-9, degenerate+1e-9, degenerate+1e-3}) {
        EXPECT_NEAR(flow.at(t).first-walls.at(t).first, ceiling, 1e-9*ceiling);
        EXPECT_EQ(flow.at(t).second, walls.at(t).second);
    }
}

INSTANTIATE_TEST_SUITE_P(RandomModels, AlignmentDegeneracy, testing::Range(0u, 6u));
