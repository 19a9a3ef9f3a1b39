// SPDX-License-Identifier: MIT
// The language of kernels of CUDA and HIP as C++, as far as OpenMM's kernels use it. KernelCompiler puts it before their source.
#include "WorkItem.h"

#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>
#ifdef EMULATOR_FAST_MATH
#include "../FastFloat.h"
// The kernel's, after all that is not.
#define float OpenMMFlow::FastFloat
#endif

// Which of its features OpenMM uses it asks from this; HIP is told by OpenMM.
#ifndef EMULATOR_IS_HIP
#define __CUDA_ARCH__ 900
#endif
#define __device__
#define __host__
#define __forceinline__ inline
#define __constant__ static
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

namespace emulator {

static WorkItem* workItem;

/** Call a kernel with its arguments as drivers take them. */
template <class... Arguments, std::size_t... I>
void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<Arguments>*>(arguments[I])...);
}

template <class... Arguments>
void call(void (*kernel)(Arguments...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Arguments...>());
}

} // namespace emulator

#define threadIdx (emulator::workItem->thread)
#define blockIdx (emulator::workItem->block)
#define blockDim (emulator::workItem->blockSize)
#define gridDim (emulator::workItem->gridSize)

// --- types -------------------------------------------------------------------------------------------------------------------

namespace emulator {

template <class T>
inline constexpr bool isVector = false;

} // namespace emulator

// Alignments are those of the devices; that of four doubles is that of two.
#define EMULATOR_VECTORS(T, name, alignmentOf2, alignmentOf4) \
    struct alignas(alignmentOf2) name##2 { T x, y; }; \
    struct name##3 { T x, y, z; }; \
    struct alignas(alignmentOf4) name##4 { T x, y, z, w; }; \
    namespace emulator { \
    template <> inline constexpr bool isVector<name##2> = true; \
    template <> inline constexpr bool isVector<name##3> = true; \
    template <> inline constexpr bool isVector<name##4> = true; \
    } \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTORS(short, short, 4, 8)
EMULATOR_VECTORS(int, int, 8, 16)
EMULATOR_VECTORS(unsigned int, uint, 8, 16)
EMULATOR_VECTORS(long long, longlong, 16, 16)
EMULATOR_VECTORS(float, float, 8, 16)
EMULATOR_VECTORS(double, double, 16, 16)
#undef EMULATOR_VECTORS
using uint = unsigned int;

#ifdef EMULATOR_IS_HIP

// Arithmetic of HIP's vectors; to those of CUDA OpenMM adds it.
namespace emulator {

template <class V, class Function>
V elementwise(V a, V b, Function function) {
    for (std::size_t i = 0; i < sizeof(V)/sizeof(a.x); i++)
        (&a.x)[i] = function((&a.x)[i], (&b.x)[i]);
    return a;
}

} // namespace emulator

template <class V>
std::enable_if_t<emulator::isVector<V>, V> operator+(V a, V b) {
    return emulator::elementwise(a, b, [](auto x, auto y) { return x+y; });
}

template <class V>
std::enable_if_t<emulator::isVector<V>, V> operator-(V a, V b) {
    return emulator::elementwise(a, b, [](auto x, auto y) { return x-y; });
}

template <class V>
std::enable_if_t<emulator::isVector<V>, V> operator*(V a, V b) {
    return emulator::elementwise(a, b, [](auto x, auto y) { return x*y; });
}

template <class V>
std::enable_if_t<emulator::isVector<V>, V> operator/(V a, V b) {
    return emulator::elementwise(a, b, [](auto x, auto y) { return x/y; });
}

template <class V>
std::enable_if_t<emulator::isVector<V>, V> operator-(V a) {
    return V{}-a;
}

template <class V>
std::enable_if_t<emulator::isVector<V>, V&> operator+=(V& a, V b) {
    return a = a+b;
}

template <class V>
std::enable_if_t<emulator::isVector<V>, V&> operator-=(V& a, V b) {
    return a = a-b;
}

template <class V>
std::enable_if_t<emulator::isVector<V>, V&> operator*=(V& a, V b) {
    return a = a*b;
}

