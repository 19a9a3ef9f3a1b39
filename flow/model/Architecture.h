// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_ARCHITECTURE_H_
#define OPENMMFLOW_ARCHITECTURE_H_

#include "model/Tensor.h"
#include "model/TransformerDescriptor.h"

#include <array>
#include <string>
#include <variant>
#include <vector>

/**
 * The parts of a FlowModel, one struct for each object of docs/model_format.md, which defines their meaning. A FlowModel that
 * exists has been validated: all indices are in range, all tensors have the shapes given here and finite values.
 */
namespace OpenMMFlow {

enum class Measure { Cartesian, Frame };

enum class Distribution { Uniform, Normal, TruncatedNormal };

enum class ActivationType { SiLU, Tanh, Sin, GELU, Softplus };

enum class MixtureHead { Free, Published };

/** The direction in which a transformer is evaluated in closed form. */
enum class Direction { Density, Sampling };

/** Pair of particles whose distance (nm) was constrained in the training data. */
struct DistanceConstraint {
    int particle1, particle2;
    double distance;
};

/** Positions (P, 3) in nm to 3P-6 coordinates: P-1 bonds (nm), P-2 angles/pi, P-3 torsions in [0,1). */
struct InternalCoordinatesLayer {
    /** Rows (i, j, k, l), -1 where there is none, in the order of the file. */
    std::vector<std::array<int, 4>> zMatrix;
};

/**
 * Positions (P, 3) in nm to Q = zMatrix.size() bonds (nm), Q angles/pi, Q torsions in [0,1), and blockDimensions coordinates of the
 * block of B particles that the others are placed from.
 */
struct MixedCoordinatesLayer {
    std::vector<int> block;
    int blockDimensions;
    /** Rows (i, j, k, l), all full. */
    std::vector<std::array<int, 4>> zMatrix;
    /** (B, 3), nm; (blockDimensions, 3B), per nm. */
    Tensor reference, whitening;
};

/** A distribution of each of some coordinates; as a layer the map to [0,1] by its cumulative distribution function. */
struct CoordinateDistributions {
    Distribution distribution;
    std::vector<int> coordinates;
    /** Each (coordinates) if the distribution has it, otherwise empty. */
    Tensor lower, upper, mean, std;
};

struct MarginalLayer : CoordinateDistributions {
};

/** One layer of a dense network: weight (outputs, inputs), bias (outputs). */
struct DenseLayer {
    Tensor weight, bias;
};

struct Conditioner {
    ActivationType activation;
    /** [network][layer]; every network reads all features, their outputs are concatenated. */
    std::vector<std::vector<DenseLayer>> networks;
};

/** The smooth mixture transformer and its head. */
struct SmoothMixtureTransformer {
    MixtureHead head;
    Direction closedForm;
    int components;
    int exponent;
    double alphaOffset, alphaRange, logSteepnessBound, minimumFloor;
};

/** A transformer of flow/formulas/Transformers.h, all but the smooth mixture. */
struct FormulaTransformer {
    const TransformerDescriptor* descriptor;
    Direction closedForm;
    int size;
    /** In the order of the descriptor. */
    std::vector<double> settings;
};

using Transformer = std::variant<SmoothMixtureTransformer, FormulaTransformer>;

struct CouplingLayer {
    std::vector<int> transformed, conditionedOn;
    Transformer transformer;
    Conditioner conditioner;
};

enum class ElementwiseMap { AffineNormalization, Logit, Logistic, CircularShift };

/** A map of single coordinates that no network has a part in. */
struct ElementwiseLayer {
    ElementwiseMap map;
    std::vector<int> coordinates;
    /** Each (coordinates) if the map has it, otherwise empty. */
    Tensor shift, scale;
};

/** Coordinate i is order[i] of before. */
struct PermutationLayer {
    std::vector<int> order;
};

using Layer = std::variant<InternalCoordinatesLayer, MixedCoordinatesLayer, MarginalLayer, CouplingLayer, ElementwiseLayer,
        PermutationLayer>;

struct Architecture {
    int numParticles;
    double temperature;
    Measure measure;
    std::vector<std::array<int, 2>> bonds;
    std::vector<DistanceConstraint> constraints;
    /** The free-form `data` object, as JSON text. */
    std::string data;
    /** In density direction; the first, and no other, is an InternalCoordinatesLayer or a MixedCoordinatesLayer. */
    std::vector<Layer> layers;
    std::vector<CoordinateDistributions> base;

    int numCoordinates() const;
    /** Of the first layer, in this order; then come those of its block, if it has one. */
    int numBonds() const;
    int numAngles() const;
    int numTorsions() const;
};

/** The domain of every coordinate before each layer but the first, and, last, of the latent: [layer][coordinate]. */
std::vector<std::vector<Domain>> coordinateDomains(const Architecture& architecture);

/** The lengths of the blocks of raw parameters of a coupling, in the order of the file; domains are those before it. */
std::vector<int> rawBlockLengths(const CouplingLayer& coupling, const std::vector<Domain>& domains);

/** That of the least smooth transformer, with its name in `leastSmooth` unless all of them are C-infinity. */
Smoothness smoothness(const Architecture& architecture, std::string* leastSmooth = nullptr);

/** What of the first layer a coordinate is, as long as nothing but normalizations and permutations has changed it. */
struct CoordinateOrigin {
    bool known;
    int coordinate;
    /** That coordinate = scale*(this one)+shift. */
    double scale, shift;
};

/** Before each layer but the first, and, last, of the latent: [layer][coordinate]. Without values of tensors scales are 1. */
std::vector<std::vector<CoordinateOrigin>> coordinateOrigins(const Architecture& architecture);

/** An architecture whose permutations have been carried out on the indices of all that follows them, so that they change nothing. */
struct UnpermutedArchitecture {
    Architecture architecture;
    /** Latent i of the original is coordinate latentOrder[i]. */
    std::vector<int> latentOrder;
};

UnpermutedArchitecture withoutPermutations(const Architecture& architecture);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_ARCHITECTURE_H_
