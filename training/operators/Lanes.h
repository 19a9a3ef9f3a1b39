// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_LANES_H_
#define OPENMMFLOW_LANES_H_

#include "operators/Dual.h"

#include <ATen/Parallel.h>
#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>

/**
 * Elementwise loops over samples. All arrays of the operators hold samples in their last, contiguous dimension, so that vectors
 * of neighbouring samples load without shuffling, whatever the number of coordinates or components.
 */
namespace OpenMMFlow {

// The names keep argument-dependent lookup from finding xsimd's own load and store, which want aligned memory.

template <class T, class Scalar>
T loadLane(const Scalar* pointer) {
    if constexpr (std::is_same_v<T, Scalar>)
        return *pointer;
    else
        return T::load_unaligned(pointer);
}

template <class T, class Scalar>
void storeLane(Scalar* pointer, const T& value) {
    if constexpr (std::is_same_v<T, Scalar>)
        *pointer = value;
    else
        value.store_unaligned(pointer);
}

inline bool anyLane(bool condition) {
    return condition;
}

template <class Scalar, class Instructions>
bool anyLane(const xsimd::batch_bool<Scalar, Instructions>& condition) {
    return xsimd::any(condition);
}

/** Whether Real is a dual number, and the type of its parts. */
template <class Real>
struct Tangent {
    static constexpr bool exists = false;
    using Plain = Real;
};

template <class T>
struct Tangent<Dual<T>> {
    static constexpr bool exists = true;
    using Plain = T;
};

/** Loads a value, and its tangent when Real is a Dual. */
template <class Real, class Scalar>
Real loadLane(const Scalar* values, const Scalar* tangents, std::int64_t offset) {
    using T = typename Tangent<Real>::Plain;
    if constexpr (Tangent<Real>::exists)
        return Real(loadLane<T>(values+offset), loadLane<T>(tangents+offset));
    else
        return loadLane<T>(values+offset);
}

/** Real of a value whose tangent, if it has one, is 0. */
template <class Real>
Real constant(const typename Tangent<Real>::Plain& value) {
    using T = typename Tangent<Real>::Plain;
    if constexpr (Tangent<Real>::exists)
        return Real(value, (T) 0);
    else
        return value;
}

/** Like loadLane, of samples that are `stride` numbers apart. */
template <class Real, class Scalar>
Real loadStrided(const Scalar* values, const Scalar* tangents, std::int64_t stride) {
    using T = typename Tangent<Real>::Plain;
    if constexpr (Tangent<Real>::exists)
        return Real(loadStrided<T>(values, values, stride), loadStrided<T>(tangents, tangents, stride));
    else if constexpr (std::is_same_v<T, Scalar>)
        return *values;
    else {
        Scalar lanes[T::size];
        for (std::size_t i = 0; i < T::size; i++)
            lanes[i] = values[i*stride];
        return T::load_unaligned(lanes);
    }
}

template <class T, class Scalar>
void storeStrided(Scalar* pointer, std::int64_t stride, const T& value) {
    if constexpr (std::is_same_v<T, Scalar>)
        *pointer = value;
    else {
        Scalar lanes[T::size];
        value.store_unaligned(lanes);
        for (std::size_t i = 0; i < T::size; i++)
            pointer[i*stride] = lanes[i];
    }
}

/**
 * Calls body(T(), row, sample) for every row and every group of samples; T is the SIMD vector of Scalar for full groups and
 * Scalar itself for the remainder.
 */
template <class Scalar, class Body>
void forEachLane(std::int64_t rows, std::int64_t samples, const Body& body) {
    using Vector = xsimd::batch<Scalar>;
    constexpr std::int64_t width = Vector::size;
    constexpr std::int64_t blockSize = 8*width;
    const std::int64_t blocks = (samples+blockSize-1)/blockSize;
    at::parallel_for(0, rows*blocks, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t task = begin; task < end; task++) {
            const std::int64_t row = task/blocks;
            std::int64_t sample = (task%blocks)*blockSize;
            const std::int64_t last = std::min(sample+blockSize, samples);
            for (; sample+width <= last; sample += width)
                body(Vector(), row, sample);
            for (; sample < last; sample++)
                body(Scalar(), row, sample);
        }
    });
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_LANES_H_