template <class V>
std::enable_if_t<emulator::isVector<V>, V&> operator/=(V& a, V b) {
    return a = a/b;
}

#endif

// --- functions ---------------------------------------------------------------------------------------------------------------

using std::abs, std::acos, std::asin, std::atan, std::atan2, std::ceil, std::cos, std::erf, std::erfc, std::exp, std::fabs, std::floor,
        std::fma, std::fmod, std::isfinite, std::isinf, std::isnan, std::log, std::pow, std::rint, std::round, std::sin, std::sqrt, std::tan,
        std::tanh;

inline float rsqrtf(float x) {
    return 1/sqrtf(x);
}

inline double rsqrt(double x) {
    return 1/sqrt(x);
}

/** Of a floating-point number and of what is not a number it is the former. */
template <class A, class B>
std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>)
        return std::fmin(static_cast<T>(a), static_cast<T>(b));
    else
        return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b);
}

template <class A, class B>
std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    if constexpr (std::is_floating_point_v<T>)
        return std::fmax(static_cast<T>(a), static_cast<T>(b));
    else
        return static_cast<T>(a) > static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b);
}

namespace emulator {

template <class To, class From>
To sameBits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

/** What is done to memory as a whole: nothing comes in between, as one work-item runs at a time. */
template <class T, class Function>
T update(T* target, Function function) {
    const T before = *target;
    *target = function(before);
    return before;
}

} // namespace emulator

namespace emulator {

// Instructions of PTX, told apart by their operands.

/** To half precision, rounding up. */
inline void ptx(unsigned short& to, float from) {
    _Float16 half = static_cast<double>(from);
    if (static_cast<double>(half) < from)
        half = sameBits<_Float16>(static_cast<unsigned short>(sameBits<unsigned short>(half)+(from > 0 ? 1 : -1)));
    to = sameBits<unsigned short>(half);
}

inline void ptx(float& to, unsigned short from) {
    to = static_cast<double>(sameBits<_Float16>(from));
}

/** The halves of eight bytes. */
template <class T>
void ptx(int& low, int& high, T from) {
    const unsigned long long bits = sameBits<unsigned long long>(from);
    low = static_cast<int>(bits);
    high = static_cast<int>(bits>>32);
}

} // namespace emulator

inline int __float_as_int(float x) {
    return emulator::sameBits<int>(x);
}

inline float __int_as_float(int x) {
    return emulator::sameBits<float>(x);
}

inline long long __double_as_longlong(double x) {
    return emulator::sameBits<long long>(x);
}

inline double __longlong_as_double(long long x) {
    return emulator::sameBits<double>(x);
}

inline double __hiloint2double(int high, int low) {
    return emulator::sameBits<double>(static_cast<unsigned long long>(high)<<32 | static_cast<unsigned int>(low));
}

/** The place of the lowest bit that is set, from 1; 0 if there is none. */
inline int __ffs(int x) {
    return __builtin_ffs(x);
}

inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}

inline int __popc(unsigned int x) {
    return __builtin_popcount(x);
}

inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}

inline int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz(x);
}

template <class T, class U>
T atomicAdd(T* target, U value) {
    return emulator::update(target, [&](T before) { return before+static_cast<T>(value); });
}

template <class T, class U>
T atomicMax(T* target, U value) {
    return emulator::update(target, [&](T before) { return max(before, static_cast<T>(value)); });
}

template <class T, class U>
T atomicMin(T* target, U value) {
    return emulator::update(target, [&](T before) { return min(before, static_cast<T>(value)); });
}

template <class T, class U, class V>
T atomicCAS(T* target, U expected, V value) {
    return emulator::update(target, [&](T before) { return before == static_cast<T>(expected) ? static_cast<T>(value) : before; });
}

// --- work-items together -----------------------------------------------------------------------------------------------------

inline void __syncthreads() {
    emulator::workItem->waitForBlock();
}

inline void __threadfence() {
}

inline void __threadfence_block() {
}

