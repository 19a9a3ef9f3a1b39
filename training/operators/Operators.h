// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_OPERATORS_H_
#define OPENMMFLOW_OPERATORS_H_

#include "operators/Differentiable.h"

#include <ATen/core/Tensor.h>

#include <tuple>

/**
 * The differentiable operators of a flow, all on the CPU. Each has exact first and second derivatives in PyTorch's autograd.
 * N counts samples; coordinates stand in rows, samples in the last dimension. In Python they are torch.ops.openmmflow.*.
 * The functions that make operators return them as objects, for those who differentiate by themselves (module/Stage.h).
 */
namespace OpenMMFlow {

/**
 * Internal coordinates of a Z-matrix, docs/model_format.md.
 *
 * @param positions  (N, P, 3), nm, double
 * @param zMatrix    P rows of four, flat
 * @param frame      true for measure "frame", false for "cartesian"
 * @return coordinates (3P-6, N) and ln|det d coordinates/d positions| (N), both double
 */
std::tuple<at::Tensor, at::Tensor> internalCoordinates(const at::Tensor& positions, at::IntArrayRef zMatrix, bool frame);
c10::intrusive_ptr<DifferentiableOperator> makeInternalCoordinates(at::IntArrayRef zMatrix, bool frame);

/**
 * Mixed coordinates, docs/model_format.md.
 *
 * @param positions             (N, P, 3), nm, double
 * @param block                 B particles
 * @param zMatrix               P-B full rows of four, flat
 * @param reference, whitening  (B, 3), nm, and (D, 3B), per nm; constants
 * @param frame                 true for measure "frame", false for "cartesian"
 * @return coordinates (3(P-B)+D, N) and ln|det d coordinates/d positions| (N), both double
 */
std::tuple<at::Tensor, at::Tensor> mixedCoordinates(const at::Tensor& positions, at::IntArrayRef block, at::IntArrayRef zMatrix,
        const at::Tensor& reference, const at::Tensor& whitening, bool frame);
c10::intrusive_ptr<DifferentiableOperator> makeMixedCoordinates(at::IntArrayRef block, at::IntArrayRef zMatrix, const at::Tensor& reference,
        const at::Tensor& whitening, bool frame);
/**
 * What the way back needs: model/BlockWhitening.h.
 *
 * @return the reference (B, 3), centred if aligned, the inverse of the whitening (3B, D), and ln|det| of the block but for -ln det A if aligned
 */
std::tuple<at::Tensor, at::Tensor, at::Tensor> blockWhitening(const at::Tensor& reference, const at::Tensor& whitening, bool frame);

/**
 * The cumulative distribution function of marginals and ln of the density.
 *
 * @param x             (D, N)
 * @param distribution  "uniform", "normal" or "truncatedNormal"
 * @param lower, upper, mean, std  (D) each, those that the distribution has
 * @return values in [0,1] and ln density, (D, N) each
 */
std::tuple<at::Tensor, at::Tensor> marginal(const at::Tensor& x, c10::string_view distribution,
        const std::optional<at::Tensor>& lower, const std::optional<at::Tensor>& upper, const std::optional<at::Tensor>& mean,
        const std::optional<at::Tensor>& std);
/** @param size  D */
c10::intrusive_ptr<DifferentiableOperator> makeMarginal(int64_t size, c10::string_view distribution, const std::optional<at::Tensor>& lower,
        const std::optional<at::Tensor>& upper, const std::optional<at::Tensor>& mean, const std::optional<at::Tensor>& std);

/**
 * A layer of single coordinates without a network, docs/model_format.md.
 *
 * @param x      (D, N)
 * @param type   "affineNormalization", "logit", "logistic" or "circularShift"
 * @param shift  (D), of affineNormalization and circularShift
 * @param scale  (D), of affineNormalization
 * @return values and ln of their derivatives, (D, N) each
 */
std::tuple<at::Tensor, at::Tensor> elementwise(const at::Tensor& x, c10::string_view type, const std::optional<at::Tensor>& shift,
        const std::optional<at::Tensor>& scale);
/** @param size  D */
c10::intrusive_ptr<DifferentiableOperator> makeElementwise(int64_t size, c10::string_view type, const std::optional<at::Tensor>& shift,
        const std::optional<at::Tensor>& scale);

/**
 * The smooth mixture transformer with its head, in the direction of its closed form or as the inverse of that.
 *
 * @param x         (D, N)
 * @param raw       (5, D, K, N), blocks [w | alpha | mu | ln sigma | m]
 * @param circular  (D), nonzero for coordinates on the circle
 * @param inverse   return the root x of F(x) = y for an input y, and ln|dx/dy|
 * @return y and ln|dy/dx|, (D, N) each
 */
std::tuple<at::Tensor, at::Tensor> smoothMixture(const at::Tensor& x, const at::Tensor& raw, at::IntArrayRef circular,
        bool inverse, bool published, int64_t exponent, double alphaOffset, double alphaRange, double logSteepnessBound, double minimumFloor);
/** @param components  K */
c10::intrusive_ptr<DifferentiableOperator> makeSmoothMixture(at::IntArrayRef circular, int64_t components, bool inverse, bool published,
        int64_t exponent, double alphaOffset, double alphaRange, double logSteepnessBound, double minimumFloor);

/**
 * A transformer of flow/formulas/Transformers.h with its head.
 *
 * @param x         (D, N)
 * @param raw       (R, N), the raw parameters in the order of the file: docs/model_format.md, "Transformers"
 * @param type      as in model files: "rationalQuadraticSpline", "cubicBSpline", "affine", "moebius" or "analytic"
 * @param circular  (D), nonzero for coordinates on the circle
 * @param inverse   return the x of F(x) = y for an input y, and ln|dx/dy|
 * @param size      bins, components or steps
 * @param settings  in the order of its descriptor, flow/model/TransformerDescriptor.cpp
 * @return y and ln|dy/dx|, (D, N) each
 */
std::tuple<at::Tensor, at::Tensor> transformer(const at::Tensor& x, const at::Tensor& raw, c10::string_view type, at::IntArrayRef circular,
        bool inverse, int64_t size, at::ArrayRef<double> settings);
c10::intrusive_ptr<DifferentiableOperator> makeTransformer(c10::string_view type, at::IntArrayRef circular, bool inverse, int64_t size,
        at::ArrayRef<double> settings);

/** An activation of dense conditioners, elementwise: "silu", "tanh", "sin", "gelu" or "softplus". */
at::Tensor activation(const at::Tensor& x, c10::string_view type);
c10::intrusive_ptr<DifferentiableOperator> makeActivation(c10::string_view type);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_OPERATORS_H_
