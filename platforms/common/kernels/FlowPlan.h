// SPDX-License-Identifier: MIT
// How a flow lies in the buffers of a device. One text for the host, which fills it in (DevicePlan.h), and for the kernel.
//
// The host writes a program: a list of operations with a barrier after each. Work-items of a group share the work of an operation. With
// a single loop over these the kernel stays small for every compiler, whatever the model.
//
// A work-group evaluates a tile of TILE molecules. A cluster of CLUSTER groups evaluates one molecule: they share out the products, whose
// outputs go to all of them, and each does everything else for itself.
//
// Intermediate results are rows of TILE numbers, one for each molecule, in two arenas:
// `real` for couplings, `mixed` for everything else. Fields that end in Row are rows of an arena; those that end in Index, Constant
// or Weight are places in the arrays of indices, constants (mixed) and weights (real). Everything else of this file is integers, which lie one
// after the other in one table.

typedef struct {
    int programTable, stagesTable, stepsTable, productsTable, roundsTable, indicesTable;    // where in the table each list begins; steps and
                                                                                            // products are there, or rounds in place of them
    int numParticles, numBonds, numAngles, numTorsions, numCoordinates;
    int numBlock, blockDimensions, blockIsAligned;    // of a block in Cartesian coordinates, 0 if there is none
    int numRanges;              // numBonds + numAngles + numTorsions + blockDimensions, and 1 for an aligned block
    int numForwardOperations, numOperations;    // without and with those for forces
    int treeIndex;              // (numParticles-1, 2) parent and child of a spanning tree of the bonds, parents first
    int bondIndex;              // (numBonds, 2) atoms
    int angleIndex;             // (numAngles, 3)
    int torsionIndex;           // (numTorsions, 4)
    int blockIndex;             // (numBlock) atoms
    int thermalEnergyConstant;  // k_B T in kJ/mol
    int ceilingConstant;        // of the continuation
    int logConstant;            // what ln|det J| of the internal coordinates has in addition to its logarithms
    int rangeConstant;          // (numRanges) FlowRange: bonds, angles, angles jkl of torsions, coordinates of the block, its alignment
    int referenceConstant;      // (numBlock, 3)
    int whiteningConstant;      // (blockDimensions, numBlock, 3)
    int inverseReferenceDeterminantConstant;    // of A of the reference
    int baseIndex;              // (numCoordinates) which of the normal base densities a coordinate has, or -1
    int baseConstant;           // (number of them, 5) their parameters
    // mixed arena
    int positionRow;            // 3 numParticles, relative to the first one
    int originRow;              // 3: where that is
    int alignedRow;             // 3 numBlock: the block as it is whitened
    int whitenedRow;            // blockDimensions: its coordinates; on the way back the wall of each
    int blockGradientRow;       // 3 numBlock, with respect to the rows at alignedRow
    int rotationRow;            // 9 of R, 6 of the inverse of A
    int determinantRatioRow;    // det A over that of the reference
    int radiusFactorRow;        // gradient of the wall of the radius of gyration over the aligned position
    int turnRow;                // 3: A^-1 times the torque of the gradient
    int coordinateRow;          // numCoordinates: at the current layer, the latents at last
    int gradientRow;            // numCoordinates
    int chiRow, wallRow;        // numRanges: factors of chi, terms of the wall
    int outsideRow;             // the same: 1 where outside of the inner support
    int termRow, numTerms;      // of ln p: bonds and angles, an aligned block, layers, base density
    int baseTermRow;
    int scratchRow;             // 3 SUM_SLICES
    int totalRow;               // chi, wall, outside, ln p, and over k_B T: energy of the flow (of lambda 1), whole energy
    // real arena
    int partialRow;             // sums of the slices of a product, of FLOW_PRODUCT
    int numMixedRows, numRealRows;
    int numKeptRows;            // of an arena of its own, if what is kept for the way back has one; else it is in `real`
} FlowLayout;

