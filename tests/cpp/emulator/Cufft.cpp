// SPDX-License-Identifier: MIT
// What OpenMM's CUDA library wants to find of cuFFT. There are no Fourier transforms here: PME cannot be emulated.

namespace {

constexpr int notSupported = 16;

} // namespace

extern "C" {

int cufftPlan3d() {
    return notSupported;
}

int cufftDestroy() {
    return notSupported;
}

int cufftSetStream() {
    return notSupported;
}

int cufftExecC2C() {
    return notSupported;
}

int cufftExecC2R() {
    return notSupported;
}

int cufftExecD2Z() {
    return notSupported;
}

int cufftExecR2C() {
    return notSupported;
}

int cufftExecZ2D() {
    return notSupported;
}

int cufftExecZ2Z() {
    return notSupported;
}

} // extern "C"
