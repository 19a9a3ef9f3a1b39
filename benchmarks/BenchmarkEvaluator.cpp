// SPDX-License-Identifier: MIT
#include "Benchmarks.h"
#include "engine/Evaluator.h"

#include <benchmark/benchmark.h>

namespace OpenMMFlow {

static void evaluate(benchmark::State& state, const NamedModel& model, Precision precision, int count, bool withGradient) {
    const Evaluator evaluator(model.model, precision);
    const Evaluator::WorkspacePointer workspace = evaluator.createWorkspace(count);
    const std::vector<double> positions = conformations(model, count);
    std::vector<ContinuedPotential> potentials(count);
    std::vector<double> gradient(positions.size());
    for (auto _ : state) {
        evaluator.continuedPotential(count, positions.data(), 1.0, potentials.data(), withGradient ? gradient.data() : nullptr,
                *workspace);
        benchmark::DoNotOptimize(potentials[0].flow);
    }
    state.counters["molecules"] = count;
    state.counters["parameters"] = static_cast<double>(model.model.getNumParameters());
}

void registerEvaluator(const NamedModel& model) {
    for (Precision precision : {Precision::Single, Precision::Double}) {
        const std::string name = (precision == Precision::Single ? "single/" : "double/")+model.name+"/";
        const int block = Evaluator(model.model, precision).getBlockSize();
        for (int count : {1, block/2, block, 1024})
            benchmark::RegisterBenchmark(("Evaluator/"+name+std::to_string(count)).c_str(),
                    [=, &model](benchmark::State& state) { evaluate(state, model, precision, count, true); });
        benchmark::RegisterBenchmark(("Energy/"+name+"1").c_str(),
                [=, &model](benchmark::State& state) { evaluate(state, model, precision, 1, false); });
    }
}

} // namespace OpenMMFlow
