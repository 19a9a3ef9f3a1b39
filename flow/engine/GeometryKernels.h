// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_GEOMETRYKERNELS_H_
#define OPENMMFLOW_GEOMETRYKERNELS_H_

#include "engine/GeometryPlan.h"
#include "formulas/Formulas.h"

#include <cmath>
#include <limits>
#include <xsimd/xsimd.hpp>

/**
 * The kernels of internal coordinates, continuation and marginals, written once for vectors of any instruction set, whose lanes are
 * molecules, and for double. As in CouplingKernels.h, code of different instruction sets never meets under one name.
 */
namespace OpenMMFlow {

/** What vectors and double have in common. */
template <class V>
struct Lanes {
    static constexpr int COUNT = static_cast<int>(V::size);
    using Mask = typename V::batch_bool_type;
    static V load(const double* p) {
        return V::load_unaligned(p);
    }
    static void store(double* p, V v) {
        v.store_unaligned(p);
    }
    static bool all(Mask mask) {
        return xsimd::all(mask);
    }
};

template <>
struct Lanes<double> {
    static constexpr int COUNT = 1;
    using Mask = bool;
    static double load(const double* p) {
        return *p;
    }
    static void store(double* p, double v) {
        *p = v;
    }
    static bool all(bool mask) {
        return mask;
    }
};

template <class V>
struct Geometry {
    using F = Formulas<V>;
    using Vector = typename F::Vector;
    using Continued = typename F::Continued;
    using Mask = typename Lanes<V>::Mask;
    static constexpr int L = Lanes<V>::COUNT;
    static constexpr double PI = 3.14159265358979323846;

    struct Bond {
        typename F::Bond geometry;
        Continued saturated;      // s(b)
        V slope;                  // dW/db
        V chiRatio;               // d ln chi/db
    };
    struct Angle {
        typename F::Angle geometry;
        Continued saturated;      // s(theta)
        V sine, cosine;           // of s(theta)
        V slope, chiRatio;        // with respect to the cosine
    };
    struct Torsion {
        typename F::Angle angle;  // jkl
        typename F::Torsion geometry;
        V slope, chiRatio;        // with respect to the cosine of jkl
    };
    /** One coordinate of the block. */
    struct BlockCoordinate {
        Continued saturated;      // s(w)
        V slope;                  // dW/dw, but for the factor chi
    };
    /** What is of the block as a whole. */
    struct Block {
        typename F::Alignment alignment;
        Continued chi;            // of the determinant over that of the reference
        V ratio;                  // these
        V wall;                   // W of the coordinates, but for the factor chi
        V radiusFactor;           // gradient of the wall of the radius of gyration over the aligned position
    };
    /** Between enter and leave. */
    struct Room {
        Vector* positions;        // (P), and their gradient on the way back
        Bond* bonds;
        Angle* angles;
        Torsion* torsions;
        Vector* aligned;          // (B), the block, and its gradient on the way back
        BlockCoordinate* coordinates;
        Block* block;
    };

    static std::size_t roomSize(const GeometryPlan& plan) {
        const std::size_t numVectors = plan.numParticles+plan.block.numBlock, numBonds = plan.numBonds, numAngles = plan.numAngles,
                numTorsions = plan.numTorsions, dimensions = plan.block.dimensions;
        return (numVectors*sizeof(Vector)+numBonds*sizeof(Bond)+numAngles*sizeof(Angle)+numTorsions*sizeof(Torsion)
                +dimensions*sizeof(BlockCoordinate)+sizeof(Block))/sizeof(double);
    }

    static Room layOut(const GeometryPlan& plan, double* room) {
        Room r;
        r.positions = reinterpret_cast<Vector*>(room);
        r.bonds = reinterpret_cast<Bond*>(r.positions+plan.numParticles);
        r.angles = reinterpret_cast<Angle*>(r.bonds+plan.numBonds);
        r.torsions = reinterpret_cast<Torsion*>(r.angles+plan.numAngles);
        r.aligned = reinterpret_cast<Vector*>(r.torsions+plan.numTorsions);
        r.coordinates = reinterpret_cast<BlockCoordinate*>(r.aligned+plan.block.numBlock);
        r.block = reinterpret_cast<Block*>(r.coordinates+plan.block.dimensions);
        return r;
    }

    static V load(const double* p) {
        return Lanes<V>::load(p);
    }

