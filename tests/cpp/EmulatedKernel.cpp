// SPDX-License-Identifier: MIT
#include "EmulatedKernel.h"
#include "DevicePlan.h"
#include "FastFloat.h"
#include "FlowKernelSource.h"

#include <algorithm>
#include <cmath>
#include <numeric>

// OpenMM's common compute language for one work-item, as far as the kernel uses it.
#define KERNEL static
#define DEVICE
#define GLOBAL
#define LOCAL
#define LOCAL_ARG
#define RESTRICT
#define LOCAL_ID 0
#define LOCAL_SIZE 1
#define GROUP_ID 0
#define NUM_GROUPS 1
#define SYNC_THREADS
#define make_real4(x) (real4{(x), (x), (x), (x)})
#define ATOMIC_ADD(target, value) (*(target) += (value))
#define TILE 1
#define LANES 1
#define CLUSTER 1
#define HAS_BLOCK 1
#define HAS_MIXTURES 1
#define HAS_MIXTURE_ROOTS 1
#define HAS_TRANSFORMERS 1
#define SUM_SLICES 16
#define PI 3.14159265358979323846

namespace OpenMMFlow {

static_assert(flowKernelSumSlices == 16, "SUM_SLICES is another one");

namespace {

using mm_long = long long;
using mm_ulong = unsigned long long;
using std::abs;
using std::atan;
using std::atan2;
using std::cos;
using std::erf;
using std::erfc;
using std::exp;
using std::fabs;
using std::floor;
using std::log;
using std::max;
using std::min;
using std::sin;
using std::sqrt;

template <class Real>
struct Vector4 {
    Real x, y, z, w;
};
using int4 = Vector4<int>;

} // namespace

// Not every precision needs every argument.
#pragma GCC diagnostic ignored "-Wunused-parameter"

namespace singlePrecision {
using real = FastFloat;
using mixed = FastFloat;
using real4 = Vector4<real>;
using mixed4 = Vector4<mixed>;
#include "FlowKernel.inc"
} // namespace singlePrecision

#define USE_MIXED_PRECISION 1
namespace mixedPrecision {
using real = FastFloat;
using mixed = double;
using real4 = Vector4<real>;
using mixed4 = Vector4<mixed>;
#include "FlowKernel.inc"
} // namespace mixedPrecision
#undef USE_MIXED_PRECISION

#define USE_DOUBLE_PRECISION 1
#undef REAL_EPSILON
namespace doublePrecision {
using real = double;
using mixed = double;
using real4 = Vector4<real>;
using mixed4 = Vector4<mixed>;
#include "FlowKernel.inc"
} // namespace doublePrecision

namespace {

/** What all precisions hand over. */
template <class Real, class Mixed>
struct Arguments {
    DevicePlan plan;
    std::vector<Mixed> constants;
    std::vector<Real> weights;
    std::vector<int> atoms;
    std::vector<Vector4<Real>> posq, posqCorrection;
    std::vector<Mixed> mixedArena;
    std::vector<Real> realArena;
    std::vector<mm_ulong> forces;
    mm_ulong counters[FLOW_NUM_COUNTERS] = {};
    Mixed energy = 0;
    Vector4<Mixed> box = {0, 0, 0, 0};

    Arguments(const FlowForce& force, const std::vector<OpenMM::Vec3>& positions) :
            // As many work-items as share the work on a GPU, so that sums are split as they are there.
            plan(force, {1, 512}), constants(plan.constants.begin(), plan.constants.end()),
            weights(plan.weights.begin(), plan.weights.end()), atoms(positions.size()), mixedArena(plan.layout.numMixedRows),
            realArena(plan.layout.numRealRows), forces(3*positions.size()) {
        std::iota(atoms.begin(), atoms.end(), 0);
        for (const OpenMM::Vec3& r : positions) {
            const Vector4<Real> rounded = {Real(r[0]), Real(r[1]), Real(r[2]), Real(0)};
            posq.push_back(rounded);
            posqCorrection.push_back({Real(r[0]-rounded.x), Real(r[1]-rounded.y), Real(r[2]-rounded.z), Real(0)});
        }
    }

    KernelResult result() const {
        KernelResult result = {static_cast<double>(energy), std::vector<OpenMM::Vec3>(posq.size())};
        for (std::size_t i = 0; i < posq.size(); i++)
            for (int k = 0; k < 3; k++)
                result.forces[i][k] = static_cast<double>(static_cast<mm_long>(forces[i+k*posq.size()]))/0x100000000;
        return result;
    }
};

} // namespace

#define RUN(space, ...) \
    space::computeFlowForce(reinterpret_cast<const int4*>(a.plan.table.data()), a.constants.data(), a.weights.data(), nullptr, a.atoms.data(), 0, 1, \
            a.mixedArena.data(), a.realArena.data(), a.counters, a.posq.data(), a.forces.data(), &a.energy, &a.energy, -1, 0, static_cast<int>(positions.size()), \
            space::mixed(1), 1, a.box, a.box, a.box __VA_ARGS__)

KernelResult emulatedKernel(const FlowForce& force, const std::vector<OpenMM::Vec3>& positions, KernelPrecision precision,
        std::uint64_t seed) {
    FastFloat::seed(seed);
    switch (precision) {
        case KernelPrecision::Single: {
            Arguments<FastFloat, FastFloat> a(force, positions);
            RUN(singlePrecision);
            return a.result();
        }
        case KernelPrecision::Mixed: {
            Arguments<FastFloat, double> a(force, positions);
            RUN(mixedPrecision, , a.posqCorrection.data());
            return a.result();
        }
        default: {
            Arguments<double, double> a(force, positions);
            RUN(doublePrecision);
            return a.result();
        }
    }
}

} // namespace OpenMMFlow
