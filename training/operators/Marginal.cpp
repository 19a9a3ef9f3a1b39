// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/CoordinateMapOperator.h"
#include "operators/Operators.h"

namespace OpenMMFlow {

using at::Tensor;

namespace {

/** The marginal of one coordinate, ready for evaluation. */
struct MarginalCoordinate {
    bool uniform;
    double lower, inverseWidth;
    double mean, inverseStd, cdfLower, inverseMass;
    double logNorm;

    template <class Real>
    typename Formulas<Real>::MarginalValue evaluate(const Real& x) const {
        if (uniform)
            return Formulas<Real>::uniformMarginal(x, (Real) lower, (Real) inverseWidth, (Real) logNorm);
        return Formulas<Real>::normalMarginal(x, (Real) mean, (Real) inverseStd, (Real) cdfLower, (Real) inverseMass, (Real) logNorm);
    }
};

MarginalCoordinate uniformCoordinate(double lower, double upper) {
    MarginalCoordinate c = {};
    c.uniform = true;
    c.lower = lower;
    c.inverseWidth = 1/(upper-lower);
    c.logNorm = -std::log(upper-lower);
    return c;
}

MarginalCoordinate normalCoordinate(double mean, double std, double cdfLower, double mass) {
    const double halfLogTwoPi = 0.91893853320467274;
    MarginalCoordinate c = {};
    c.uniform = false;
    c.mean = mean;
    c.inverseStd = 1/std;
    c.cdfLower = cdfLower;
    c.inverseMass = 1/mass;
    c.logNorm = -std::log(std)-halfLogTwoPi-std::log(mass);
    return c;
}

} // namespace

c10::intrusive_ptr<DifferentiableOperator> makeMarginal(int64_t size, c10::string_view distribution, const std::optional<Tensor>& lower,
        const std::optional<Tensor>& upper, const std::optional<Tensor>& mean, const std::optional<Tensor>& std) {
    std::vector<MarginalCoordinate> coordinates;
    auto values = [&](const std::optional<Tensor>& tensor, const char* name) {
        return coordinateValues(tensor, size, "marginal: distribution \""+std::string(distribution)+"\" needs "+name);
    };
    if (distribution == "uniform") {
        const auto lowers = values(lower, "lower"), uppers = values(upper, "upper");
        for (int64_t d = 0; d < size; d++)
            coordinates.push_back(uniformCoordinate(lowers[d], uppers[d]));
    }
    else if (distribution == "normal") {
        const auto means = values(mean, "mean"), stds = values(std, "std");
        for (int64_t d = 0; d < size; d++)
            coordinates.push_back(normalCoordinate(means[d], stds[d], 0, 1));
    }
    else if (distribution == "truncatedNormal") {
        const auto means = values(mean, "mean"), stds = values(std, "std");
        const auto lowers = values(lower, "lower"), uppers = values(upper, "upper");
        for (int64_t d = 0; d < size; d++) {
            const double cdfLower = Formulas<double>::standardNormalCdf((lowers[d]-means[d])/stds[d]);
            const double cdfUpper = Formulas<double>::standardNormalCdf((uppers[d]-means[d])/stds[d]);
            coordinates.push_back(normalCoordinate(means[d], stds[d], cdfLower, cdfUpper-cdfLower));
        }
    }
    else
        TORCH_CHECK(false, "marginal: unknown distribution \"", distribution, "\"; known are uniform, normal and truncatedNormal");
    return c10::make_intrusive<CoordinateMapOperator<MarginalCoordinate>>(std::move(coordinates));
}

std::tuple<Tensor, Tensor> marginal(const Tensor& x, c10::string_view distribution, const std::optional<Tensor>& lower,
        const std::optional<Tensor>& upper, const std::optional<Tensor>& mean, const std::optional<Tensor>& std) {
    TORCH_CHECK(x.dim() == 2, "marginal: x must have shape (D, N), got ", x.sizes());
    TORCH_CHECK(x.device().is_cpu(), "marginal runs on the CPU; move the module there");
    auto result = applyOperator(makeMarginal(x.size(0), distribution, lower, upper, mean, std), {x, Tensor()});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
