// SPDX-License-Identifier: MIT
#include "formulas/Formulas.h"
#include "operators/Operators.h"

#include "model/TransformerDescriptor.h"
#include "operators/TransformerOperator.h"

#include <algorithm>
#include <array>
#include <vector>

namespace OpenMMFlow {

using at::Tensor;

namespace {

/**
 * One coordinate; its raw parameters are those of block 0. What holds formulas is not inlined: all of them, for every type of number, would be
 * compiled at every place that calls it.
 */
template <class Real>
class FormulaTransformerKernel {
public:
    using Formula = Formulas<Real>;

    /** Keeps its room when it is configured again. */
    void configure(const typename Formula::TransformerSettings& newSettings, const std::array<std::int64_t, 2>& newNumParameters, bool ofReal) {
        settings = newSettings;
        numParameters = newNumParameters;
        real = ofReal;
        const std::size_t most = std::max(numParameters[0], numParameters[1]);
        if (parameters.size() < most) {
            parameters.resize(most);
            gradients.resize(most);
        }
    }

    template <class Raw>
    void evaluate(Real x, const Raw& raw, bool circular) {
        load(raw, circular);
        evaluateLoaded(inDomain(x, circular), circular);
    }

    template <class Raw>
    Real inverse(Real y, const Raw& raw, bool circular) {
        load(raw, circular);
        return inverseLoaded(inDomain(y, circular), circular);
    }

    Real curvature() const {
        return d2;
    }

    template <class Write>
    Real gradient(Real x, Real vY, Real vL, bool circular, const Write& write) {
        const Real vDensity = vL/density;
        gradientLoaded(inDomain(x, circular), vY, vDensity, circular);
        for (std::int64_t i = 0; i < numParameters[circular]; i++)
            write(0, i, gradients[i]);
        return vY*density+vDensity*d2;
    }

    Real y, density;

private:
    template <class Raw>
    void load(const Raw& raw, bool circular) {
        for (std::int64_t i = 0; i < numParameters[circular]; i++)
            parameters[i] = raw(0, i);
        applyHead(circular);
    }

    [[gnu::noinline]] void applyHead(bool circular) {
        Formula::transformerHead(settings, circular, parameters.data());
    }

    [[gnu::noinline]] void evaluateLoaded(const Real& x, bool circular) {
        const auto value = Formula::transformerValue(settings, circular, x, parameters.data());
        y = value.value;
        density = value.d1;
        d2 = value.d2;
    }

    [[gnu::noinline]] Real inverseLoaded(const Real& y, bool circular) {
        return Formula::transformerInverse(settings, circular, y, parameters.data());
    }

    [[gnu::noinline]] void gradientLoaded(const Real& x, const Real& vY, const Real& vDensity, bool circular) {
        Formula::transformerGradient(settings, circular, x, vY, vDensity, parameters.data(), gradients.data());
    }

    /** What is outside of the support has no density; its numbers must merely be finite. */
    Real inDomain(Real x, bool circular) const {
        if (real || circular)
            return x;
        const Real positive = select(x < (Real) 0, (Real) 0, x);
        return select(positive > (Real) 1, (Real) 1, positive);
    }

    typename Formula::TransformerSettings settings;
    std::array<std::int64_t, 2> numParameters;    // of a coordinate that is not on a circle, and of one that is
    bool real;
    std::vector<Real> parameters, gradients;
    Real d2;
};

/** Where the raw parameters of each coordinate stand, and which formulas they are for. */
class FormulaTransformerFamily {
public:
    template <class Real>
    using Kernel = FormulaTransformerKernel<Real>;

    FormulaTransformerFamily(const TransformerDescriptor& descriptor, std::int64_t size, at::ArrayRef<double> given, at::IntArrayRef circular) :
            descriptor(descriptor), size(size), settings(), rows(circular.size()) {
        std::copy(given.begin(), given.end(), settings.begin());
        const std::int64_t coordinates = circular.size();
        const std::int64_t intervals = std::count(circular.begin(), circular.end(), 0);
        for (const TransformerDescriptor::Block& block : descriptor.blocks) {
            const std::int64_t length = descriptor.numRows(block, size);
            std::int64_t place = 0;
            for (std::int64_t d = 0; d < coordinates; d++)
                if (!block.ofIntervals || !circular[d]) {
                    for (std::int64_t i = 0; i < length; i++)
                        rows[d].push_back(numRows+place*length+i);
                    place++;
                }
            numRows += length*(block.ofIntervals ? intervals : coordinates);
        }
        for (std::int64_t d = 0; d < coordinates; d++)
            numParameters[circular[d] != 0] = rows[d].size();
    }

