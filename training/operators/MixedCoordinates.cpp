// SPDX-License-Identifier: MIT
#include "operators/MixedCoordinatesKernel.h"
#include "model/FlowModelError.h"
#include "operators/Operators.h"
#include "operators/PlacementOperator.h"

#include <algorithm>

namespace OpenMMFlow {

namespace {

std::vector<double> valuesOf(const at::Tensor& tensor) {
    const at::Tensor values = tensor.detach().to(at::kCPU, at::kDouble).contiguous();
    return std::vector<double>(values.const_data_ptr<double>(), values.const_data_ptr<double>()+values.numel());
}

at::Tensor tensorOf(const std::vector<double>& values, at::IntArrayRef shape) {
    return at::tensor(values, at::kDouble).view(shape);
}

BlockWhitening whiteningOf(const at::Tensor& reference, const at::Tensor& whitening, bool frame) {
    TORCH_CHECK_VALUE(reference.dim() == 2 && reference.size(0) >= 3 && reference.size(1) == 3,
            "the reference of a block must have shape (particles of the block, 3), at least 3 of them, got ", reference.sizes());
    TORCH_CHECK_VALUE(whitening.dim() == 2 && whitening.size(1) == reference.numel(),
            "the whitening of a block must have shape (coordinates, ", reference.numel(), "), got ", whitening.sizes());
    MixedCoordinatesLayer layer;
    layer.block.resize(reference.size(0));
    layer.blockDimensions = static_cast<int>(whitening.size(0));
    layer.reference.values = valuesOf(reference);
    layer.whitening.values = valuesOf(whitening);
    try {
        return BlockWhitening(layer, frame ? Measure::Frame : Measure::Cartesian, "block");
    }
    catch (const FlowModelError& error) {
        TORCH_CHECK_VALUE(false, error.what());
    }
}

} // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> blockWhitening(const at::Tensor& reference, const at::Tensor& whitening, bool frame) {
    const BlockWhitening block = whiteningOf(reference, whitening, frame);
    return {tensorOf(block.reference, {block.numBlock, 3}), tensorOf(block.unwhitening, {3*block.numBlock, block.dimensions}),
            at::scalar_tensor(block.logDet, at::kDouble)};
}

c10::intrusive_ptr<DifferentiableOperator> makeMixedCoordinates(at::IntArrayRef block, at::IntArrayRef zMatrix, const at::Tensor& reference,
        const at::Tensor& whitening, bool frame) {
    TORCH_CHECK_VALUE(zMatrix.size()%4 == 0, "the Z-matrix must have rows of four, got ", zMatrix.size(), " numbers");
    TORCH_CHECK_VALUE(reference.dim() == 2 && reference.size(0) == static_cast<std::int64_t>(block.size()),
            "the reference must have a row for each of the ", block.size(), " particles of the block, got shape ", reference.sizes());
    MixedLayout layout = {block.vec(), zMatrixRows(zMatrix), whiteningOf(reference, whitening, frame)};
    const auto exists = [&](std::int64_t particle) { return particle >= 0 && particle < layout.numParticles(); };
    for (std::int64_t particle : layout.block)
        TORCH_CHECK_VALUE(exists(particle), "the block names particle ", particle, ", which does not exist");
    for (const ZMatrixRow& row : layout.rows)
        TORCH_CHECK_VALUE(std::all_of(row.begin(), row.end(), exists), "a row of the Z-matrix names particles that do not exist");
    return c10::make_intrusive<PlacementOperator<MixedLayout, MixedCoordinatesKernel>>(std::move(layout));
}

std::tuple<at::Tensor, at::Tensor> mixedCoordinates(const at::Tensor& positions, at::IntArrayRef block, at::IntArrayRef zMatrix,
        const at::Tensor& reference, const at::Tensor& whitening, bool frame) {
    const auto op = makeMixedCoordinates(block, zMatrix, reference, whitening, frame);
    checkPositions(positions, block.size()+zMatrix.size()/4, "mixed_coordinates");
    auto result = applyOperator(op, {positions, at::Tensor()});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
