// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FORMULAS_H_
#define OPENMMFLOW_FORMULAS_H_

#include <cmath>

/**
 * The scalar mathematics of OpenMM-Flow, one text for every place that evaluates it.
 *
 * The headers of this folder are formula text. Each is valid C++ inside a class template whose `real` is double, float, a SIMD
 * vector or a dual number, and at the same time source of an OpenMM common compute kernel (OpenCL C 1.2, CUDA, HIP). Hence:
 * functions start with FORMULA; structs are anonymous typedefs of scalars; no references, no overloads, no file-scope
 * constants; every literal is cast, `(real) 0.5`; branches only on `int` and `bool`, everything else through
 * SELECT(condition, a, b), which may evaluate both sides; functions in capitals (EXP, LOG, SQRT, SIN, COS, ATAN, ERF,
 * ERFC, FABS, FLOOR) are macros. Constants are written with all digits that double needs.
 *
 * Text that works on a list of numbers, such as the parameters of a spline, takes it as Parameters and reads and writes
 * PARAMETER(list, i). Loops run over an int that is the same in all lanes: what a lane needs is selected on the way.
 */
#define FORMULA static inline
#define SELECT(condition, a, b) select((condition), real(a), real(b))
#define EXP(x) exp(x)
#define LOG(x) log(x)
#define SQRT(x) sqrt(x)
#define SIN(x) sin(x)
#define COS(x) cos(x)
#define ATAN(x) atan(x)
#define ERF(x) erf(x)
#define ERFC(x) erfc(x)
#define FABS(x) abs(x)
#define FLOOR(x) floor(x)
#define PARAMETER(list, i) (list)[i]

namespace OpenMMFlow {

// The functions behind the macros for built-in scalars. Those of vector and dual types are found by argument-dependent lookup.
using std::abs;
using std::atan;
using std::cos;
using std::erf;
using std::erfc;
using std::exp;
using std::floor;
using std::log;
using std::sin;
using std::sqrt;

inline double select(bool condition, double a, double b) {
    return condition ? a : b;
}

inline float select(bool condition, float a, float b) {
    return condition ? a : b;
}

template <class Real>
struct Formulas {
    using real = Real;
    using Parameters = Real*;
#include "formulas/SmoothSigmoid.h"
#include "formulas/SmoothMixture.h"
#include "formulas/MixtureHead.h"
#include "formulas/Activation.h"
#include "formulas/Transformer.h"
#include "formulas/RationalQuadraticSpline.h"
#include "formulas/CubicBSpline.h"
#include "formulas/Affine.h"
#include "formulas/Moebius.h"
#include "formulas/Analytic.h"
#include "formulas/Transformers.h"
#include "formulas/Marginal.h"
#include "formulas/Elementwise.h"
#include "formulas/InternalCoordinates.h"
#include "formulas/Alignment.h"
#include "formulas/SupportContinuation.h"
};

} // namespace OpenMMFlow

#undef FORMULA
#undef SELECT
#undef EXP
#undef LOG
#undef SQRT
#undef SIN
#undef COS
#undef ATAN
#undef ERF
#undef ERFC
#undef FABS
#undef FLOOR
#undef PARAMETER

#endif // OPENMMFLOW_FORMULAS_H_
