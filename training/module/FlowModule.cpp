// SPDX-License-Identifier: MIT
#include "module/FlowModule.h"

#include "model/ArchitectureTensors.h"
#include "model/ModelFile.h"

#include <ATen/Functions.h>

#include <map>
#include <sstream>

namespace OpenMMFlow {

namespace {

at::Tensor toTorch(const Tensor& tensor) {
    const at::Tensor values = at::tensor(tensor.values, at::kDouble).reshape(tensor.shape);
    return tensor.type == TensorType::Float32 ? values.to(at::kFloat) : values;
}

Tensor fromTorch(const at::Tensor& tensor) {
    const at::Tensor values = tensor.detach().to(at::kCPU, at::kDouble).contiguous();
    Tensor result;
    result.type = tensor.scalar_type() == at::kFloat ? TensorType::Float32 : TensorType::Float64;
    result.shape = values.sizes().vec();
    result.values.assign(values.const_data_ptr<double>(), values.const_data_ptr<double>()+values.numel());
    return result;
}

/** Modules cannot hold names with dots; a tree of modules gives its leaves such names. */
void registerTensor(torch::nn::Module& root, const std::string& name, const at::Tensor& tensor) {
    torch::nn::Module* module = &root;
    std::istringstream parts(name);
    std::string part, next;
    std::getline(parts, part, '.');
    while (std::getline(parts, next, '.')) {
        const auto children = module->named_children();
        const auto* child = children.find(part);
        module = (child ? *child : module->register_module(part, std::make_shared<torch::nn::Module>())).get();
        part = next;
    }
    if (name.find(".networks.") != std::string::npos)
        module->register_parameter(part, tensor);
    else
        module->register_buffer(part, tensor);
}

} // namespace

FlowModule::FlowModule(const FlowModel& model) :
        torch::nn::Module("FlowModule"), architectureJson(model.getArchitectureJson()), densityDirection(model.getArchitecture()) {
    for (const auto& tensor : namedTensors(model.getArchitecture()))
        registerTensor(*this, tensor.first, toTorch(*tensor.second));
}

std::vector<at::Tensor> FlowModule::tensors() const {
    const auto parameters = named_parameters();
    const auto buffers = named_buffers();
    std::vector<at::Tensor> result;
    for (const std::string& name : densityDirection.getTensorNames()) {
        const at::Tensor* parameter = parameters.find(name);
        result.push_back(parameter ? *parameter : buffers[name]);
    }
    return result;
}

at::Tensor FlowModule::logProb(const at::Tensor& positions) const {
    return densityDirection(positions, tensors()).logProb;
}

std::pair<at::Tensor, at::Tensor> FlowModule::logProbAndGradient(const at::Tensor& positions, bool createGraph) const {
    at::AutoGradMode graph(createGraph);
    return densityDirection.logProbAndGradient(positions, tensors());
}

std::pair<at::Tensor, at::Tensor> FlowModule::toLatent(const at::Tensor& positions) const {
    auto result = densityDirection(positions, tensors());
    return {result.latent, result.logProb};
}

FlowModel FlowModule::toModel() const {
    const auto& names = densityDirection.getTensorNames();
    const auto values = tensors();
    std::map<std::string, Tensor> converted;
    std::map<std::string, const Tensor*> pointers;
    for (size_t i = 0; i < names.size(); i++)
        pointers[names[i]] = &(converted[names[i]] = fromTorch(values[i]));
    return FlowModel::fromBytes(writeModelFile(architectureJson, pointers));
}

} // namespace OpenMMFlow
