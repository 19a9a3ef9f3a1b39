// SPDX-License-Identifier: MIT
// FlowForce wherever dynamics may go: walks across edges of the support, the seams of torsions and collinear triples, and atoms at random.
#include "FlowForceTesting.h"

#include <array>
#include <cmath>
#include <numeric>

using OpenMM::Vec3;

namespace OpenMMFlow {

namespace {

using Row = std::array<int, 4>;

double norm(const Vec3& v) {
    return std::sqrt(v.dot(v));
}

std::vector<Row> fullRows(const FlowModel& model) {
    std::vector<Row> rows;
    for (const Row& row : std::get<InternalCoordinatesLayer>(model.getArchitecture().layers[0]).zMatrix)
        if (row[3] >= 0)
            rows.push_back(row);
    return rows;
}

/** A particle on a path: where it is at t, and its velocity. */
struct Path {
    int particle;
    std::function<Vec3(double)> position, velocity;
};

/** A circle about an axis through a centre, from where the particle is at t = 0. */
Path circle(int particle, const Vec3& start, const Vec3& centre, const Vec3& axis) {
    const Vec3 arm = start-centre, along = axis*arm.dot(axis), radial = arm-along, tangential = axis.cross(arm);
    return {particle, [=](double t) { return centre+along+radial*std::cos(t)+tangential*std::sin(t); },
            [=](double t) { return tangential*std::cos(t)-radial*std::sin(t); }};
}

} // namespace

class FlowForceGarbage : public FlowForceTest {
protected:
    const int size = model.getNumParticles();
    std::vector<Vec3> x = conformation(model, random);
    Simulation simulation{platform, new FlowForce(model), x};
    const double thermalEnergy = thermalEnergyOf(model);

    /** Energy in k_B T and its slope along a path. */
    std::pair<double, double> at(const Path& path, double t) {
        std::vector<Vec3> moved = x;
        moved[path.particle] = path.position(t);
        simulation.context->setPositions(moved);
        const OpenMM::State state = simulation.context->getState(OpenMM::State::Energy | OpenMM::State::Forces);
        return {state.getPotentialEnergy()/thermalEnergy, -state.getForces()[path.particle].dot(path.velocity(t))/thermalEnergy};
    }

