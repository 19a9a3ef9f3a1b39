// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_RANDOMMODELS_H_
#define OPENMMFLOW_RANDOMMODELS_H_

#include "model/FlowModel.h"

#include <nlohmann/json.hpp>

#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace OpenMMFlow {

/** What a random model is made of. Whatever is not set is drawn, for each layer anew where it belongs to a layer. */
struct RandomModelOptions {
    std::optional<int> numParticles;                // otherwise 4 to 12
    std::optional<Measure> measure;
    std::optional<double> temperature;              // K
    std::optional<TensorType> tensorType;           // of all weights
    std::optional<Distribution> marginal;           // of all bonds and angles; otherwise some stay real
    std::optional<bool> mixedCoordinates;           // a block in Cartesians; otherwise of some models in measure "cartesian"
    std::optional<bool> elementwise;                // layers without networks and permutations; otherwise in some models
    std::optional<int> numCouplings;                // otherwise 1 to 4
    /** Smooth mixtures in all couplings; with false, any transformers. Otherwise either; with `head` or `exponent` smooth mixtures. */
    std::optional<bool> smoothMixtures;
    std::optional<Smoothness> smoothness;           // the least of transformers; otherwise C1
    std::optional<MixtureHead> head;
    std::optional<Direction> closedForm;
    std::optional<int> exponent;
    std::optional<int> components;                  // otherwise 1 to 8
    std::optional<ActivationType> activation;
    std::optional<int> numNetworks;                 // 1 to 5; otherwise 1 or 3
    std::optional<int> numHiddenLayers;             // otherwise 0 to 3
    std::optional<int> hiddenWidth;                 // otherwise 3 to 12
};

/** A model as plain data, for tests that spoil it. */
struct ModelParts {
    nlohmann::json architecture;
    std::map<std::string, Tensor> tensors;

    /** The contents of a model file, whether they make a valid model or not. */
    std::string toBytes() const;
};

/** A valid model of a random tree of particles with random weights; the same for the same seed. */
ModelParts randomModelParts(const RandomModelOptions& options, unsigned seed);

FlowModel randomModel(const RandomModelOptions& options, unsigned seed);

/**
 * Positions (numParticles, 3) in nm, well inside the support of a model: bonds and angles lie in the middle 60 % of their
 * support (within one standard deviation where it is unbounded), no three particles of a torsion are close to a line, and the
 * molecule is turned and shifted at random.
 */
std::vector<double> randomConformation(const FlowModel& model, std::mt19937& random);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_RANDOMMODELS_H_
