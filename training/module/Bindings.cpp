// SPDX-License-Identifier: MIT
// What Python sees: torch.ops.openmmflow.* and torch.classes.openmmflow.DensityDirection.
#include "model/ArchitectureJson.h"
#include "model/ArchitectureTensors.h"
#include "model/ArchitectureValidation.h"
#include "model/FlowModel.h"
#include "model/TransformerDescriptor.h"
#include "module/DensityDirection.h"
#include "operators/Operators.h"

#include <torch/custom_class.h>
#include <torch/library.h>

namespace {

using namespace OpenMMFlow;

/** Python gets a ValueError for what is a FlowModelError here. */
template <class Function>
auto withValueErrors(const Function& function) {
    try {
        return function();
    }
    catch (const FlowModelError& error) {
        TORCH_CHECK_VALUE(false, error.what());
    }
}

/** A valid architecture without weights, from its JSON document. */
Architecture architectureOf(const std::string& json) {
    return withValueErrors([&] {
        Architecture architecture = readArchitecture(json);
        validateStructure(architecture);
        return architecture;
    });
}

struct DensityDirectionHolder : torch::CustomClassHolder {
    explicit DensityDirectionHolder(const std::string& json) : function(architectureOf(json)) {
    }
    std::tuple<at::Tensor, at::Tensor> evaluate(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) {
        auto result = function(positions, tensors);
        return {result.latent, result.logProb};
    }
    std::tuple<at::Tensor, at::Tensor> logProbAndGradient(const at::Tensor& positions, const std::vector<at::Tensor>& tensors) {
        auto result = function.logProbAndGradient(positions, tensors);
        return {result.first, result.second};
    }
    std::vector<std::string> tensorNames() {
        return function.getTensorNames();
    }
    DensityDirection function;
};

/** The key of a transformer's size in the architecture, "" if it has none, and those of its settings, in their order. */
std::vector<std::string> transformerKeys(c10::string_view type) {
    for (const TransformerDescriptor& descriptor : transformerDescriptors())
        if (descriptor.name == type) {
            std::vector<std::string> keys = {descriptor.sizeName == nullptr ? "" : descriptor.sizeName};
            for (const TransformerDescriptor::Setting& setting : descriptor.settings)
                keys.push_back(setting.name);
            return keys;
        }
    TORCH_CHECK_VALUE(false, "there is no transformer \"", type, "\"");
}

void checkModel(const at::Tensor& contents) {
    TORCH_CHECK_VALUE(contents.scalar_type() == at::kByte && contents.dim() == 1, "check_model expects the bytes of a model file as a uint8 tensor");
    const at::Tensor bytes = contents.contiguous();
    withValueErrors([&] {
        FlowModel::fromBytes(std::string((const char*) bytes.const_data_ptr(), bytes.numel()));
    });
}

} // namespace

TORCH_LIBRARY(openmmflow, library) {
    library.def("internal_coordinates(Tensor positions, int[] z_matrix, bool frame) -> (Tensor coordinates, Tensor log_det)",
            &internalCoordinates);
    library.def("mixed_coordinates(Tensor positions, int[] block, int[] z_matrix, Tensor reference, Tensor whitening, bool frame) "
            "-> (Tensor coordinates, Tensor log_det)", &mixedCoordinates);
    library.def("block_whitening(Tensor reference, Tensor whitening, bool frame) "
            "-> (Tensor reference, Tensor unwhitening, Tensor log_det)", &blockWhitening);
    library.def("marginal(Tensor x, str distribution, Tensor? lower, Tensor? upper, Tensor? mean, Tensor? std) "
            "-> (Tensor y, Tensor log_density)", &marginal);
    library.def("elementwise(Tensor x, str type, Tensor? shift, Tensor? scale) -> (Tensor y, Tensor log_density)", &elementwise);
    library.def("smooth_mixture(Tensor x, Tensor raw, int[] circular, bool inverse, bool published, int exponent, "
            "float alpha_offset, float alpha_range, float log_steepness_bound, float minimum_floor) "
            "-> (Tensor y, Tensor log_density)", &smoothMixture);
    library.def("transformer(Tensor x, Tensor raw, str type, int[] circular, bool inverse, int size, float[] settings) "
            "-> (Tensor y, Tensor log_density)", &transformer);
    library.def("activation(Tensor x, str type) -> Tensor", &activation);
    library.def("transformer_keys(str type) -> str[]", &transformerKeys);
    library.def("check_model(Tensor contents) -> ()", &checkModel);
    library.class_<DensityDirectionHolder>("DensityDirection")
            .def(torch::init<std::string>())
            .def("evaluate", &DensityDirectionHolder::evaluate)
            .def("log_prob_and_gradient", &DensityDirectionHolder::logProbAndGradient)
            .def("tensor_names", &DensityDirectionHolder::tensorNames);
}
