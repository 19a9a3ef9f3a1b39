// SPDX-License-Identifier: MIT
// Benchmarks of the engine, without OpenMM:
//
//     FlowBenchmarks [--benchmark_...] MOLECULE.pdb MODEL.safetensors...
//
// with the options of Google Benchmark: --benchmark_filter=REGEX, --benchmark_out=FILE.json, --benchmark_repetitions=N, ...
#include "Benchmarks.h"

#include <benchmark/benchmark.h>

#include <exception>
#include <iostream>

int main(int argc, char** argv) {
    using namespace OpenMMFlow;
    benchmark::Initialize(&argc, argv);
    if (argc < 3 || argv[1][0] == '-') {
        std::cerr << "usage: FlowBenchmarks [--benchmark_filter=REGEX ...] MOLECULE.pdb MODEL.safetensors...\n";
        return 2;
    }
    try {
        std::vector<NamedModel> models;
        for (int i = 2; i < argc; i++)
            models.push_back(loadNamedModel(argv[i], argv[1]));
        registerDense();
        for (const NamedModel& model : models) {
            registerFloor(model);
            registerRoof(model);
            registerCouplings(model);
            registerEvaluator(model);
        }
        benchmark::RunSpecifiedBenchmarks();
    }
    catch (const std::exception& error) {
        std::cerr << "FlowBenchmarks: " << error.what() << "\n";
        return 1;
    }
}
