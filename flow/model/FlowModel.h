// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWMODEL_H_
#define OPENMMFLOW_FLOWMODEL_H_

#include "model/Architecture.h"
#include "model/FlowModelError.h"

#include <memory>
#include <string>

namespace OpenMMFlow {

/**
 * A normalizing flow of the conformations of one molecule: architecture, weights and what its density is of.
 *
 * A FlowModel is an immutable value. It always holds a valid model: every way to make one checks all of it and throws
 * FlowModelError otherwise. Copies share their storage. All methods may be called from several threads at once.
 *
 * Positions are arrays of shape (count, numParticles, 3) in nm, row-major. They must hold whole molecules (no periodic images).
 */
class FlowModel {
public:
    /** Read a model file (docs/model_format.md). */
    static FlowModel load(const std::string& path);
    /** Read the contents of a model file from memory. */
    static FlowModel fromBytes(const std::string& bytes);
    /** Write a model file. The file appears complete or not at all. */
    void save(const std::string& path) const;
    /** The contents of a model file. Weights keep their stored type; bytes -> model -> bytes is the identity for files written here. */
    std::string toBytes() const;

    const Architecture& getArchitecture() const;
    /** The architecture as the JSON document of the file. */
    std::string getArchitectureJson() const;
    /** CRC-32 of architecture and weights, eight hexadecimal digits, as in the file. */
    std::string getChecksum() const;
    int getNumParticles() const;
    /** 3*numParticles - 6 */
    int getNumCoordinates() const;
    /** Number of trained weights: all weights and biases of conditioners. */
    long long getNumParameters() const;
    /** Of the training data, in K. */
    double getTemperature() const;
    /**
     * How many continuous derivatives the least smooth transformer of the model has, 1 or 2, or the largest int if all are C-infinity. With
     * less than 2 forces are not differentiable, and dynamics does not conserve energy.
     *
     * @param leastSmooth  out, the name of that transformer in model files, empty if all are C-infinity; or null
     */
    int getNumContinuousDerivatives(std::string* leastSmooth = nullptr) const;
    /** True if both have the same architecture, so that one's weights can replace the other's: the JSON documents are equal but for temperature and data. */
    bool hasSameArchitecture(const FlowModel& other) const;

    /**
     * ln p of each molecule, -inf outside of the support: a density per nm^3 of the origin.
     *
     * @param positions  (count, numParticles, 3), nm
     * @param logProb    out, (count)
     */
    void logProb(const double* positions, long long count, double* logProb) const;
    /**
     * ln p and its gradient.
     *
     * @param positions  (count, numParticles, 3), nm
     * @param logProb    out, (count)
     * @param gradient   out, (count, numParticles, 3), d ln p/dx per nm; NaN where ln p is -inf
     */
    void logProbAndGradient(const double* positions, long long count, double* logProb, double* gradient) const;
    /**
     * The latents z.
     *
     * @param positions  (count, numParticles, 3), nm
     * @param latent     out, (count, numCoordinates)
     * @param logProb    out, (count), or null
     */
    void toLatent(const double* positions, long long count, double* latent, double* logProb = nullptr) const;
    /**
     * The sampling direction: positions from latents. The first frame atom is at the origin, the second on the positive x axis, the third in
     * the xy plane with positive y.
     *
     * @param latent     (count, numCoordinates), within the domain of the base density
     * @param positions  out, (count, numParticles, 3), nm
     * @param logProb    out, (count), ln p of the positions
     */
    void toPositions(const double* latent, long long count, double* positions, double* logProb) const;
    /**
     * Independent samples, each centred (the mean of its positions is the origin) and randomly oriented. Sample i depends on the seed
     * and on i alone, not on the count or the number of threads: first, ..., first+count-1 continue first-count, ..., first-1.
     *
     * @param positions  out, (count, numParticles, 3), nm
     * @param logProb    out, (count), ln p
     * @param gradient   out, (count, numParticles, 3), d ln p/dx per nm, or null
     * @param first      index of the first sample, >= 0
     */
    void sample(long long count, unsigned long long seed, double* positions, double* logProb, double* gradient = nullptr,
            long long first = 0) const;

private:
    struct Contents;
    explicit FlowModel(std::shared_ptr<const Contents> contents);
    std::shared_ptr<const Contents> contents;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWMODEL_H_
