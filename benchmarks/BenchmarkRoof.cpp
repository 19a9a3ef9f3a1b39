// SPDX-License-Identifier: MIT
// What this processor takes for the two things that no evaluation with gradient goes without, each alone and at its fastest: reading every
// weight twice, which bounds one molecule, and multiplying and adding with every weight twice, which bounds many.
#include "Benchmarks.h"
#include "engine/AlignedArray.h"

#include <algorithm>
#include <array>
#include <benchmark/benchmark.h>
#include <xsimd/xsimd.hpp>

namespace OpenMMFlow {

using V = xsimd::batch<float>;
/** Independent sums: enough to hide the latency of a multiply-add. */
using Sums = std::array<V, 12>;

static constexpr std::size_t LINE = V::size*std::tuple_size<Sums>::value;

/** Once from the first weight to the last and once back, in the order in which forward and backward passes come by. */
static void read(benchmark::State& state, std::size_t numWeights) {
    const std::size_t length = (numWeights+LINE-1)/LINE*LINE;
    AlignedArray<float> weights(length);
    std::fill_n(weights.data(), length, 0.01f);
    Sums sums;
    sums.fill(V(0.0f));
    const V factor(0.5f);
    const auto take = [&](const float* line) {
        for (std::size_t i = 0; i < sums.size(); i++)
            sums[i] = xsimd::fma(V::load_aligned(line+i*V::size), factor, sums[i]);
    };
    for (auto _ : state) {
        for (std::size_t i = 0; i < length; i += LINE)
            take(weights.data()+i);
        for (std::size_t i = length; i > 0; i -= LINE)
            take(weights.data()+i-LINE);
        benchmark::DoNotOptimize(sums);
    }
}

/** Of one molecule, a lane of a block; from registers alone. */
static void multiplyAndAdd(benchmark::State& state, std::size_t numWeights) {
    const std::size_t count = (2*numWeights+LINE-1)/LINE;
    Sums sums;
    sums.fill(V(1.0f));
    V factor(0.999f), term(0.001f);
    benchmark::DoNotOptimize(factor);
    benchmark::DoNotOptimize(term);
    for (auto _ : state) {
        for (std::size_t i = 0; i < count; i++)
            for (V& sum : sums)
                sum = xsimd::fma(sum, factor, term);
        benchmark::DoNotOptimize(sums);
    }
    state.counters["GFLOP/s"] = benchmark::Counter(2e-9*count*LINE, benchmark::Counter::kIsIterationInvariantRate);
}

void registerRoof(const NamedModel& model) {
    const std::size_t numWeights = model.model.getNumParameters();
    benchmark::RegisterBenchmark(("Roof/read/"+model.name).c_str(), read, numWeights);
    benchmark::RegisterBenchmark(("Roof/multiply/"+model.name).c_str(), multiplyAndAdd, numWeights);
}

} // namespace OpenMMFlow
