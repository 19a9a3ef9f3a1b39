// SPDX-License-Identifier: MIT
#include "Benchmarks.h"
#include "WeightStream.h"

#include <benchmark/benchmark.h>

namespace OpenMMFlow {

void registerFloor(const NamedModel& model) {
    benchmark::RegisterBenchmark(("Floor/"+model.name).c_str(), [&model](benchmark::State& state) {
        WeightStream stream(model.model);
        for (auto _ : state)
            benchmark::DoNotOptimize(stream.run());
        state.counters["parameters"] = static_cast<double>(model.model.getNumParameters());
    });
}

} // namespace OpenMMFlow
