// SPDX-License-Identifier: MIT
// What the formula text of flow/formulas is made of in device code, first for `real`: networks and transformers.
// The functions are the overloaded ones of OpenCL C, CUDA and HIP. Their native_ variants in OpenCL have no bounds.

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
#define FORMULA static DEVICE inline __attribute__((always_inline))
#define SELECT(condition, a, b) ((condition) ? (a) : (b))
#define EXP(x) exp(x)
#define LOG(x) log(x)
#define SQRT(x) sqrt(x)
#define SIN(x) sin(x)
#define COS(x) cos(x)
#define ATAN(x) atan(x)
#define ERF(x) erf(x)
#define ERFC(x) erfc(x)
#define FABS(x) fabs(x)
#define FLOOR(x) floor(x)
