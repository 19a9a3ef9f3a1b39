// SPDX-License-Identifier: MIT
// The dense product of engine/CouplingKernels.h alone, for the widest vectors that the compiler knows of this machine.
#include "Benchmarks.h"
#include "engine/AlignedArray.h"
#include "engine/CouplingKernels.h"

#include <benchmark/benchmark.h>

namespace OpenMMFlow {

static void multiply(benchmark::State& state, int rows, int columns, bool block) {
    using V = xsimd::batch<float>;
    using Dense = Kernels<V>;
    const int M = (block ? 2*Dense::L : 1);
    const int padded = Dense::padded(columns);
    AlignedArray<float> matrix(static_cast<std::size_t>(rows)*padded), bias(padded+4*Dense::L);
    AlignedArray<float> x(static_cast<std::size_t>(rows)*M), y((columns+4*Dense::L)*static_cast<std::size_t>(M));
    std::fill_n(matrix.data(), static_cast<std::size_t>(rows)*padded, 0.01f);
    std::fill_n(x.data(), rows*static_cast<std::size_t>(M), 0.5f);
    const PackedMatrix<float> packed = {rows, columns, matrix.data()};
    for (auto _ : state) {
        Dense::multiply(packed, M, x.data(), y.data(), bias.data());
        benchmark::DoNotOptimize(y.data()[0]);
        benchmark::ClobberMemory();
    }
    state.counters["GFLOP/s"] = benchmark::Counter(2e-9*rows*columns*M, benchmark::Counter::kIsIterationInvariantRate);
}

void registerDense() {
    for (bool block : {false, true})
        for (auto [rows, columns] : {std::pair(20, 64), std::pair(64, 64), std::pair(64, 504), std::pair(504, 64), std::pair(256, 1024)})
            benchmark::RegisterBenchmark(
                    ((block ? "Dense/block/" : "Dense/single/")+std::to_string(rows)+"/"+std::to_string(columns)).c_str(),
                    [=, rows = rows, columns = columns](benchmark::State& state) { multiply(state, rows, columns, block); });
}

} // namespace OpenMMFlow
