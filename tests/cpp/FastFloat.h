// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FASTFLOAT_H_
#define OPENMMFLOW_FASTFLOAT_H_

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace OpenMMFlow {

/**
 * Single precision as CUDA's fast math computes with it, emulated: denormal numbers are zero, and each operation that fast math replaces
 * by an approximation is wrong by as much as is documented, up or down at random. Sums and products are rounded correctly there, too; that
 * both may be fused is not emulated, as it only saves a rounding.
 *
 * Bounds: CUDA C++ Programming Guide, "Mathematical Functions", tables of single-precision functions and of intrinsic functions
 * (-use_fast_math: -ftz=true -prec-div=false -prec-sqrt=false). What has no approximation of its own may use others inside: its bound is taken
 * twice.
 *
 * Conversions are those of a float in C, so that kernel text compiles with this in its place.
 */
class FastFloat {
public:
    FastFloat() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
    FastFloat(T number) : number(flushed(static_cast<float>(number))) {
    }
    operator double() const {
        return number;
    }

    /** Begin another sequence of random signs. */
    static void seed(std::uint64_t seed) {
        state = 0x9e3779b97f4a7c15ull*(seed+1);
    }

    friend FastFloat operator-(FastFloat a) {
        return -a.number;
    }
    friend FastFloat operator+(FastFloat a, FastFloat b) {
        return a.number+b.number;
    }
    friend FastFloat operator-(FastFloat a, FastFloat b) {
        return a.number-b.number;
    }
    friend FastFloat operator*(FastFloat a, FastFloat b) {
        return a.number*b.number;
    }
    friend FastFloat operator/(FastFloat a, FastFloat b) {
        // Beyond 2^126 a finite quotient may become 0.
        if (std::abs(b.number) > 0x1p126f)
            return 0.0f*a.number*b.number;
        return offInUlps(static_cast<double>(a.number)/b.number, 2);
    }
    FastFloat& operator+=(FastFloat b) {
        return *this = *this+b;
    }
    FastFloat& operator-=(FastFloat b) {
        return *this = *this-b;
    }
    FastFloat& operator*=(FastFloat b) {
        return *this = *this*b;
    }
    FastFloat& operator/=(FastFloat b) {
        return *this = *this/b;
    }

    friend FastFloat sqrt(FastFloat x) {
        return offInUlps(std::sqrt(static_cast<double>(x.number)), 1);
    }
    friend FastFloat exp(FastFloat x) {
        return offInUlps(std::exp(static_cast<double>(x.number)), 2+std::floor(std::abs(1.173*x.number)));
    }
    friend FastFloat log(FastFloat x) {
        const double exact = std::log(static_cast<double>(x.number));
        return x.number >= 0.5f && x.number <= 2 ? off(exact, std::exp2(-21.41)) : offInUlps(exact, 3);
    }
    // "Larger elsewhere" than between -pi and pi: in proportion to the argument, whose reduction is rounded.
    friend FastFloat sin(FastFloat x) {
        return off(std::sin(static_cast<double>(x.number)), std::exp2(-21.41)*std::fmax(1, std::abs(x.number)/PI));
    }
    friend FastFloat cos(FastFloat x) {
        return off(std::cos(static_cast<double>(x.number)), std::exp2(-21.19)*std::fmax(1, std::abs(x.number)/PI));
    }
    friend FastFloat atan(FastFloat x) {
        return offInUlps(std::atan(static_cast<double>(x.number)), 4);
    }
    friend FastFloat atan2(FastFloat y, FastFloat x) {
        return offInUlps(std::atan2(static_cast<double>(y.number), x.number), 6);
    }
    friend FastFloat erf(FastFloat x) {
        return offInUlps(std::erf(static_cast<double>(x.number)), 4);
    }
    friend FastFloat erfc(FastFloat x) {
        return offInUlps(std::erfc(static_cast<double>(x.number)), 8);
    }
    friend FastFloat floor(FastFloat x) {
        return std::floor(x.number);
    }
    friend FastFloat fabs(FastFloat x) {
        return std::abs(x.number);
    }
    friend FastFloat abs(FastFloat x) {
        return std::abs(x.number);
    }
    friend FastFloat max(FastFloat a, FastFloat b) {
        return std::fmax(a.number, b.number);
    }
    friend FastFloat min(FastFloat a, FastFloat b) {
        return std::fmin(a.number, b.number);
    }
    friend FastFloat select(bool condition, FastFloat a, FastFloat b) {
        return condition ? a : b;
    }

private:
    static constexpr double PI = 3.14159265358979323846;

    static float flushed(float x) {
        return std::abs(x) < FLT_MIN ? std::copysign(0.0f, x) : x;
    }
    /** A result that is off by a bound, up or down. */
    static FastFloat off(double exact, double bound) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return static_cast<float>(state & (1u << 20) ? exact+bound : exact-bound);
    }
    static FastFloat offInUlps(double exact, double ulps) {
        if (exact == 0 || !std::isfinite(exact))
            return exact;
        return off(exact, std::ldexp(ulps, std::ilogb(exact)-(FLT_MANT_DIG-1)));
    }

    static inline std::uint64_t state = 1;
    float number;
};

/** What C makes of a float and a number of another type. */
template <class T>
using WithFastFloat = std::enable_if_t<std::is_arithmetic_v<T>, std::conditional_t<std::is_same_v<T, double>, double, FastFloat>>;

template <class T>
WithFastFloat<T> operator+(FastFloat a, T b) {
    return WithFastFloat<T>(a)+WithFastFloat<T>(b);
}
template <class T>
WithFastFloat<T> operator+(T a, FastFloat b) {
    return WithFastFloat<T>(a)+WithFastFloat<T>(b);
}
template <class T>
WithFastFloat<T> operator-(FastFloat a, T b) {
    return WithFastFloat<T>(a)-WithFastFloat<T>(b);
}
template <class T>
WithFastFloat<T> operator-(T a, FastFloat b) {
    return WithFastFloat<T>(a)-WithFastFloat<T>(b);
}
template <class T>
WithFastFloat<T> operator*(FastFloat a, T b) {
    return WithFastFloat<T>(a)*WithFastFloat<T>(b);
}
template <class T>
WithFastFloat<T> operator*(T a, FastFloat b) {
    return WithFastFloat<T>(a)*WithFastFloat<T>(b);
}
template <class T>
WithFastFloat<T> operator/(FastFloat a, T b) {
    return WithFastFloat<T>(a)/WithFastFloat<T>(b);
}
template <class T>
WithFastFloat<T> operator/(T a, FastFloat b) {
    return WithFastFloat<T>(a)/WithFastFloat<T>(b);
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FASTFLOAT_H_