// Of a bond, an angle, the angle jkl of a torsion or a coordinate of the block: see SupportRange in flow/engine/GeometryPlan.h. That of
// the alignment has chi and `lower` of the ratio of determinants, and the wall of the radius of gyration.
typedef struct {
    mixed lower, upper, margin;
    mixed wallLower, wallUpper, inverseWallWidth;
    mixed chiLow0, inverseChiLow, chiHigh0, inverseChiHigh;
    mixed volumePower;          // -d ln|det J|/d ln b, -d ln|det J|/d ln sin(angle)
} FlowRange;

// Operations, and what their index is of.
#define FLOW_GATHER 0
#define FLOW_UNWRAP 1
#define FLOW_BONDS_AND_ANGLES 2
#define FLOW_SUM_CONTINUATION 3
#define FLOW_FINISH_CONTINUATION 4
#define FLOW_TORSIONS 5
#define FLOW_MARGINAL 6                 // stage
#define FLOW_FEATURES 7                 // stage
#define FLOW_PRODUCT 8                  // step
#define FLOW_SUM_SLICES 9               // step
#define FLOW_PARAMETERS 10              // stage
#define FLOW_SOLVE 11                   // stage
#define FLOW_COMPONENTS 12              // stage
#define FLOW_MIXTURE 13                 // stage
#define FLOW_BASE 14
#define FLOW_SUM_LOG_PROB 15
#define FLOW_FINISH_LOG_PROB 16
#define FLOW_ENERGY 17
#define FLOW_COMPONENTS_BACKWARD 18     // stage
#define FLOW_MIXTURE_BACKWARD 19        // stage
#define FLOW_FEATURES_BACKWARD 20       // stage
#define FLOW_MARGINAL_BACKWARD 21       // stage
#define FLOW_FORCES 22
#define FLOW_TRANSFORM 23               // stage
#define FLOW_TRANSFORM_BACKWARD 24      // stage
#define FLOW_ALIGN 25
#define FLOW_WHITEN 26
#define FLOW_WHITEN_BACKWARD 27
#define FLOW_BLOCK_GRADIENT 28
#define FLOW_BLOCK_TURN 29
#define FLOW_BLOCK_FORCES 30
#define FLOW_SOFTMAX 31                 // stage
#define FLOW_KEEP 32                    // stage; if what is kept has an arena of its own
#define FLOW_RECALL 33                  // stage
#define FLOW_MIXTURE_IN_WARPS 34        // stage; in place of FLOW_SOFTMAX, FLOW_COMPONENTS and FLOW_MIXTURE
#define FLOW_MIXTURE_BACKWARD_IN_WARPS 35   // stage; in place of FLOW_COMPONENTS_BACKWARD and FLOW_MIXTURE_BACKWARD
#define FLOW_PRODUCTS_IN_WARPS 36       // round, the first of some, each with a barrier of its own; in place of FLOW_PRODUCT and FLOW_SUM_SLICES

typedef struct {
    int code, index;
} FlowOperation;

// What is counted, since the Context was made.
#define FLOW_SUPPORT_EXITS 0            // evaluations of molecules outside of the inner support
#define FLOW_ROOTS_MISSED 1             // roots that were not found; the host starts from 0 again after it has reported them
#define FLOW_NUM_COUNTERS 2

// Of single coordinates: marginals and elementwise layers.
#define FLOW_MAP_AFFINE 0
#define FLOW_MAP_NORMAL 1
#define FLOW_MAP_LOGIT 2
#define FLOW_MAP_LOGISTIC 3
#define FLOW_MAP_CIRCULAR_SHIFT 4

// Of a component of a smooth mixture: w, alpha, mu, ln sigma, m.
#define MIXTURE_PARAMETERS 5

#define FLOW_ACTIVATION_SILU 0
#define FLOW_ACTIVATION_TANH 1
#define FLOW_ACTIVATION_SIN 2
#define FLOW_ACTIVATION_GELU 3
#define FLOW_ACTIVATION_SOFTPLUS 4