namespace emulator {

inline unsigned int lane() {
    return threadIdx.x%EMULATOR_WARP_SIZE;
}

/** What a work-item of the warp puts into it and all of them read from it. */
template <class T, class Read>
auto exchanged(T value, Read read) {
    static_assert(sizeof(T) <= 16);
    char* slots = workItem->warpSlots();
    std::memcpy(slots+16*lane(), &value, sizeof(T));
    workItem->waitForWarp();
    const auto result = read([&](unsigned int other) {
        T from;
        std::memcpy(&from, slots+16*other, sizeof(T));
        return from;
    });
    workItem->waitForWarp();
    return result;
}

template <class T>
T shuffled(T value, unsigned int source) {
    return exchanged(value, [&](auto from) { return from(source%EMULATOR_WARP_SIZE); });
}

inline unsigned long long ballot(int predicate) {
    return exchanged(predicate, [](auto from) {
        unsigned long long bits = 0;
        for (unsigned int i = 0; i < min(EMULATOR_WARP_SIZE, blockDim.x); i++)
            bits |= static_cast<unsigned long long>(from(i) != 0)<<i;
        return bits;
    });
}

} // namespace emulator

#ifdef EMULATOR_IS_HIP

inline float __fsqrt_rn(float x) {
    return sqrtf(x);
}

inline float __frsqrt_rn(float x) {
    return rsqrtf(x);
}

inline float __frcp_rn(float x) {
    return 1/x;
}

// The processor's library has functions of these names, of its own.
#define __expf expf
#define __logf logf

#define __builtin_amdgcn_wave_barrier() emulator::workItem->waitForWarp()
#define __builtin_amdgcn_fence(...)

/** @param source  of the word: four times a work-item of the warp */
inline int __builtin_amdgcn_ds_bpermute(int source, int word) {
    return emulator::shuffled(word, source/4);
}

/** Among as many work-items as the last argument says. */
template <class T>
T __shfl(T value, int source, int width = EMULATOR_WARP_SIZE) {
    return emulator::shuffled(value, emulator::lane()/width*width+source%width);
}

template <class T>
T __shfl_xor(T value, int bits, int width = EMULATOR_WARP_SIZE) {
    return __shfl(value, (emulator::lane()^bits)%width, width);
}

template <class T>
T __shfl_down(T value, unsigned int distance, int width = EMULATOR_WARP_SIZE) {
    const unsigned int lane = emulator::lane()%width;
    return __shfl(value, lane+distance < width ? lane+distance : lane, width);
}

template <class T>
T __shfl_up(T value, unsigned int distance, int width = EMULATOR_WARP_SIZE) {
    const unsigned int lane = emulator::lane()%width;
    return __shfl(value, distance <= lane ? lane-distance : lane, width);
}

inline unsigned long long __ballot(int predicate) {
    return emulator::ballot(predicate);
}

#else

inline void __cluster_barrier_arrive() {
    emulator::workItem->arriveAtCluster();
}

inline void __cluster_barrier_wait() {
    emulator::workItem->waitForCluster();
}

inline void* __cluster_map_shared_rank(const void* pointer, unsigned int rank) {
    return emulator::workItem->localMemoryOf(pointer, rank);
}

inline void __syncwarp(unsigned int = 0xffffffff) {
    emulator::workItem->waitForWarp();
}

template <class T>
T __shfl_sync(unsigned int, T value, int source, int width = EMULATOR_WARP_SIZE) {
    return emulator::shuffled(value, emulator::lane()/width*width+source%width);
}

template <class T>
T __shfl_xor_sync(unsigned int, T value, int bits) {
    return emulator::shuffled(value, emulator::lane()^bits);
}

template <class T>
T __shfl_up_sync(unsigned int, T value, unsigned int distance) {
    const unsigned int lane = emulator::lane();
    return emulator::shuffled(value, distance <= lane ? lane-distance : lane);
}

template <class T>
T __shfl_down_sync(unsigned int, T value, unsigned int distance) {
    const unsigned int source = emulator::lane()+distance;
    return emulator::shuffled(value, source < EMULATOR_WARP_SIZE ? source : emulator::lane());
}

inline unsigned int __ballot_sync(unsigned int, int predicate) {
    return static_cast<unsigned int>(emulator::ballot(predicate));
}

#endif
