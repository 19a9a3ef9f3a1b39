// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COUPLINGPLAN_H_
#define OPENMMFLOW_COUPLINGPLAN_H_

#include <cstddef>

/**
 * A coupling as its kernels see it: plain pointers and counts, so that the translation units that are compiled for one instruction set
 * contain nothing but kernels. Coupling builds and owns what is pointed to.
 *
 * Kernels work on M molecules at once, M = 1 or a multiple of the vector length. Arrays are [row][M]; elementwise work runs along the
 * flat axis E = D*M of the D transformed coordinates, which is contiguous. Interval coordinates come first, then circular ones; each of
 * the two segments of E is padded to whole vectors where it is stored in padded arrays.
 */
namespace OpenMMFlow {

enum class ActivationType;

/**
 * (rows, columns), in the order in which products read it in either direction: groups of one vector length of rows, the last with what is
 * left; a group is tile by tile [rows of the group][tile width], widths 4 vectors and, last, what is left in whole vectors.
 */
template <class Real>
struct PackedMatrix {
    int rows, columns;
    const Real* values;
};

template <class Real>
struct PackedLayer {
    PackedMatrix<Real> matrix;      // transposed weight (inputs, outputs), for both directions: caches hold twice as much of it
    const Real* bias;               // (outputs), padded to whole vectors
    /** Offsets into the arena, in Reals: outputs after the activation and its derivative, [outputs][M]; not for the last layer. */
    std::size_t values, slopes;
};

template <class Real>
struct PackedNetwork {
    int numLayers;
    const PackedLayer<Real>* layers;
    /** Its outputs are rows of the raw parameters from here on. */
    int firstRawRow;
};

/** Of a transformer of formulas/Transformers.h; type is -1 if the coupling has a smooth mixture. */
template <class Real>
struct TransformerPlan {
    int type, size;
    Real settings[4];
    bool real;                          // the transformed coordinates are on the real line
    /** Of a coordinate, on an interval (or real) and on a circle, and the more of both. */
    int numParameters[2], mostParameters;
    /** Of each parameter: where its row begins in the raw parameters, in units of M. */
    const int* offsets[2];
    struct Row {
        int offset, circular, parameter;
    };
    /** (numRows) the same in ascending order of offsets. */
    const Row* rows;
    int numRows;
    int numOutputs;                     // of all networks
    std::size_t parameters;             // in the arena, [mostParameters][Epad]: on the way back their gradient
};

template <class Real>
struct CouplingPlan {
    int numPlain, numCircularFeatures;
    const int* plain;                   // conditioning coordinates that enter as they are
    const int* circularFeatures;        // conditioning coordinates that enter as cosine and sine
    int numNetworks;
    const PackedNetwork<Real>* networks;
    ActivationType activation;

    int numIntervals, numCircles;       // D = numIntervals + numCircles; real coordinates stand in the place of those on intervals
    const int* transformed;             // (D) intervals first
    bool inverse;                       // F is evaluated in the sampling direction
    TransformerPlan<Real> transformer;
    // smooth mixture
    int components, exponent;
    bool published;                     // head
    Real alphaOffset, alphaRange, logSteepnessBound, minimumFloor;
    /** (K, 5) first row in the raw parameters of block p of component k, p = w, alpha, mu, ln sigma, m; -1 if the head does not read it. */
    const int* rawRows;
    /** (numRawRows) those numbers k*5+p that are read, in ascending order of rawRows. */
    const int* rawOrder;
    int numRawRows;
    /** (K, D) the centres (k+1/2)/K. */
    const Real* priors;
    /** Of the published head, which is constant. */
    Real circleSteepness;

    /** Offsets into the arena for a given M, in Reals. Epad is the padded length of the flat axis. */
    std::size_t features, featureGradient;          // [numPlain + 2 numCircularFeatures][M]
    std::size_t raw, rawGradient;                   // [numRawRows D][M]
    std::size_t hidden, nextHidden;                 // [widest hidden layer][M]
    std::size_t x, y, logDerivative;                // [Epad]; in backward y holds dL/dy
    std::size_t slope, curvature;                   // [Epad] F' and F'' of the mixture at its argument
    std::size_t valueJacobian, slopeJacobian;       // [K][5][Epad] of F and F' with respect to raw parameters
    std::size_t centreShares;                       // [K][Epad] the softmax behind the centres of the published head
    std::size_t scratch;                            // K components, or 2 mostParameters vectors
    std::size_t flat[8];                            // [K D] for M = 1
    int paddedLength;                               // Epad
};

/** What root finding took: whole vectors of roots, evaluations of the mixture for them, and roots that were not found to full precision. */
struct RootFinding {
    long long vectors = 0, evaluations = 0, notConverged = 0;
};

/** The kernels of one instruction set. `coordinates` and `gradient` are [n][M], `logDet` is [M] and is added to. */
template <class Real>
struct CouplingKernels {
    int vectorLength;
    std::size_t vectorSize;             // bytes
    /** Bytes of scratch for each component. */
    std::size_t scratchSize;
    void (*forward)(const CouplingPlan<Real>& plan, int M, bool withGradient, double* coordinates, double* logDet, Real* arena,
            RootFinding& roots);
    void (*backward)(const CouplingPlan<Real>& plan, int M, double* gradient, Real* arena);
};

/**
 * The kernels for the widest vectors that this processor has. The environment variable OPENMMFLOW_INSTRUCTIONS (baseline, avx2 or avx512)
 * limits the choice, for tests.
 */
template <class Real>
const CouplingKernels<Real>& selectCouplingKernels();

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COUPLINGPLAN_H_
