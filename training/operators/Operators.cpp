// SPDX-License-Identifier: MIT
#include "operators/Operators.h"

#include <torch/library.h>

TORCH_LIBRARY(openmmflow, library) {
    library.def("internal_coordinates(Tensor positions, int[] z_matrix, bool frame) -> (Tensor coordinates, Tensor log_det)",
            &OpenMMFlow::internalCoordinates);
    library.def("marginal(Tensor x, str distribution, Tensor? lower, Tensor? upper, Tensor? mean, Tensor? std) "
            "-> (Tensor y, Tensor log_density)", &OpenMMFlow::marginal);
    library.def("smooth_mixture(Tensor x, Tensor raw, int[] circular, bool published, int exponent, float alpha_offset, "
            "float alpha_range, float log_steepness_bound, float minimum_floor) -> (Tensor y, Tensor log_density)",
            &OpenMMFlow::smoothMixture);
    library.def("activation(Tensor x, str type) -> Tensor", &OpenMMFlow::activation);
}