    template <class Real>
    void configure(Kernel<Real>& kernel) const {
        kernel.configure({descriptor.number, (int) size, (Real) settings[0], (Real) settings[1], (Real) settings[2], (Real) settings[3]},
                numParameters, descriptor.domains.front() == Domain::Real);
    }
    std::int64_t row(std::int64_t coordinate, int, std::int64_t parameter) const {
        return rows[coordinate][parameter];
    }
    bool closedInverse() const {
        return Formulas<double>::transformerHasInverse({descriptor.number, (int) size, 0, 0, 0, 0});
    }
    std::int64_t getNumRows() const {
        return numRows;
    }

private:
    const TransformerDescriptor& descriptor;
    std::int64_t size;
    std::array<double, TransformerDescriptor::MAX_SETTINGS> settings;
    std::vector<std::vector<std::int64_t>> rows;
    std::int64_t numRows = 0;
    std::array<std::int64_t, 2> numParameters = {0, 0};
};

FormulaTransformerFamily familyOf(c10::string_view type, at::IntArrayRef circular, int64_t size, at::ArrayRef<double> settings) {
    const auto& all = transformerDescriptors();
    const auto found = std::find_if(all.begin(), all.end(), [&](const TransformerDescriptor& descriptor) { return descriptor.name == type; });
    if (found == all.end()) {
        std::string known;
        for (const TransformerDescriptor& descriptor : all)
            known += std::string(known.empty() ? "" : ", ")+descriptor.name;
        TORCH_CHECK(false, "Unknown transformer \"", type, "\"; known are ", known);
    }
    TORCH_CHECK(settings.size() == found->settings.size(), "transformer: ", type, " has ", found->settings.size(), " settings, got ", settings.size());
    TORCH_CHECK(size >= found->smallestSize && size <= found->largestSize, "transformer: the size of ", type, " must be ", found->smallestSize,
            " to ", found->largestSize, ", got ", size);
    for (int64_t c : circular)
        TORCH_CHECK(std::count(found->domains.begin(), found->domains.end(), Domain::Circle) || !c, "transformer: ", type,
                " is not for circular coordinates");
    return FormulaTransformerFamily(*found, size, settings, circular);
}

} // namespace

c10::intrusive_ptr<DifferentiableOperator> makeTransformer(c10::string_view type, at::IntArrayRef circular, bool inverse, int64_t size,
        at::ArrayRef<double> settings) {
    return c10::make_intrusive<TransformerOperator<FormulaTransformerFamily>>(familyOf(type, circular, size, settings), circular.vec(), inverse);
}

std::tuple<Tensor, Tensor> transformer(const Tensor& x, const Tensor& raw, c10::string_view type, at::IntArrayRef circular, bool inverse,
        int64_t size, at::ArrayRef<double> settings) {
    TORCH_CHECK(x.dim() == 2 && (int64_t) circular.size() == x.size(0), "transformer: x must have shape (D, N) and circular D entries, got ",
            x.sizes(), " and ", circular.size());
    const int64_t numRows = familyOf(type, circular, size, settings).getNumRows();
    TORCH_CHECK(raw.dim() == 2 && raw.size(0) == numRows && raw.size(1) == x.size(1), "transformer: raw must have shape (", numRows, ", ",
            x.size(1), "), got ", raw.sizes());
    TORCH_CHECK(x.scalar_type() == raw.scalar_type(), "transformer: x is ", x.scalar_type(), " and raw is ", raw.scalar_type(),
            "; both must have one type");
    TORCH_CHECK(x.device().is_cpu() && raw.device().is_cpu(), "transformer runs on the CPU; move the module there");
    auto result = applyOperator(makeTransformer(type, circular, inverse, size, settings), {x, raw});
    return {result.first, result.second};
}

} // namespace OpenMMFlow
