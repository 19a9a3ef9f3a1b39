// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_GEOMETRYPLAN_H_
#define OPENMMFLOW_GEOMETRYPLAN_H_

#include <cstddef>

/**
 * Internal coordinates, continuation and marginals as their kernels see them: plain pointers and counts, for the same reason as in
 * CouplingPlan.h. InternalCoordinates, SupportContinuation and Marginals build and own what is pointed to.
 */
namespace OpenMMFlow {

/**
 * Where a bond, an angle or the angle jkl of a torsion is on its inner support, and how it goes on outside: docs/theory.md, "Outside the
 * support". The variable of wall and chi is the bond, nm, or the cosine of the angle.
 */
struct SupportRange {
    double lower, upper, margin;                            // inner support and where s saturates, nm or rad; not of angles jkl
    double wallLower, wallUpper, inverseWallWidth;          // the inner support again
    double chiLow0, inverseChiLow, chiHigh0, inverseChiHigh;    // chi is 0 beyond *0 and 1 from 1/inverse* inside of it on
};

/** A block of B particles that the others are placed from: docs/theory.md, "Mixed coordinates". */
struct BlockPlan {
    int numBlock, dimensions;           // B, 0 if there is none; D
    const int* block;                   // (B) particles
    bool aligned;                       // and centred
    const double* reference;            // (B, 3)
    const double* whitening;            // (D, 3B)
    const double* offset;               // (D), what is subtracted after the whitening
    double inverseReferenceDeterminant; // 1/det A of the reference
    const SupportRange* ranges;         // (D), of the coordinates; of a range, those of s and W alone
    SupportRange determinantRatio;      // det A/det A_r: chi
    SupportRange radius;                // of gyration, nm: W
};

struct GeometryPlan {
    int numParticles;
    int numBonds, numAngles, numTorsions;
    bool hasFrame;                      // the first two bonds and the first angle are those of the frame
    const int* bonds;                   // (numBonds, 2) atoms, in coordinate order, as all of the following
    const int* angles;                  // (numAngles, 3)
    const int* torsions;                // (numTorsions, 4)
    BlockPlan block;
    bool cartesian;                     // measure
    double logConstant;                 // the part of ln|det| that does not depend on positions
    const SupportRange* bondRanges;     // (numBonds)
    const SupportRange* angleRanges;    // (numAngles)
    const SupportRange* torsionAngleRanges;    // (numTorsions), of the angle jkl
    double ceiling;                     // c
};

/** A map of single coordinates: of a marginal layer, or an elementwise one. */
struct MarginalPlan {
    enum class Map { Uniform, Normal, AffineNormalization, Logit, Logistic, CircularShift };
    struct Parameters {
        double lower, inverseWidth, logInverseWidth;                  // uniform, affine normalization; `lower` is a circle's shift
        double mean, inverseStd, cdfLower, inverseMass, logNorm;      // normal, truncated normal
    };
    Map map;
    int numCoordinates;
    const int* coordinates;
    const Parameters* parameters;
};

/** What the continuation says of M molecules: chi and W of docs/theory.md, and 1 where all coordinates are on their inner support or 0. */
struct ContinuationValues {
    double *chi, *wall, *inside;        // (M)
};

/**
 * The kernels of one instruction set. They work on as many molecules at once as a vector of doubles has lanes, or on one with scalars.
 * Arrays over the molecules of a group are [row][M]; pointers are to the first of those molecules that are meant.
 */
struct GeometryKernels {
    /** Molecules that enter and leave together. */
    int vectorLength;
    /** Doubles of room for them between enter and leave. */
    std::size_t (*roomSize)(const GeometryPlan& plan);
    /**
     * Positions to the coordinates of the first layer.
     *
     * @param positions    (used, numParticles, 3); lanes beyond `used` repeat the last molecule
     * @param coordinates  out, [n][M]; 1/2 where chi is 0
     * @param logDet       out, [M], ln|det|
     * @param values       out, or null: without continuation
     */
    void (*enter)(const GeometryPlan& plan, const double* positions, int used, int M, double* coordinates, double* logDet,
            const ContinuationValues* values, double* room);
    /**
     * The gradient with respect to positions, (used, numParticles, 3), of L = l(coordinates) + ln|det|, or with continuation that of
     * lambda*flow + wall.
     *
     * @param gradient  [n][M], dl/d(coordinates)
     * @param logProb   [M], ln p, and 0 where chi is 0; used with continuation only
     * @param values    those of enter, or null
     */
    void (*leave)(const GeometryPlan& plan, double lambda, const double* logProb, const double* gradient, int used, int M,
            const ContinuationValues* values, double* positionGradient, double* room);
    /**
     * Replace the coordinates [n][M] of a layer of single coordinates by what it maps them to and add ln|det J| to `logDet` [M]; -inf if a
     * coordinate is outside of the support, which then becomes 1/2. All M molecules of the group, M a multiple of vectorLength.
     *
     * @param state  out, [2][coordinates of the layer][M], for the way back
     */
    void (*marginalForward)(const MarginalPlan& plan, int M, double* coordinates, double* logDet, double* state);
    /** `gradient` [n][M]: from after to before the layer, with ln|det J| added to L. */
    void (*marginalBackward)(const MarginalPlan& plan, int M, double* gradient, const double* state);
};

/** For one molecule at a time. */
const GeometryKernels& scalarGeometryKernels();
/** For the widest vectors; the choice is that of selectCouplingKernels. */
const GeometryKernels& selectGeometryKernels();

} // namespace OpenMMFlow

#endif // OPENMMFLOW_GEOMETRYPLAN_H_