    static void store(double* p, V v) {
        Lanes<V>::store(p, v);
    }

    static V choose(Mask mask, V a, V b) {
        return select(mask, a, b);
    }

    static V arcTangent(V y, V x) {
        using std::atan2;
        return atan2(y, x);
    }

    // ---- there ----

    static void loadPositions(const GeometryPlan& plan, const double* positions, int used, Vector* vectors) {
        const int size = 3*plan.numParticles;
        double lanes[3][L];
        for (int i = 0; i < plan.numParticles; i++) {
            for (int m = 0; m < L; m++)
                for (int k = 0; k < 3; k++)
                    lanes[k][m] = positions[(m < used ? m : used-1)*size+3*i+k];
            vectors[i] = {load(lanes[0]), load(lanes[1]), load(lanes[2])};
        }
    }

    static void measure(const GeometryPlan& plan, const Room& room) {
        const Vector* x = room.positions;
        for (int i = 0; i < plan.numBonds; i++) {
            const int* atoms = plan.bonds+2*i;
            Bond& bond = room.bonds[i];
            bond.geometry = F::bondLength(x[atoms[0]], x[atoms[1]]);
            bond.saturated = {bond.geometry.length, V(1.0)};
        }
        for (int i = 0; i < plan.numAngles; i++) {
            const int* atoms = plan.angles+3*i;
            Angle& angle = room.angles[i];
            angle.geometry = F::bondAngle(x[atoms[0]], x[atoms[1]], x[atoms[2]]);
            angle.saturated = {arcTangent(angle.geometry.sine, angle.geometry.cosine), V(1.0)};
            angle.sine = angle.geometry.sine;
            angle.cosine = angle.geometry.cosine;
        }
        for (int i = 0; i < plan.numTorsions; i++) {
            const int* atoms = plan.torsions+4*i;
            Torsion& torsion = room.torsions[i];
            torsion.angle = F::bondAngle(x[atoms[1]], x[atoms[2]], x[atoms[3]]);
            torsion.geometry = F::torsion(x[atoms[0]], x[atoms[1]], x[atoms[2]], x[atoms[3]]);
        }
    }

    static Vector constantVector(const double* v) {
        return {V(v[0]), V(v[1]), V(v[2])};
    }

    /** The block's coordinates. */
    static void measureBlock(const BlockPlan& plan, const Room& room) {
        Block& block = *room.block;
        const V zero(0.0), one(1.0);
        block.ratio = one;
        for (int i = 0; i < plan.numBlock; i++)
            room.aligned[i] = room.positions[plan.block[i]];
        if (plan.aligned) {
            Vector mean = {zero, zero, zero};
            for (int i = 0; i < plan.numBlock; i++)
                mean = F::vectorCombination(one, mean, V(1.0/plan.numBlock), room.aligned[i]);
            typename F::Matrix3 h = {zero, zero, zero, zero, zero, zero, zero, zero, zero};
            for (int i = 0; i < plan.numBlock; i++) {
                room.aligned[i] = F::vectorDifference(room.aligned[i], mean);
                h = F::matrixAddProduct(h, room.aligned[i], constantVector(plan.reference+3*i));
            }
            block.alignment = F::alignment(h);
            for (int i = 0; i < plan.numBlock; i++)
                room.aligned[i] = F::matrixTimesVector(block.alignment.rotation, room.aligned[i]);
            block.ratio = block.alignment.determinant*V(plan.inverseReferenceDeterminant);
        }
        for (int d = 0; d < plan.dimensions; d++) {
            const double* row = plan.whitening+d*static_cast<std::size_t>(3*plan.numBlock);
            V w(-plan.offset[d]);
            for (int i = 0; i < plan.numBlock; i++)
                w = w+F::vectorDot(constantVector(row+3*i), room.aligned[i]);
            room.coordinates[d] = {{w, one}, zero};
        }
        block.chi = {one, zero};
        block.wall = block.radiusFactor = zero;
    }

