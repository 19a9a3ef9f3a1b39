// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COUPLING_H_
#define OPENMMFLOW_COUPLING_H_

#include "engine/AlignedArray.h"
#include "engine/CouplingPlan.h"
#include "engine/TransformerLayout.h"
#include "model/Architecture.h"

#include <optional>
#include <vector>

namespace OpenMMFlow {

/**
 * A coupling layer in density direction, in the precision Real and with the widest vectors of this processor: weights are packed
 * when it is made, and its kernels run on one molecule or on a block of them.
 */
template <class Real>
class Coupling {
public:
    /** @param domains  of all coordinates before the layer */
    Coupling(const CouplingLayer& layer, const std::vector<Domain>& domains);
    Coupling(Coupling&&) noexcept = default;
    Coupling(const Coupling&) = delete;

    /** The number of molecules that a block holds. */
    static int blockSize();
    /** Room that kernels need between forward and backward, for 1, blockSize()/2 or blockSize() molecules. All zero at first. */
    AlignedArray<Real> createArena(int numMolecules) const;

    /** Replace the transformed ones of `coordinates` [n][M] and add ln|det J| to `logDet` [M]; M is one of those three. */
    void forward(int M, bool withGradient, double* coordinates, double* logDet, Real* arena, RootFinding& roots) const;
    /** Turn `gradient` [n][M], dL/d(coordinates after the layer), into that before it, with ln|det J| of the layer added to L. */
    void backward(int M, double* gradient, Real* arena) const;
    /** The sampling direction: from after to before the layer. Adds ln|det J| of the density direction to `logDet` [M]. */
    void sample(int M, double* coordinates, double* logDet, Real* arena, RootFinding& roots) const;

private:
    PackedMatrix<Real> pack(int rows, int columns, const std::vector<double>& values);
    void packMixture(const CouplingLayer& layer, const SmoothMixtureTransformer& transformer, const std::vector<Domain>& domains);
    void packTransformer(const CouplingLayer& layer, const std::vector<Domain>& domains);
    void packNetwork(const std::vector<DenseLayer>& layers, int firstRawRow, const std::vector<int>& outputRows);

    const CouplingKernels<Real>& kernels;
    std::vector<AlignedArray<Real>> weights;
    std::vector<int> plain, circularFeatures, transformed, rawRows, rawOrder;
    std::optional<TransformerLayout> transformerLayout;       // unless the transformer is a smooth mixture
    std::vector<typename TransformerPlan<Real>::Row> transformerRows;
    std::vector<std::vector<PackedLayer<Real>>> layers;       // [network][layer], without offsets
    std::vector<int> firstRawRows;                            // [network]
    int numRawRows = 0;                                       // blocks of D raw parameters that a smooth mixture reads
    std::vector<Real> priors;
    Real circleSteepness;
    int numIntervals, numCircles;
    Transformer transformer;
    bool real;                                                // the transformed coordinates
    ActivationType activation;

    /** For one M. */
    struct Layout {
        std::vector<std::vector<PackedLayer<Real>>> layers;
        std::vector<PackedNetwork<Real>> networks;
        CouplingPlan<Real> plan;
        std::size_t arenaSize;
    };
    Layout layOut(int M) const;
    void describeMixture(const SmoothMixtureTransformer& mixture, CouplingPlan<Real>& plan) const;
    void describeTransformer(const FormulaTransformer& formula, CouplingPlan<Real>& plan) const;
    const Layout& layoutFor(int M) const {
        return M == 1 ? single : (M == blockSize() ? block : half);
    }
    Layout single, half, block;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COUPLING_H_