    /**
     * Walk a path: everything is finite, and the slope is that of the energy. The change of energy from point to point is compared with
     * the integral of the slope between them (Gauss-Legendre, 5 points), which a jump of either would break.
     *
     * @return the largest difference, relative to the change of the energy along the whole path
     */
    double walk(const Path& path, double begin, double end, int numIntervals) {
        static const double nodes[5] = {0, 0.5384693101056831, -0.5384693101056831, 0.9061798459386640, -0.9061798459386640};
        static const double weights[5] = {0.5688888888888889, 0.4786286704993665, 0.4786286704993665, 0.2369268850561891,
                0.2369268850561891};
        double worst = 0, change = 0, previous = at(path, begin).first;
        const double width = (end-begin)/numIntervals;
        for (int n = 0; n < numIntervals; n++) {
            double integral = 0;
            for (int k = 0; k < 5; k++) {
                const auto [energy, slope] = at(path, begin+width*(n+0.5+0.5*nodes[k]));
                EXPECT_TRUE(std::isfinite(energy) && std::isfinite(slope));
                integral += 0.5*width*weights[k]*slope;
            }
            const double energy = at(path, begin+width*(n+1)).first;
            worst = std::max(worst, std::abs(energy-previous-integral));
            change += std::abs(energy-previous);
            previous = energy;
        }
        return worst/change;
    }
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceGarbage, testing::Combine(testPlatforms, testModels), flowForceTestName);

TEST_P(FlowForceGarbage, WalksOfBondsAnglesAndTorsions) {
    double worst = 0;
    for (const auto& [i, j, k, l] : fullRows(model)) {
        const Vec3 bond = x[i]-x[j], axis = x[k]-x[j], normal = axis.cross(bond);
        // From a hundredth of a bond to three times its length; angles and torsions all the way round, through 0, pi and the seam.
        const Vec3 from = x[j], along = bond;
        worst = std::max(worst, walk({i, [=](double t) { return from+along*t; }, [=](double) { return along; }}, 0.01, 3, 600));
        worst = std::max(worst, walk(circle(i, x[i], x[j], normal/norm(normal)), 0, 2*M_PI, 600));
        worst = std::max(worst, walk(circle(i, x[i], x[j], axis/norm(axis)), 0, 2*M_PI, 600));
    }
    report("largest difference between the energy and the integral of its slope, relative", worst);
    EXPECT_LT(worst, isDouble ? 1e-3 : 2e-3);
}

TEST_P(FlowForceGarbage, TorsionsHaveNoSeam) {
    double worst = 0;
    for (const auto& [i, j, k, l] : fullRows(model)) {
        // The particle is in the plane of j, k, l, on the far side of l: its torsion is pi.
        const Vec3 axis = (x[k]-x[j])/norm(x[k]-x[j]), other = x[l]-x[k], bond = x[i]-x[j];
        Vec3 across = other-axis*axis.dot(other);
        across /= norm(across);
        const double height = bond.dot(axis), radius = norm(bond-axis*height);
        const Path path = circle(i, x[j]+axis*height-across*radius, x[j], axis);
        const double h = 1e-9;
        const auto left = at(path, -h), right = at(path, h);
        worst = std::max({worst, std::abs(left.first-right.first)/(1+std::abs(left.first)),
                std::abs(left.second-right.second)/(1+std::abs(left.second))});
    }
    report("largest relative difference of energy and slope across a seam", worst);
    EXPECT_LT(worst, isDouble ? 1e-5 : 1e-3);
}

TEST_P(FlowForceGarbage, AtomsAtRandomHaveFiniteForcesThatAreMinusTheGradient) {
    // Many molecules at once; over all platforms and models 10^5 of them.
    constexpr int numMolecules = 1250, repeats = 10, numChecked = 40;
    auto* force = new FlowForce(model);
    for (int m = 0; m < numMolecules; m++) {
        std::vector<int> particles(size);
        std::iota(particles.begin(), particles.end(), m*size);
        force->addMolecule(particles);
    }
    std::uniform_real_distribution<double> box(0, 0.5);
    std::vector<Vec3> positions(numMolecules*size);
    Simulation garbage(platform, force, positions);
    int numNotFinite = 0;
    for (int repeat = 0; repeat < repeats; repeat++) {
        for (Vec3& position : positions)
            position = Vec3(box(random), box(random), box(random));
        garbage.context->setPositions(positions);
        const OpenMM::State state = garbage.context->getState(OpenMM::State::Energy | OpenMM::State::Forces);
        numNotFinite += !std::isfinite(state.getPotentialEnergy());
        for (const Vec3& f : state.getForces())
            numNotFinite += !std::isfinite(f[0]+f[1]+f[2]);
    }
    EXPECT_EQ(numNotFinite, 0);
    report("random configurations", numMolecules*repeats);
    // Forces against differences, some molecules, along a random direction of all of their particles.
    double worst = 0;
    for (int n = 0; n < numChecked; n++) {
        std::vector<Vec3> direction(size);
        for (int i = 0; i < size; i++)
            x[i] = Vec3(box(random), box(random), box(random));
        direction = perturbed(direction, 1, random);
        simulation.context->setPositions(x);
        const std::vector<Vec3> forces = simulation.forces();
        double slope = 0;
        for (int i = 0; i < size; i++)
            slope -= forces[i].dot(direction[i]);
        double best = HUGE_VAL;
        for (double h : {1e-5, 1e-6, 1e-7}) {
            const auto energy = [&](double d) {
                std::vector<Vec3> moved = x;
                for (int i = 0; i < size; i++)
                    moved[i] += direction[i]*d;
                simulation.context->setPositions(moved);
                return simulation.energy();
            };
            const double numeric = (8*(energy(h)-energy(-h))-(energy(2*h)-energy(-2*h)))/(12*h);
            best = std::min(best, std::abs(numeric-slope)/(std::abs(slope)+rootMeanSquare(forces)));
        }
        worst = std::max(worst, best);
    }
    report("largest error of a force, relative", worst);
    EXPECT_LT(worst, isDouble ? 1e-5 : 1e-2);
}

TEST_P(FlowForceGarbage, MinimizationFromGarbageArrivesAtAMolecule) {
    constexpr int numStarts = 10, mostRounds = 10;
    auto* force = new FlowForce(model);
    Simulation garbage(platform, [&](OpenMM::System& system) {
        addParticles(system, size);
        system.addForce(force);
    }, x, std::make_unique<OpenMM::LangevinMiddleIntegrator>(model.getTemperature(), 10, 0.0005));
    std::uniform_real_distribution<double> box(0, 0.4);
    // Within the support every bond and every angle is one that the model knows.
    const auto isInside = [&] { return std::isfinite(force->getLogProbs(*garbage.context)[0]); };
    int insideAtOnce = 0, insideAtLast = 0;
    for (int start = 0; start < numStarts; start++) {
        for (Vec3& position : x)
            position = Vec3(box(random), box(random), box(random));
        garbage.context->setPositions(x);
        const double before = garbage.energy();
        OpenMM::LocalEnergyMinimizer::minimize(*garbage.context, 1, 5000);
        EXPECT_LT(garbage.energy(), before);
        insideAtOnce += isInside();
        // Where an angle jkl of a torsion that is no angle of the Z-matrix is nearly straight, the continued potential is flat: a minimizer
        // stops there, thermal motion does not.
        for (int round = 0; round < mostRounds && !isInside(); round++) {
            garbage.context->setVelocitiesToTemperature(model.getTemperature(), 1+round);
            garbage.integrator->step(2000);
            OpenMM::LocalEnergyMinimizer::minimize(*garbage.context, 1, 5000);
        }
        insideAtLast += isInside();
    }
    report("minimizations that arrive inside of the support", insideAtOnce);
    report("with a picosecond of dynamics in between", insideAtLast);
    EXPECT_GE(insideAtOnce, numStarts/2);
    EXPECT_EQ(insideAtLast, numStarts);
}

} // namespace OpenMMFlow