    /** s, chi and W of the block; @return whether it is on its inner support */
    static Mask continueBlock(const BlockPlan& plan, const Room& room, V& chi, V& walls) {
        using std::sqrt;
        Block& block = *room.block;
        const V zero(0.0), one(1.0);
        Mask inside = (one == one);
        for (int d = 0; d < plan.dimensions; d++) {
            const SupportRange& r = plan.ranges[d];
            BlockCoordinate& coordinate = room.coordinates[d];
            const V w = coordinate.saturated.value;
            inside = inside & (w >= V(r.lower)) & (w <= V(r.upper));
            coordinate.saturated = F::saturate(w, V(r.lower), V(r.upper), V(r.margin));
            const Continued wall = wallOf(w, r);
            coordinate.slope = wall.d1;
            block.wall = block.wall+wall.value;
        }
        if (plan.aligned) {
            inside = inside & (block.ratio >= V(plan.determinantRatio.lower));
            block.chi = F::chiOfLength(block.ratio, V(plan.determinantRatio.chiLow0), V(plan.determinantRatio.inverseChiLow));
            V squares(0.0);
            for (int i = 0; i < plan.numBlock; i++)
                squares = squares+F::vectorDot(room.aligned[i], room.aligned[i]);
            const V radius = sqrt(squares*V(1.0/plan.numBlock));
            const Continued wall = wallOf(radius, plan.radius);
            block.radiusFactor = wall.d1/(V(double(plan.numBlock))*choose(radius > zero, radius, one));
            walls = walls+wall.value;
        }
        chi = chi*block.chi.value;
        walls = walls+block.chi.value*block.wall;
        return inside;
    }

    static Continued chiOfCosine(V cosine, const SupportRange& r) {
        return F::chiOfCosine(cosine, V(r.chiLow0), V(r.inverseChiLow), V(r.chiHigh0), V(r.inverseChiHigh));
    }

    static Continued wallOf(V x, const SupportRange& r) {
        return F::wall(x, V(r.wallLower), V(r.wallUpper), V(r.inverseWallWidth));
    }

    /** s, chi and W of all coordinates. Torsions are 0 where chi is: they may not exist there. */
    static void continueSupport(const GeometryPlan& plan, const Room& room, const ContinuationValues& values) {
        const V zero(0.0), one(1.0);
        V chi(1.0), walls(0.0);
        // Not a number counts as outside.
        Mask inside = (chi == one);
        const auto between = [](V x, double lower, double upper) { return (x >= V(lower)) & (x <= V(upper)); };
        for (int i = 0; i < plan.numBonds; i++) {
            const SupportRange& r = plan.bondRanges[i];
            Bond& bond = room.bonds[i];
            const V b = bond.geometry.length;
            inside = inside & between(b, r.lower, r.upper);
            bond.saturated = F::saturate(b, V(r.lower), V(r.upper), V(r.margin));
            const Continued step = F::chiOfLength(b, V(r.chiLow0), V(r.inverseChiLow));
            bond.chiRatio = step.d1/step.value;
            chi = chi*step.value;
            const Continued wall = wallOf(b, r);
            bond.slope = wall.d1;
            walls = walls+wall.value;
        }
        for (int i = 0; i < plan.numAngles; i++) {
            const SupportRange& r = plan.angleRanges[i];
            Angle& angle = room.angles[i];
            const V theta = angle.saturated.value, cosine = angle.geometry.cosine;
            inside = inside & between(theta, r.lower, r.upper);
            angle.saturated = F::saturate(theta, V(r.lower), V(r.upper), V(r.margin));
            const Mask same = (angle.saturated.value == theta);
            if (!Lanes<V>::all(same)) {
                using std::cos;
                using std::sin;
                angle.sine = choose(same, angle.sine, sin(angle.saturated.value));
                angle.cosine = choose(same, angle.cosine, cos(angle.saturated.value));
            }
            const Continued step = chiOfCosine(cosine, r);
            angle.chiRatio = step.d1/step.value;
            chi = chi*step.value;
            const Continued wall = wallOf(cosine, r);
            angle.slope = wall.d1;
            walls = walls+wall.value;
        }
        for (int i = 0; i < plan.numTorsions; i++) {
            const SupportRange& r = plan.torsionAngleRanges[i];
            Torsion& torsion = room.torsions[i];
            const V cosine = torsion.angle.cosine;
            inside = inside & between(cosine, r.wallLower, r.wallUpper);
            const Continued step = chiOfCosine(cosine, r);
            torsion.chiRatio = step.d1/step.value;
            chi = chi*step.value;
            const Continued wall = wallOf(cosine, r);
            torsion.slope = wall.d1;
            walls = walls+wall.value;
        }
        if (plan.block.numBlock > 0)
            inside = inside & continueBlock(plan.block, room, chi, walls);
        const Mask active = (chi > zero);
        if (!Lanes<V>::all(active)) {
            for (int i = 0; i < plan.numBonds; i++)
                room.bonds[i].chiRatio = choose(active, room.bonds[i].chiRatio, zero);
            for (int i = 0; i < plan.numAngles; i++)
                room.angles[i].chiRatio = choose(active, room.angles[i].chiRatio, zero);
            for (int i = 0; i < plan.numTorsions; i++) {
                Torsion& torsion = room.torsions[i];
                torsion.chiRatio = choose(active, torsion.chiRatio, zero);
                typename F::Torsion& t = torsion.geometry;
                for (Vector* d : {&t.dI, &t.dJ, &t.dK, &t.dL})
                    *d = {choose(active, d->x, zero), choose(active, d->y, zero), choose(active, d->z, zero)};
            }
        }
        store(values.chi, chi);
        store(values.wall, walls);
        store(values.inside, choose(inside, one, zero));
    }

