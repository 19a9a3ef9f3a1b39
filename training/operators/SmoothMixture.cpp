// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/Operators.h"

#include "operators/SmoothMixtureKernel.h"
#include "operators/TransformerOperator.h"

namespace OpenMMFlow {

using at::Tensor;

namespace {

/** Raw parameters are (5, D, K, N). */
struct SmoothMixtureFamily {
    template <class Real>
    using Kernel = SmoothMixtureKernel<Real>;

    template <class Real>
    void configure(Kernel<Real>& kernel) const {
        kernel.configure(settings, components);
    }
    int64_t row(int64_t coordinate, int block, int64_t component) const {
        return (block*coordinates+coordinate)*components+component;
    }
    bool closedInverse() const {
        return false;
    }

    SmoothMixtureSettings settings;
    int64_t coordinates, components;
};

} // namespace

c10::intrusive_ptr<DifferentiableOperator> makeSmoothMixture(at::IntArrayRef circular, int64_t components, bool inverse, bool published,
        int64_t exponent, double alphaOffset, double alphaRange, double logSteepnessBound, double minimumFloor) {
    TORCH_CHECK(exponent == 1 || exponent == 2, "smooth_mixture: exponent must be 1 or 2, got ", exponent);
    const SmoothMixtureSettings settings = {published, (int) exponent, alphaOffset, alphaRange, logSteepnessBound, minimumFloor};
    const SmoothMixtureFamily family = {settings, (int64_t) circular.size(), components};
    return c10::make_intrusive<TransformerOperator<SmoothMixtureFamily>>(family, circular.vec(), inverse);
}

std::tuple<Tensor, Tensor> smoothMixture(const Tensor& x, const Tensor& raw, at::IntArrayRef circular, bool inverse,
        bool published, int64_t exponent, double alphaOffset, double alphaRange, double logSteepnessBound, double minimumFloor) {
    TORCH_CHECK(x.dim() == 2 && raw.dim() == 4 && raw.size(0) == 5 && raw.size(1) == x.size(0) && raw.size(3) == x.size(1),
            "smooth_mixture: x must have shape (D, N) and raw (5, D, K, N), got ", x.sizes(), " and ", raw.sizes());
    TORCH_CHECK(x.scalar_type() == raw.scalar_type(), "smooth_mixture: x is ", x.scalar_type(), " and raw is ", raw.scalar_type(),
            "; both must have one type");
    TORCH_CHECK(x.device().is_cpu() && raw.device().is_cpu(), "smooth_mixture runs on the CPU; move the module there");
    TORCH_CHECK((int64_t) circular.size() == x.size(0), "smooth_mixture: circular needs one entry for each of the ", x.size(0),
            " coordinates, got ", circular.size());
    auto result = applyOperator(makeSmoothMixture(circular, raw.size(2), inverse, published, exponent, alphaOffset, alphaRange,
            logSteepnessBound, minimumFloor), {x, raw});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