// A layer after the internal coordinates.
typedef struct {
    int termRow;                        // of ln|det J|, one for each transformed coordinate
    // marginal, elementwise
    int map;
    int count;
    int coordinateIndex;                // (count)
    int parameterConstant;              // (count, 5)
    int densityRow, slopeRow;           // mixed, count each: d value/dx and d ln(that)/dx
    // coupling
    int numPlain, numCircularFeatures;  // coordinates that enter as they are, and as cosine and sine
    int plainIndex, circularIndex;
    int numIntervals, numCircles;       // D = numIntervals + numCircles transformed coordinates, intervals (or real ones) first
    int transformedIndex;               // (D)
    int onRealLine;                     // whether the transformed coordinates are real
    int inverse;                        // F is evaluated in the sampling direction
    int components, exponent;           // of a smooth mixture
    int log2Components;                 // rounded up
    int published;                      // head
    int headConstant;                   // alphaOffset, alphaRange, logSteepnessBound, minimumFloor; or settings of another transformer
    int transformerType, transformerSize;       // of a transformer of formulas/Transformers.h; -1 for a smooth mixture
    int otherOffsetIndex, circleOffsetIndex;    // where the raw rows of each parameter begin: of coordinates that are not on circles, and are
    int numNetworks;
    int featureRow;                     // numPlain + 2 numCircularFeatures: plain ones, cosines, sines
    int featureGradientRow;             // (numNetworks, that)
    int rawRow, rawGradientRow;         // (5, K, D): w, alpha, mu, ln sigma, m; of another transformer (parameters, coordinates). Rows of a
                                        // softmax, w and the published mu, are its elements after FLOW_SOFTMAX
    int numRaw, keptRow;                // how many, and where they are kept if all couplings share these rows; or what FLOW_MIXTURE_IN_WARPS leaves
    int argumentRow;                    // D: where the mixture F is evaluated
    int valueRow, mixtureSlopeRow, curvatureRow;    // D: F, F', F''
    int componentRow;                   // (3, K, D): weight times F_k, F_k', F_k''
    int parameterRow;                   // (7, K, D) for root finding, only if `inverse`
} FlowStage;

// Products that run side by side: each output is sum over inputs of matrix[input][output]*source[input]. A sum is split into slices, one for each
// work-item: of inputs 0, n, 2n..., of inputs 1, n+1, 2n+1... and so on, for n slices.
typedef struct {
    int firstProduct;
    int numQuads;               // of four outputs, of all products
    int log2Slices;
    int activation;
} FlowStep;

typedef struct {
    int firstQuad;              // number of quads of the step before this product
    int numQuads;
    int inputs, outputs;
    int matrixWeight;           // (inputs of a slice, numQuads, slices, 4), filled up to whole slices; a multiple of 4
    int biasWeight;             // (outputs), or -1
    int sourceRow, targetRow;
    int activated;              // whether the outputs pass through the activation,
    int slopeRow;               // which then leaves its derivative here, a row that is kept; else the outputs are multiplied with it unless -1
} FlowProduct;

// The same where work-items of a warp exchange numbers. All of a cluster's work-items take part in a round, SLICES of them for a quad of outputs of
// LANES molecules. A step is one round, or several. Quads of a product go to the groups of a cluster in turn.
typedef struct {
    int activation;
    int endsStep;
    int numFollowing;           // rounds after this one in the same operation
} FlowRound;

// All that a work-item has to know, in two vectors of a list of its own: (rounds and one more, CLUSTER, quads of a group). Where there are more
// places than quads some have no outputs.
typedef struct {
    int matrix;                 // where its first vector of four weights is, with one molecule in a list (inputs), else in one of
                                // (inputs, QUADS_TOGETHER, SLICES) with inputs, of each slice, and quads that are filled up
    int inputs;
    int sourceRow, targetRow;
    int outputs;                // at most 4
    int biasWeight;             // of four
    int slopeRow;               // where the activation leaves its derivatives, rows that are kept; -1 if there is none
    int factorRow;              // what the outputs are multiplied with, likewise
} FlowQuad;
#define QUADS_TOGETHER 32