    static void enter(const GeometryPlan& plan, const double* positions, int used, int M, double* coordinates, double* logDet,
            const ContinuationValues* values, double* memory) {
        using std::log;
        const Room room = layOut(plan, memory);
        loadPositions(plan, positions, used, room.positions);
        measure(plan, room);
        if (plan.block.numBlock > 0)
            measureBlock(plan.block, room);
        Mask active = (V(1.0) == V(1.0));
        if (values != nullptr) {
            continueSupport(plan, room, *values);
            active = (load(values->chi) > V(0.0));
        }
        const auto put = [&](V value) {
            store(coordinates, choose(active, value, V(0.5)));
            coordinates += M;
        };
        for (int i = 0; i < plan.numBonds; i++)
            put(room.bonds[i].saturated.value);
        for (int i = 0; i < plan.numAngles; i++)
            put(room.angles[i].saturated.value*V(1/PI));
        for (int i = 0; i < plan.numTorsions; i++) {
            const typename F::Torsion& t = room.torsions[i].geometry;
            put((arcTangent(t.scaledSine, t.scaledCosine)+V(PI))*V(1/(2*PI)));
        }
        for (int d = 0; d < plan.block.dimensions; d++)
            put(room.coordinates[d].saturated.value);
        // Volume elements b^2 sin(theta), and of the frame or the block what its measure has. Logarithms of products of a few.
        V sum(plan.logConstant), product(1.0);
        if (!plan.hasFrame) {
            if (plan.block.aligned)
                product = room.block->alignment.determinant;
        }
        else if (plan.cartesian) {
            const V b = room.bonds[0].saturated.value*room.bonds[1].saturated.value;
            product = b*b*room.angles[0].sine;
        }
        else
            product = room.bonds[1].saturated.value;
        for (int i = (plan.hasFrame ? 2 : 0); i < plan.numBonds; i++) {
            const V b = room.bonds[i].saturated.value;
            product = product*(b*b*room.angles[plan.hasFrame ? i-1 : i].sine);
            if (i%8 == 0) {
                sum = sum-log(product);
                product = V(1.0);
            }
        }
        store(logDet, choose(active, sum-log(product), V(0.0)));
    }

    // ---- and back ----

    static void add(Vector& gradient, V factor, const Vector& v) {
        gradient = F::vectorCombination(V(1.0), gradient, factor, v);
    }

    /** The gradient of the cosine of the angle at j, spread over its atoms. */
    static void addAngle(Vector* gradient, int i, int j, int k, V factor, const typename F::Angle& angle) {
        add(gradient[i], factor, angle.dI);
        add(gradient[k], factor, angle.dK);
        add(gradient[j], -factor, angle.dI);
        add(gradient[j], -factor, angle.dK);
    }

