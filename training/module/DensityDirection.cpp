// SPDX-License-Identifier: MIT
#include "module/DensityDirection.h"

#include "model/ArchitectureTensors.h"
#include "model/FlowModelError.h"
#include "operators/Operators.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <algorithm>
#include <limits>

namespace OpenMMFlow {


namespace {

template <class Index>
at::Tensor indexTensor(const std::vector<Index>& indices) {
    return at::tensor(std::vector<int64_t>(indices.begin(), indices.end()), at::kLong);
}

std::string name(Distribution distribution) {
    switch (distribution) {
        case Distribution::Uniform: return "uniform";
        case Distribution::Normal: return "normal";
        default: return "truncatedNormal";
    }
}

std::string name(ActivationType activation) {
    switch (activation) {
        case ActivationType::SiLU: return "silu";
        case ActivationType::Tanh: return "tanh";
        case ActivationType::Sin: return "sin";
        case ActivationType::GELU: return "gelu";
        default: return "softplus";
    }
}

std::optional<at::Tensor> optionalTensor(const std::vector<at::Tensor>& tensors, const std::optional<size_t>& index) {
    return index ? std::optional<at::Tensor>(tensors[*index]) : std::nullopt;
}

} // namespace

DensityDirection::DensityDirection(const Architecture& architecture) :
        numParticles(architecture.numParticles), frameMeasure(architecture.measure == Measure::Frame) {
    for (const auto& tensor : namedTensors(architecture))
        tensorNames.push_back(tensor.first);
    const std::vector<Domain> domains = coordinateDomains(architecture).back();
    std::vector<int> boundedCoordinates;
    for (size_t l = 0; l < architecture.layers.size(); l++) {
        const std::string prefix = "layers."+std::to_string(l);
        const Layer& layer = architecture.layers[l];
        if (auto* coordinates = std::get_if<InternalCoordinatesLayer>(&layer)) {
            for (const auto& row : coordinates->zMatrix)
                zMatrix.insert(zMatrix.end(), row.begin(), row.end());
        }
        else if (auto* marginal = std::get_if<MarginalLayer>(&layer)) {
            marginals.push_back(plan(*marginal, prefix));
            if (marginal->distribution != Distribution::Normal)
                boundedCoordinates.insert(boundedCoordinates.end(), marginal->coordinates.begin(), marginal->coordinates.end());
        }
        else
            couplings.push_back(plan(std::get<CouplingLayer>(layer), prefix, domains));
    }
    for (size_t e = 0; e < architecture.base.size(); e++)
        bases.push_back(plan(architecture.base[e], "base."+std::to_string(e)));
    bounded = indexTensor(boundedCoordinates);
}

size_t DensityDirection::tensorIndex(const std::string& tensorName) const {
    return std::lower_bound(tensorNames.begin(), tensorNames.end(), tensorName)-tensorNames.begin();
}

DensityDirection::DistributionPlan DensityDirection::plan(const CoordinateDistributions& distributions, const std::string& prefix) const {
    auto index = [&](const char* tensorName, const OpenMMFlow::Tensor& tensor) {
        return tensor.shape.empty() ? std::nullopt : std::optional<size_t>(tensorIndex(prefix+tensorName));
    };
    return {name(distributions.distribution), indexTensor(distributions.coordinates), index(".lower", distributions.lower),
            index(".upper", distributions.upper), index(".mean", distributions.mean), index(".std", distributions.std)};
}

DensityDirection::CouplingPlan DensityDirection::plan(const CouplingLayer& layer, const std::string& prefix,
        const std::vector<Domain>& domains) const {
    CouplingPlan coupling;
    std::vector<int> plain, circular;
    for (int coordinate : layer.conditionedOn)
        (domains[coordinate] == Domain::Circle ? circular : plain).push_back(coordinate);
    coupling.transformed = indexTensor(layer.transformed);
    coupling.plain = indexTensor(plain);
    coupling.circular = indexTensor(circular);
    for (int coordinate : layer.transformed)
        coupling.transformedIsCircle.push_back(domains[coordinate] == Domain::Circle);
    if (const SmoothMixtureTransformer* mixture = std::get_if<SmoothMixtureTransformer>(&layer.transformer))
        coupling.transformer = *mixture;
    else
        throw FlowModelError("a model with a transformer other than smoothMixture cannot be trained");
    coupling.activation = name(layer.conditioner.activation);
    for (size_t n = 0; n < layer.conditioner.networks.size(); n++) {
        coupling.networks.emplace_back();
        for (size_t m = 0; m < layer.conditioner.networks[n].size(); m++) {
            const std::string dense = prefix+".networks."+std::to_string(n)+"."+std::to_string(m);
            coupling.networks.back().push_back({tensorIndex(dense+".weight"), tensorIndex(dense+".bias")});
        }
    }
    return coupling;
}

DensityDirection::Result DensityDirection::operator()(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) const {
    TORCH_CHECK_VALUE(positions.dim() == 3 && positions.size(1) == numParticles && positions.size(2) == 3,
            "positions must have shape (batch, ", numParticles, ", 3), got ", positions.sizes());
    TORCH_CHECK_VALUE(tensors.size() == tensorNames.size(), "the flow has ", tensorNames.size(), " tensors, got ", tensors.size());
    auto [y, logProb] = internalCoordinates(positions.to(at::kDouble), zMatrix, frameMeasure);
    for (const DistributionPlan& plan : marginals) {
        auto [value, logDensity] = marginal(y.index_select(0, plan.coordinates), plan.type, optionalTensor(tensors, plan.lower),
                optionalTensor(tensors, plan.upper), optionalTensor(tensors, plan.mean), optionalTensor(tensors, plan.std));
        y = y.index_copy(0, plan.coordinates, value);
        logProb = logProb+logDensity.sum(0);
    }
    const at::Tensor edges = y.detach().index_select(0, bounded);
    const at::Tensor inside = edges.ge(0).logical_and(edges.le(1)).all(0);

    if (!couplings.empty())
        y = y.to(tensors[couplings.front().networks.front().front().weight].scalar_type());
    for (const CouplingPlan& coupling : couplings)
        logProb = logProb+applyCoupling(coupling, tensors, y).sum(0);

    for (const DistributionPlan& plan : bases) {
        if (plan.type == "uniform")
            continue;
        const at::Tensor z = y.index_select(0, plan.coordinates).to(at::kDouble);
        // Only the truncated normal reads the edges of the interval.
        const at::Tensor lower = at::zeros({z.size(0)}, at::kDouble), upper = at::ones({z.size(0)}, at::kDouble);
        auto logDensity = std::get<1>(marginal(z, plan.type, lower, upper, optionalTensor(tensors, plan.mean), optionalTensor(tensors, plan.std)));
        logProb = logProb+logDensity.sum(0);
    }
    return {y.t(), at::where(inside, logProb, -std::numeric_limits<double>::infinity())};
}

at::Tensor DensityDirection::applyCoupling(const CouplingPlan& coupling, const std::vector<at::Tensor>& tensors, at::Tensor& y) const {
    const double twoPi = 6.28318530717958648;
    const at::Tensor angles = y.index_select(0, coupling.circular)*twoPi;
    const at::Tensor features = at::cat({y.index_select(0, coupling.plain), angles.cos(), angles.sin()});
    std::vector<at::Tensor> outputs;
    for (const auto& network : coupling.networks) {
        at::Tensor h = features;
        for (size_t m = 0; m < network.size(); m++) {
            if (m > 0)
                h = activation(h, coupling.activation);
            h = at::addmm(tensors[network[m].bias].unsqueeze(1), tensors[network[m].weight], h);
        }
        outputs.push_back(h);
    }
    const SmoothMixtureTransformer& t = coupling.transformer;
    const int64_t numTransformed = coupling.transformedIsCircle.size();
    const at::Tensor raw = at::cat(outputs).reshape({5, numTransformed, t.components, y.size(1)});
    auto [value, logDensity] = smoothMixture(y.index_select(0, coupling.transformed), raw, coupling.transformedIsCircle,
            t.closedForm == Direction::Sampling, t.head == MixtureHead::Published, t.exponent, t.alphaOffset, t.alphaRange,
            t.logSteepnessBound, t.minimumFloor);
    y = y.index_copy(0, coupling.transformed, value);
    return logDensity;
}

} // namespace OpenMMFlow
