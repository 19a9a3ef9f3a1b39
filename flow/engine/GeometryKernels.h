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
    /** Between enter and leave. */
    struct Room {
        Vector* positions;        // (P), and their gradient on the way back
        Bond* bonds;
        Angle* angles;
        Torsion* torsions;
    };

    static std::size_t roomSize(const GeometryPlan& plan) {
        const std::size_t P = plan.numParticles;
        return (P*sizeof(Vector)+(P-1)*sizeof(Bond)+(P-2)*sizeof(Angle)+(P-3)*sizeof(Torsion))/sizeof(double);
    }

    static Room layOut(const GeometryPlan& plan, double* room) {
        const int P = plan.numParticles;
        Room r;
        r.positions = reinterpret_cast<Vector*>(room);
        r.bonds = reinterpret_cast<Bond*>(r.positions+P);
        r.angles = reinterpret_cast<Angle*>(r.bonds+(P-1));
        r.torsions = reinterpret_cast<Torsion*>(r.angles+(P-2));
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
        for (int i = 0; i < plan.numParticles-1; i++) {
            const int* atoms = plan.bonds+2*i;
            Bond& bond = room.bonds[i];
            bond.geometry = F::bondLength(x[atoms[0]], x[atoms[1]]);
            bond.saturated = {bond.geometry.length, V(1.0)};
        }
        for (int i = 0; i < plan.numParticles-2; i++) {
            const int* atoms = plan.angles+3*i;
            Angle& angle = room.angles[i];
            angle.geometry = F::bondAngle(x[atoms[0]], x[atoms[1]], x[atoms[2]]);
            angle.saturated = {arcTangent(angle.geometry.sine, angle.geometry.cosine), V(1.0)};
            angle.sine = angle.geometry.sine;
            angle.cosine = angle.geometry.cosine;
        }
        for (int i = 0; i < plan.numParticles-3; i++) {
            const int* atoms = plan.torsions+4*i;
            Torsion& torsion = room.torsions[i];
            torsion.angle = F::bondAngle(x[atoms[1]], x[atoms[2]], x[atoms[3]]);
            torsion.geometry = F::torsion(x[atoms[0]], x[atoms[1]], x[atoms[2]], x[atoms[3]]);
        }
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
        for (int i = 0; i < plan.numParticles-1; i++) {
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
        for (int i = 0; i < plan.numParticles-2; i++) {
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
        for (int i = 0; i < plan.numParticles-3; i++) {
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
        const Mask active = (chi > zero);
        if (!Lanes<V>::all(active)) {
            for (int i = 0; i < plan.numParticles-1; i++)
                room.bonds[i].chiRatio = choose(active, room.bonds[i].chiRatio, zero);
            for (int i = 0; i < plan.numParticles-2; i++)
                room.angles[i].chiRatio = choose(active, room.angles[i].chiRatio, zero);
            for (int i = 0; i < plan.numParticles-3; i++) {
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
        Mask active = (V(1.0) == V(1.0));
        if (values != nullptr) {
            continueSupport(plan, room, *values);
            active = (load(values->chi) > V(0.0));
        }
        const auto put = [&](V value) {
            store(coordinates, choose(active, value, V(0.5)));
            coordinates += M;
        };
        for (int i = 0; i < plan.numParticles-1; i++)
            put(room.bonds[i].saturated.value);
        for (int i = 0; i < plan.numParticles-2; i++)
            put(room.angles[i].saturated.value*V(1/PI));
        for (int i = 0; i < plan.numParticles-3; i++) {
            const typename F::Torsion& t = room.torsions[i].geometry;
            put((arcTangent(t.scaledSine, t.scaledCosine)+V(PI))*V(1/(2*PI)));
        }
        // Volume elements b^2 sin(theta), and of the frame what its measure has. Logarithms of products of a few.
        V sum(plan.logConstant), product(1.0);
        if (plan.cartesian) {
            const V b = room.bonds[0].saturated.value*room.bonds[1].saturated.value;
            product = b*b*room.angles[0].sine;
        }
        else
            product = room.bonds[1].saturated.value;
        for (int i = 2; i < plan.numParticles-1; i++) {
            const V b = room.bonds[i].saturated.value;
            product = product*(b*b*room.angles[i-1].sine);
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
        for (int i = 0; i < plan.numParticles-1; i++) {
            const Bond& bond = room.bonds[i];
            const double powerInVolume = (plan.cartesian ? 2 : (i == 0 ? 0 : (i == 1 ? 1 : 2)));
            V factor = (next()-V(powerInVolume)/bond.saturated.value)*flowFactor;
            if (continued)
                factor = factor*bond.saturated.d1+(chiFactor*bond.chiRatio+bond.slope);
            add(g[plan.bonds[2*i]], factor, bond.geometry.dI);
            add(g[plan.bonds[2*i+1]], -factor, bond.geometry.dI);
        }
        for (int i = 0; i < plan.numParticles-2; i++) {
            const Angle& angle = room.angles[i];
            V angleGradient = next()*V(1/PI);
            if (plan.cartesian || i > 0)
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
        for (int i = 0; i < plan.numParticles-3; i++) {
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
                if (plan.uniform) {
                    value = F::uniformMarginal(load(x), V(p.lower), V(p.inverseWidth), V(p.logInverseWidth));
                    density = V(p.inverseWidth);
                }
                else {
                    value = F::normalMarginal(load(x), V(p.mean), V(p.inverseStd), V(p.cdfLower), V(p.inverseMass), V(p.logNorm));
                    density = exp(value.logDensity);
                }
                const Mask inside = (value.value >= zero) & (value.value <= one);
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