    /** The gradient of the block's coordinates, which next() gives one after the other, and of its volume element. */
    template <class Next>
    static void leaveBlock(const BlockPlan& plan, const Room& room, V flowFactor, V chiFactor, bool continued, const Next& next) {
        const Block& block = *room.block;
        Vector* g = room.positions;
        const V zero(0.0), one(1.0);
        for (int d = 0; d < plan.dimensions; d++) {
            const BlockCoordinate& coordinate = room.coordinates[d];
            V factor = next()*flowFactor;
            if (continued)
                factor = factor*coordinate.saturated.d1+block.chi.value*coordinate.slope;
            // For now, in the frame of the reference if aligned.
            coordinateGradient(room, d) = factor;
        }
        // Of ln det A. Where chi is 0 it is lost.
        V determinantFactor = -flowFactor;
        if (continued) {
            const V chiRatio = choose(block.chi.value > zero, block.chi.d1/block.chi.value, zero);
            determinantFactor = determinantFactor+(chiFactor*chiRatio+block.chi.d1*block.wall)*block.ratio;
        }
        typename F::SymmetricMatrix3 volume;
        if (plan.aligned)
            volume = F::symmetricScaled(determinantFactor, F::traceMinus(block.alignment.inverse));
        Vector torque = {zero, zero, zero};
        const auto gradientOf = [&](int i) {
            Vector gradient = {zero, zero, zero};
            for (int d = 0; d < plan.dimensions; d++)
                add(gradient, coordinateGradient(room, d), constantVector(plan.whitening+(d*static_cast<std::size_t>(plan.numBlock)+i)*3));
            if (plan.aligned) {
                add(gradient, one, F::symmetricTimesVector(volume, constantVector(plan.reference+3*i)));
                add(gradient, block.radiusFactor, room.aligned[i]);
            }
            return gradient;
        };
        if (!plan.aligned) {
            for (int i = 0; i < plan.numBlock; i++)
                add(g[plan.block[i]], one, gradientOf(i));
            return;
        }
        for (int i = 0; i < plan.numBlock; i++) {
            const Vector a = room.aligned[i];
            const Vector gradient = gradientOf(i);
            add(torque, one, F::vectorCross(a, gradient));
            room.aligned[i] = gradient;
        }
        const Vector turn = F::symmetricTimesVector(block.alignment.inverse, torque);
        for (int i = 0; i < plan.numBlock; i++) {
            const Vector gradient = F::vectorCombination(one, room.aligned[i], one,
                    F::vectorCross(constantVector(plan.reference+3*i), turn));
            add(g[plan.block[i]], one, F::transposedTimesVector(block.alignment.rotation, gradient));
        }
    }

    /** Of lambda*flow + wall with respect to a coordinate of the block, in place of its wall's slope. */
    static V& coordinateGradient(const Room& room, int d) {
        return room.coordinates[d].slope;
    }

    static void leave(const GeometryPlan& plan, double lambda, const double* logProb, const double* gradient, int used, int M,
            const ContinuationValues* values, double* positionGradient, double* memory) {
        const Room room = layOut(plan, memory);
        const bool continued = (values != nullptr);
        const V zero(0.0);
        // With continuation: d(lambda*flow)/dv = flowFactor d ln p/dv + chiFactor d ln chi/dv
        V flowFactor(1.0), chiFactor(0.0);
        if (continued) {
            flowFactor = V(-lambda)*load(values->chi);
            chiFactor = flowFactor*(load(logProb)+V(plan.ceiling));
        }
        // The positions are no longer needed.
        Vector* g = room.positions;
        for (int i = 0; i < plan.numParticles; i++)
            g[i] = {zero, zero, zero};
        const auto next = [&] {
            const V value = load(gradient);
            gradient += M;
            return value;
        };
        for (int i = 0; i < plan.numBonds; i++) {
            const Bond& bond = room.bonds[i];
            const double powerInVolume = (plan.cartesian || !plan.hasFrame ? 2 : (i == 0 ? 0 : (i == 1 ? 1 : 2)));
            V factor = (next()-V(powerInVolume)/bond.saturated.value)*flowFactor;
            if (continued)
                factor = factor*bond.saturated.d1+(chiFactor*bond.chiRatio+bond.slope);
            add(g[plan.bonds[2*i]], factor, bond.geometry.dI);
            add(g[plan.bonds[2*i+1]], -factor, bond.geometry.dI);
        }
        for (int i = 0; i < plan.numAngles; i++) {
            const Angle& angle = room.angles[i];
            V angleGradient = next()*V(1/PI);
            if (plan.cartesian || !plan.hasFrame || i > 0)
                angleGradient = angleGradient-angle.cosine/angle.sine;
            angleGradient = angleGradient*flowFactor;
            if (continued)
                angleGradient = angleGradient*angle.saturated.d1;
            // d angle = -d cosine/sine; a vanishing gradient is how the continuation says that the angle is out of reach.
            V factor = choose(angleGradient == zero, zero, -angleGradient/angle.geometry.sine);
            if (continued)
                factor = factor+(chiFactor*angle.chiRatio+angle.slope);
            const int* atoms = plan.angles+3*i;
            addAngle(g, atoms[0], atoms[1], atoms[2], factor, angle.geometry);
        }
        for (int i = 0; i < plan.numTorsions; i++) {
            const Torsion& torsion = room.torsions[i];
            const int* atoms = plan.torsions+4*i;
            if (continued)
                addAngle(g, atoms[1], atoms[2], atoms[3], chiFactor*torsion.chiRatio+torsion.slope, torsion.angle);
            const V factor = next()*V(1/(2*PI))*flowFactor;
            add(g[atoms[0]], factor, torsion.geometry.dI);
            add(g[atoms[1]], factor, torsion.geometry.dJ);
            add(g[atoms[2]], factor, torsion.geometry.dK);
            add(g[atoms[3]], factor, torsion.geometry.dL);
        }
        if (plan.block.numBlock > 0)
            leaveBlock(plan.block, room, flowFactor, chiFactor, continued, next);
        double lanes[3][L];
        for (int i = 0; i < plan.numParticles; i++) {
            store(lanes[0], g[i].x);
            store(lanes[1], g[i].y);
            store(lanes[2], g[i].z);
            for (int m = 0; m < used; m++)
                for (int k = 0; k < 3; k++)
                    positionGradient[(m*plan.numParticles+i)*3+k] = lanes[k][m];
        }
    }

