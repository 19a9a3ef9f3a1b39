// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DUAL_H_
#define OPENMMFLOW_DUAL_H_

#include "formulas/Formulas.h"

#include <cmath>
#include <type_traits>

namespace OpenMMFlow {

/**
 * A number with one tangent: value + tangent*epsilon, epsilon^2 = 0. Formula text that is evaluated with duals returns its own
 * directional derivative, so analytic gradients become exact second derivatives.
 *
 * T is double, float or a SIMD vector of either. Comparisons look at the value; the result has T's type of mask.
 */
template <class T>
struct Dual {
    T value, tangent;

    Dual() = default;
    Dual(T value, T tangent) : value(value), tangent(tangent) {
    }
    /** A constant. Literals of formula text arrive here. */
    template <class Scalar, class = std::enable_if_t<std::is_arithmetic_v<Scalar>>>
    Dual(Scalar constant) : value((T) constant), tangent((T) 0) {
    }

    Dual operator-() const {
        return {-value, -tangent};
    }
    friend Dual operator+(const Dual& a, const Dual& b) {
        return {a.value+b.value, a.tangent+b.tangent};
    }
    friend Dual operator-(const Dual& a, const Dual& b) {
        return {a.value-b.value, a.tangent-b.tangent};
    }
    friend Dual operator*(const Dual& a, const Dual& b) {
        return {a.value*b.value, a.value*b.tangent+a.tangent*b.value};
    }
    friend Dual operator/(const Dual& a, const Dual& b) {
        T inverse = (T) 1/b.value;
        T quotient = a.value*inverse;
        return {quotient, (a.tangent-quotient*b.tangent)*inverse};
    }
    Dual& operator+=(const Dual& b) {
        return *this = *this+b;
    }
    Dual& operator-=(const Dual& b) {
        return *this = *this-b;
    }
    Dual& operator*=(const Dual& b) {
        return *this = *this*b;
    }

    friend auto operator<(const Dual& a, const Dual& b) {
        return a.value < b.value;
    }
    friend auto operator>(const Dual& a, const Dual& b) {
        return a.value > b.value;
    }
};

// Found by argument-dependent lookup from formula text. The unqualified calls inside see std's overloads for built-in scalars
// and those of the vector type otherwise.

template <class T>
Dual<T> exp(const Dual<T>& a) {
    using std::exp;
    T e = exp(a.value);
    return {e, e*a.tangent};
}

template <class T>
Dual<T> log(const Dual<T>& a) {
    using std::log;
    return {log(a.value), a.tangent/a.value};
}

template <class T>
Dual<T> sqrt(const Dual<T>& a) {
    using std::sqrt;
    T root = sqrt(a.value);
    return {root, (T) 0.5*a.tangent/root};
}

template <class T>
Dual<T> sin(const Dual<T>& a) {
    using std::cos;
    using std::sin;
    return {sin(a.value), cos(a.value)*a.tangent};
}

template <class T>
Dual<T> cos(const Dual<T>& a) {
    using std::cos;
    using std::sin;
    return {cos(a.value), -sin(a.value)*a.tangent};
}

template <class T>
Dual<T> erf(const Dual<T>& a) {
    using std::erf;
    using std::exp;
    return {erf(a.value), (T) 1.1283791670955126*exp(-a.value*a.value)*a.tangent};
}

template <class T>
Dual<T> erfc(const Dual<T>& a) {
    using std::erfc;
    using std::exp;
    return {erfc(a.value), (T) -1.1283791670955126*exp(-a.value*a.value)*a.tangent};
}

template <class T>
Dual<T> atan(const Dual<T>& a) {
    using std::atan;
    return {atan(a.value), a.tangent/((T) 1+a.value*a.value)};
}

template <class T>
Dual<T> atan2(const Dual<T>& y, const Dual<T>& x) {
    using std::atan2;
    return {atan2(y.value, x.value), (x.value*y.tangent-y.value*x.tangent)/(x.value*x.value+y.value*y.value)};
}

template <class T>
Dual<T> floor(const Dual<T>& a) {
    using std::floor;
    return {floor(a.value), (T) 0};
}

template <class Condition, class T>
Dual<T> select(const Condition& condition, const Dual<T>& a, const Dual<T>& b) {
    return {select(condition, a.value, b.value), select(condition, a.tangent, b.tangent)};
}

template <class T>
Dual<T> abs(const Dual<T>& a) {
    return select(a.value < (T) 0, -a, a);
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DUAL_H_
