// SPDX-License-Identifier: MIT
// The volume element of the coordinates, with a block in Cartesians and without, against the full numerical Jacobian.
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
