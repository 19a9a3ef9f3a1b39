// SPDX-License-Identifier: MIT
// FlowForce wherever dynamics may go: walks across edges of the support, the seams of torsions and collinear triples, and atoms at random.
#include "FlowForceTesting.h"
#include "formulas/Formulas.h"

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

/** With a block, all rows are full. */
const std::vector<Row>& zMatrix(const FlowModel& model) {
    const Layer& first = model.getArchitecture().layers[0];
    const MixedCoordinatesLayer* mixed = std::get_if<MixedCoordinatesLayer>(&first);
    return mixed != nullptr ? mixed->zMatrix : std::get<InternalCoordinatesLayer>(first).zMatrix;
}

std::vector<Row> fullRows(const FlowModel& model) {
    std::vector<Row> rows;
    for (const Row& row : zMatrix(model))
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
        worst = std::max(worst, walk({i, [=](double t) { return from+along*t; }, [=](double) { return along; }}, 0.01, 3, 1200));
        worst = std::max(worst, walk(circle(i, x[i], x[j], normal/norm(normal)), 0, 2*M_PI, 1200));
        worst = std::max(worst, walk(circle(i, x[i], x[j], axis/norm(axis)), 0, 2*M_PI, 1200));
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

/** Every triple of particles whose angle the potential depends on, bent through a straight line and back onto itself. */
class FlowForceCollinear : public FlowForceGarbage {
protected:
    struct Triple {
        std::array<int, 3> particles;
        std::vector<double> edges;    // angles at which the continuation changes its form, and the straight lines
    };

    std::vector<Triple> triples() const {
        const SupportMargins margins = defaultMargins(model);
        const Architecture& architecture = model.getArchitecture();
        std::vector<Triple> triples;
        // Angles of the Z-matrix in coordinate order: that of the frame, then those of the rows.
        for (const Row& row : zMatrix(model))
            if (row[2] >= 0 && row[3] < 0)
                triples.push_back({{row[0], row[1], row[2]}, {0, M_PI}});
        const std::vector<Row> rows = fullRows(model);
        for (const auto& [i, j, k, l] : rows)
            triples.push_back({{i, j, k}, {0, M_PI}});
        for (const Layer& layer : architecture.layers)
            if (const MarginalLayer* marginal = std::get_if<MarginalLayer>(&layer))
                for (std::size_t i = 0; i < marginal->coordinates.size(); i++) {
                    const int angle = marginal->coordinates[i]-architecture.numBonds();
                    if (angle < 0 || angle >= static_cast<int>(triples.size()))
                        continue;
                    const double lower = M_PI*marginal->lower.values[i], upper = M_PI*marginal->upper.values[i];
                    const double innerLow = lower+margins.angles[angle], innerHigh = upper-margins.angles[angle];
                    for (double edge : {lower, innerLow, 0.5*innerLow, 0.25*innerLow, upper, innerHigh, M_PI-0.5*(M_PI-innerHigh),
                            M_PI-0.25*(M_PI-innerHigh)})
                        triples[angle].edges.push_back(edge);
                }
        for (std::size_t row = 0; row < rows.size(); row++) {
            const double margin = margins.torsionAngles[row];
            triples.push_back({{rows[row][3], rows[row][2], rows[row][1]}, {0, 0.5*margin, margin, M_PI-margin, M_PI-0.5*margin, M_PI}});
        }
        return triples;
    }
};

INSTANTIATE_TEST_SUITE_P(Models, FlowForceCollinear, testing::Combine(testPlatforms, testModels), flowForceTestName);
INSTANTIATE_TEST_SUITE_P(Gpu, FlowForceCollinear, testing::Combine(gpuPlatforms, testModels), flowForceTestName);

TEST_P(FlowForceCollinear, NothingJumps) {
    // Slopes at distances h on both sides: what a C2 potential changes by is of order h, a jump is of order 1.
    const double h = 1e-7, nearby = 1e-3;
    double energyJump = 0, slopeJump = 0, curvatureJump = 0;
    int numEdges = 0;
    for (const auto& [particles, edges] : triples()) {
        const auto [a, b, c] = particles;
        const Vec3 arm = x[a]-x[b], normal = (x[c]-x[b]).cross(arm);
        const double angle = std::atan2(norm(normal), arm.dot(x[c]-x[b]));
        const Path path = circle(a, x[a], x[b], normal/norm(normal));
        for (double edge : edges) {
            const auto near = [&](double distance) { return at(path, edge-angle+distance); };
            const auto [leftEnergy, leftSlope] = near(-h);
            const auto [rightEnergy, rightSlope] = near(h);
            const double curvature = std::abs(near(nearby).second-near(-nearby).second)/(2*nearby);
            energyJump = std::max(energyJump, std::abs(rightEnergy-leftEnergy-h*(leftSlope+rightSlope))/(1+std::abs(leftEnergy)));
            slopeJump = std::max(slopeJump, std::abs(leftSlope-rightSlope)/(1+std::abs(leftSlope)+curvature));
            if (isDouble) {
                const double left = (leftSlope-near(-2*h).second)/h, right = (near(2*h).second-rightSlope)/h;
                EXPECT_TRUE(std::isfinite(left) && std::isfinite(right));
                curvatureJump = std::max(curvatureJump, std::abs(left-right)/(1+std::abs(left)+std::abs(right)+curvature));
            }
            EXPECT_TRUE(std::isfinite(leftEnergy+leftSlope+rightEnergy+rightSlope));
            numEdges++;
        }
    }
    report("edges and straight lines", numEdges);
    report("largest relative jump of the energy at one of them", energyJump);
    report("of the slope", slopeJump);
    EXPECT_LT(energyJump, isDouble ? 1e-9 : 1e-3);
    EXPECT_LT(slopeJump, isDouble ? 1e-5 : 1e-3);
    if (isDouble) {
        report("of the second derivative", curvatureJump);
        EXPECT_LT(curvatureJump, 1e-2);
    }
}

TEST_P(FlowForceCollinear, AnglesOfTorsionsHaveWalls) {
    // What two forces with different margins differ by when lambda is 0: the walls of the angles jkl.
    const auto walls = [&](const std::vector<Vec3>& positions, double margin) {
        double sum = 0;
        for (const auto& [i, j, k, l] : fullRows(model)) {
            const Vec3 u = positions[j]-positions[k], v = positions[l]-positions[k];
            const double edge = std::cos(margin), width = 0.5*(1-edge);
            sum += Formulas<double>::wall(u.dot(v)/(norm(u)*norm(v)), -edge, edge, 1/width).value;
        }
        return sum;
    };
    const double wide = 0.12, narrow = 0.06;
    const auto force = [&](double margin) {
        auto* force = new FlowForce(model);
        SupportMargins margins = defaultMargins(model);
        margins.torsionAngles.assign(margins.torsionAngles.size(), margin);
        force->setMargins(margins);
        return force;
    };
    Simulation first(platform, force(wide), x), second(platform, force(narrow), x);
    for (Simulation* s : {&first, &second})
        s->context->setParameter(FlowForce(model).getScaleParameterName(), 0);
    double worst = 0;
    for (const auto& [i, j, k, l] : fullRows(model)) {
        const Vec3 arm = x[l]-x[k], normal = (x[j]-x[k]).cross(arm);
        const double angle = std::atan2(norm(normal), arm.dot(x[j]-x[k]));
        const Path path = circle(l, x[l], x[k], normal/norm(normal));
        for (double target : {0.05, 0.09, M_PI-0.09, M_PI-0.05, M_PI}) {
            std::vector<Vec3> moved = x;
            moved[l] = path.position(target-angle);
            first.context->setPositions(moved);
            second.context->setPositions(moved);
            const double difference = (first.energy()-second.energy())/thermalEnergy;
            const double expected = walls(moved, wide)-walls(moved, narrow);
            EXPECT_TRUE(expected > 0.1 || target == M_PI);
            worst = std::max(worst, std::abs(difference-expected)/(1+std::abs(first.energy())/thermalEnergy));
        }
    }
    report("largest error of the walls, relative to the energy", worst);
    EXPECT_LT(worst, isSingle ? 1e-4 : 1e-7);
}

TEST_P(FlowForceGarbage, AtomsAtRandomHaveFiniteForcesThatAreMinusTheGradient) {
    // Many molecules at once; over all platforms and models more than 10^5 of them.
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
        // A minimizer can stop on a saddle, thermal motion does not.
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
