// SPDX-License-Identifier: MIT
#include "module/DensityDirection.h"

#include "model/ArchitectureTensors.h"
#include "module/CoordinateStages.h"
#include "module/CouplingStage.h"
#include "operators/Operators.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <array>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>

namespace OpenMMFlow {

namespace {

template <class Index>
at::Tensor indexTensor(const std::vector<Index>& indices) {
    return at::tensor(std::vector<int64_t>(indices.begin(), indices.end()), at::kLong);
}

std::vector<int64_t> flat(const std::vector<std::array<int, 4>>& rows) {
    std::vector<int64_t> result;
    for (const auto& row : rows)
        result.insert(result.end(), row.begin(), row.end());
    return result;
}

std::optional<at::Tensor> optionalTensor(const TensorList& tensors, const std::optional<size_t>& index) {
    return index ? std::optional<at::Tensor>(tensors[*index]) : std::nullopt;
}

std::string name(Distribution distribution) {
    switch (distribution) {
        case Distribution::Uniform: return "uniform";
        case Distribution::Normal: return "normal";
        default: return "truncatedNormal";
    }
}

std::string name(ElementwiseMap map) {
    switch (map) {
        case ElementwiseMap::AffineNormalization: return "affineNormalization";
        case ElementwiseMap::Logit: return "logit";
        case ElementwiseMap::Logistic: return "logistic";
        default: return "circularShift";
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

/** Makes the stages of an architecture; knows where each tensor stands. */
class StageBuilder {
public:
    StageBuilder(const Architecture& architecture, const std::vector<std::string>& tensorNames) :
            architecture(architecture), tensorNames(tensorNames) {
    }

    FlowFunctionPointer build() {
        const std::vector<std::vector<Domain>> domains = coordinateDomains(architecture);
        bool anyCoupling = false;
        for (size_t l = 0; l < architecture.layers.size(); l++) {
            const std::string prefix = "layers."+std::to_string(l);
            const Layer& layer = architecture.layers[l];
            if (auto* coordinates = std::get_if<InternalCoordinatesLayer>(&layer))
                add(*coordinates);
            else if (auto* marginal = std::get_if<MarginalLayer>(&layer))
                add(*marginal, prefix, ElementwiseStage::Output::ValueAndLogSlope, marginal->distribution != Distribution::Normal);
            else if (auto* coupling = std::get_if<CouplingLayer>(&layer)) {
                if (!anyCoupling)
                    stages.push_back(std::make_unique<TypeStage>(tensorIndex(prefix+".networks.0.0.weight")));
                anyCoupling = true;
                add(*coupling, prefix, domains[l-1]);
            }
            else if (auto* mixed = std::get_if<MixedCoordinatesLayer>(&layer))
                add(*mixed, prefix);
            else if (auto* elementwise = std::get_if<ElementwiseLayer>(&layer))
                add(*elementwise, prefix);
            else
                stages.push_back(std::make_unique<PermutationStage>(indexTensor(std::get<PermutationLayer>(layer).order)));
        }
        for (size_t e = 0; e < architecture.base.size(); e++)
            if (architecture.base[e].distribution != Distribution::Uniform)
                add(architecture.base[e], "base."+std::to_string(e), ElementwiseStage::Output::LogSlopeAlone, false);
        return c10::make_intrusive<FlowFunction>(std::move(stages), std::move(weights));
    }

private:
    size_t tensorIndex(const std::string& tensorName) const {
        return std::lower_bound(tensorNames.begin(), tensorNames.end(), tensorName)-tensorNames.begin();
    }

    std::optional<size_t> optionalIndex(const std::string& tensorName, const OpenMMFlow::Tensor& tensor) const {
        return tensor.shape.empty() ? std::nullopt : std::optional<size_t>(tensorIndex(tensorName));
    }

    void add(const InternalCoordinatesLayer& layer) {
        const OperatorPointer op = makeInternalCoordinates(flat(layer.zMatrix), architecture.measure == Measure::Frame);
        stages.push_back(std::make_unique<PlacementStage>([op](const TensorList&) { return op; }));
    }

    void add(const MixedCoordinatesLayer& layer, const std::string& prefix) {
        const std::vector<int64_t> block(layer.block.begin(), layer.block.end()), zMatrix = flat(layer.zMatrix);
        const bool frame = (architecture.measure == Measure::Frame);
        const size_t reference = tensorIndex(prefix+".reference"), whitening = tensorIndex(prefix+".whitening");
        stages.push_back(std::make_unique<PlacementStage>([=](const TensorList& tensors) {
            return makeMixedCoordinates(block, zMatrix, tensors[reference], tensors[whitening], frame);
        }));
    }

    void add(const ElementwiseLayer& layer, const std::string& prefix) {
        const int64_t size = layer.coordinates.size();
        const std::string type = name(layer.map);
        const auto shift = optionalIndex(prefix+".shift", layer.shift), scale = optionalIndex(prefix+".scale", layer.scale);
        auto factory = [=](const TensorList& tensors) {
            return makeElementwise(size, type, optionalTensor(tensors, shift), optionalTensor(tensors, scale));
        };
        stages.push_back(std::make_unique<ElementwiseStage>(factory, indexTensor(layer.coordinates),
                ElementwiseStage::Output::ValueAndLogSlope, false));
    }

    void add(const CoordinateDistributions& distributions, const std::string& prefix, ElementwiseStage::Output output, bool bounded) {
        auto index = [&](const char* tensorName, const OpenMMFlow::Tensor& tensor) {
            return optionalIndex(prefix+tensorName, tensor);
        };
        const std::string type = name(distributions.distribution);
        const auto lower = index(".lower", distributions.lower), upper = index(".upper", distributions.upper);
        const auto mean = index(".mean", distributions.mean), std = index(".std", distributions.std);
        const int64_t size = distributions.coordinates.size();
        const bool ofUnitInterval = output == ElementwiseStage::Output::LogSlopeAlone;
        auto factory = [=](const TensorList& tensors) {
            auto values = [&](const std::optional<size_t>& at) {
                return optionalTensor(tensors, at);
            };
            // A base density's interval is [0,1]; only the truncated normal reads it.
            if (ofUnitInterval)
                return makeMarginal(size, type, at::zeros({size}, at::kDouble), at::ones({size}, at::kDouble), values(mean), values(std));
            return makeMarginal(size, type, values(lower), values(upper), values(mean), values(std));
        };
        stages.push_back(std::make_unique<ElementwiseStage>(factory, indexTensor(distributions.coordinates), output, bounded));
    }

    void add(const CouplingLayer& layer, const std::string& prefix, const std::vector<Domain>& domains) {
        std::vector<int> plain, circular;
        for (int coordinate : layer.conditionedOn)
            (domains[coordinate] == Domain::Circle ? circular : plain).push_back(coordinate);
        std::vector<DenseConditioner::Network> networks(layer.conditioner.networks.size());
        for (size_t n = 0; n < networks.size(); n++)
            for (size_t m = 0; m < layer.conditioner.networks[n].size(); m++) {
                const std::string dense = prefix+".networks."+std::to_string(n)+"."+std::to_string(m);
                networks[n].push_back({tensorIndex(dense+".weight"), tensorIndex(dense+".bias")});
                weights.insert(weights.end(), {networks[n].back().weight, networks[n].back().bias});
            }
        std::vector<int64_t> transformedIsCircle;
        for (int coordinate : layer.transformed)
            transformedIsCircle.push_back(domains[coordinate] == Domain::Circle);
        c10::intrusive_ptr<DifferentiableOperator> transformer;
        std::vector<int64_t> rawShape;
        if (auto* mixture = std::get_if<SmoothMixtureTransformer>(&layer.transformer)) {
            transformer = makeSmoothMixture(transformedIsCircle, mixture->components, mixture->closedForm == Direction::Sampling,
                    mixture->head == MixtureHead::Published, mixture->exponent, mixture->alphaOffset, mixture->alphaRange,
                    mixture->logSteepnessBound, mixture->minimumFloor);
            rawShape = {5, (int64_t) layer.transformed.size(), mixture->components, -1};
        }
        else {
            const FormulaTransformer& formula = std::get<FormulaTransformer>(layer.transformer);
            transformer = makeTransformer(formula.descriptor->name, transformedIsCircle, formula.closedForm == Direction::Sampling, formula.size,
                    formula.settings);
            const std::vector<int> lengths = rawBlockLengths(layer, domains);
            rawShape = {std::accumulate(lengths.begin(), lengths.end(), (int64_t) 0), -1};
        }
        stages.push_back(std::make_unique<CouplingStage>(
                DenseConditioner(std::move(plain), std::move(circular), makeActivation(name(layer.conditioner.activation)), std::move(networks)),
                std::move(transformer), std::move(rawShape), indexTensor(layer.transformed)));
    }

    const Architecture& architecture;
    const std::vector<std::string>& tensorNames;
    std::vector<std::unique_ptr<Stage>> stages;
    std::vector<size_t> weights;
};

std::vector<std::string> namesOf(const Architecture& architecture) {
    std::vector<std::string> names;
    for (const auto& tensor : namedTensors(architecture))
        names.push_back(tensor.first);
    return names;
}

} // namespace

DensityDirection::DensityDirection(const Architecture& architecture) :
        numParticles(architecture.numParticles), tensorNames(namesOf(architecture)), flow(StageBuilder(architecture, tensorNames).build()) {
}

void DensityDirection::checkArguments(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) const {
    TORCH_CHECK_VALUE(positions.dim() == 3 && positions.size(1) == numParticles && positions.size(2) == 3,
            "positions must have shape (batch, ", numParticles, ", 3), got ", positions.sizes());
    TORCH_CHECK_VALUE(tensors.size() == tensorNames.size(), "the flow has ", tensorNames.size(), " tensors, got ", tensors.size());
    TORCH_CHECK_VALUE(positions.device().is_cpu(), "the flow runs on the CPU; move positions there");
    for (const at::Tensor& tensor : tensors)
        TORCH_CHECK_VALUE(tensor.device().is_cpu(), "the flow runs on the CPU; move the module there");
}

DensityDirection::Result DensityDirection::operator()(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) const {
    checkArguments(positions, tensors);
    auto [latent, logProb] = applyFlow(flow, positions.to(at::kDouble), tensors);
    return {latent.t(), logProb};
}

std::pair<at::Tensor, at::Tensor> DensityDirection::logProbAndGradient(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) const {
    checkArguments(positions, tensors);
    auto [logProb, gradient] = applyFlowWithGradient(flow, positions.to(at::kDouble), tensors);
    const at::Tensor outside = logProb.detach().isinf().reshape({-1, 1, 1});
    return {logProb, gradient.masked_fill(outside, std::numeric_limits<double>::quiet_NaN())};
}

} // namespace OpenMMFlow