    // ---- marginals ----

    static void marginalForward(const MarginalPlan& plan, int M, double* coordinates, double* logDet, double* state) {
        using std::exp;
        const V zero(0.0), one(1.0);
        double* slopes = state+static_cast<std::size_t>(plan.numCoordinates)*M;
        for (int i = 0; i < plan.numCoordinates; i++) {
            const MarginalPlan::Parameters& p = plan.parameters[i];
            for (int m = 0; m < M; m += L) {
                double* x = coordinates+plan.coordinates[i]*static_cast<std::size_t>(M)+m;
                typename F::MarginalValue value;
                V density;
                Mask inside;
                switch (plan.map) {
                    case MarginalPlan::Map::Uniform:
                        value = F::uniformMarginal(load(x), V(p.lower), V(p.inverseWidth), V(p.logInverseWidth));
                        density = V(p.inverseWidth);
                        inside = (value.value >= zero) & (value.value <= one);
                        break;
                    case MarginalPlan::Map::AffineNormalization:
                        value = F::uniformMarginal(load(x), V(p.lower), V(p.inverseWidth), V(p.logInverseWidth));
                        density = V(p.inverseWidth);
                        inside = (value.value == value.value);
                        break;
                    case MarginalPlan::Map::Logit:
                        // Rounding may have reached an edge, which marginals alone look after.
                        value = F::logitMap(load(x));
                        density = exp(value.logDensity);
                        inside = (value.value == value.value);
                        break;
                    case MarginalPlan::Map::Logistic:
                        value = F::logisticMap(load(x));
                        density = exp(value.logDensity);
                        inside = (value.value == value.value);
                        break;
                    case MarginalPlan::Map::CircularShift:
                        value = F::circularShiftMap(load(x), V(p.lower));
                        density = one;
                        inside = (value.value == value.value);
                        break;
                    default:
                        value = F::normalMarginal(load(x), V(p.mean), V(p.inverseStd), V(p.cdfLower), V(p.inverseMass), V(p.logNorm));
                        density = exp(value.logDensity);
                        inside = (value.value >= zero) & (value.value <= one);
                }
                store(x, choose(inside, value.value, V(0.5)));
                store(logDet+m, load(logDet+m)+choose(inside, value.logDensity, V(-std::numeric_limits<double>::infinity())));
                store(state+i*M+m, density);
                store(slopes+i*M+m, value.dLogDensity);
            }
        }
    }

    static void marginalBackward(const MarginalPlan& plan, int M, double* gradient, const double* state) {
        const double* slopes = state+static_cast<std::size_t>(plan.numCoordinates)*M;
        for (int i = 0; i < plan.numCoordinates; i++)
            for (int m = 0; m < M; m += L) {
                double* g = gradient+plan.coordinates[i]*static_cast<std::size_t>(M)+m;
                store(g, load(g)*load(state+i*M+m)+load(slopes+i*M+m));
            }
    }

    static constexpr GeometryKernels table() {
        return {L, roomSize, enter, leave, marginalForward, marginalBackward};
    }
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_GEOMETRYKERNELS_H_
