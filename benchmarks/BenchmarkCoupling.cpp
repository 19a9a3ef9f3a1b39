// SPDX-License-Identifier: MIT
// Couplings alone, with the transformers' closed form in the density direction, which is the one that is evaluated, and in the other,
// where a root has to be found.
#include "Benchmarks.h"
#include "engine/Coupling.h"

#include <benchmark/benchmark.h>

namespace OpenMMFlow {

namespace {

struct PlacedCoupling {
    CouplingLayer layer;
    std::vector<Domain> domains;    // of all coordinates before it
};

/** All couplings of a model, in the order of evaluation. */
std::vector<PlacedCoupling> couplingsOf(const FlowModel& model) {
    const Architecture& architecture = model.getArchitecture();
    const std::vector<std::vector<Domain>> domains = coordinateDomains(architecture);
    std::vector<PlacedCoupling> couplings;
    for (std::size_t i = 1; i < architecture.layers.size(); i++)
        if (const CouplingLayer* layer = std::get_if<CouplingLayer>(&architecture.layers[i]))
            couplings.push_back({*layer, domains[i-1]});
    return couplings;
}

/** The transformer alone: its parameters no longer depend on other coordinates, so that the networks cost next to nothing. */
void removeConditioner(CouplingLayer& layer) {
    layer.conditionedOn.clear();
    for (std::vector<DenseLayer>& network : layer.conditioner.networks) {
        network.erase(network.begin(), network.end()-1);
        Tensor& weight = network.back().weight;
        weight.shape[1] = 0;
        weight.values.clear();
    }
}

void evaluate(benchmark::State& state, std::vector<PlacedCoupling> placed, Direction closedForm, int count, bool transformersOnly) {
    std::vector<Coupling<float>> couplings;
    std::vector<AlignedArray<float>> arenas;
    std::size_t n = 0;
    for (PlacedCoupling& p : placed) {
        std::visit([&](auto& transformer) { transformer.closedForm = closedForm; }, p.layer.transformer);
        if (transformersOnly)
            removeConditioner(p.layer);
        couplings.emplace_back(p.layer, p.domains);
        arenas.push_back(couplings.back().createArena(count));
        n = p.domains.size();
    }
    std::vector<double> inputs(n*count), coordinates, gradient(n*count), logDet(count);
    for (std::size_t i = 0; i < inputs.size(); i++)
        inputs[i] = 0.05+0.9*((i*2654435761u) % 1000)/1000;
    RootFinding roots;
    for (auto _ : state) {
        coordinates = inputs;
        for (std::size_t i = 0; i < couplings.size(); i++)
            couplings[i].forward(count, true, coordinates.data(), logDet.data(), arenas[i].data(), roots);
        for (std::size_t i = couplings.size(); i-- > 0;)
            couplings[i].backward(count, gradient.data(), arenas[i].data());
        benchmark::DoNotOptimize(gradient[0]);
        std::fill(gradient.begin(), gradient.end(), 0.0);
    }
    state.counters["molecules"] = count;
}

} // namespace

void registerCouplings(const NamedModel& model) {
    const std::vector<PlacedCoupling> couplings = couplingsOf(model.model);
    for (bool transformersOnly : {true, false})
        for (Direction closedForm : {Direction::Density, Direction::Sampling})
            for (int count : {1, Coupling<float>::blockSize()/2, Coupling<float>::blockSize()}) {
                const std::string name = std::string(transformersOnly ? "Mixture/" : "Coupling/")+
                        (closedForm == Direction::Density ? "closed/" : "roots/")+model.name+"/"+std::to_string(count);
                benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
                    evaluate(state, couplings, closedForm, count, transformersOnly);
                });
            }
}

} // namespace OpenMMFlow
