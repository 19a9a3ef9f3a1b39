// SPDX-License-Identifier: MIT
#include "model/FlowModel.h"
#include "engine/Evaluator.h"
#include "model/ArchitectureJson.h"
#include "model/ArchitectureTensors.h"
#include "model/Failure.h"
#include "model/ModelFile.h"
#include "model/SafetensorsFile.h"
#include "model/WholeFile.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <mutex>
#include <new>
#include <random>
#include <system_error>
#include <thread>
#include <vector>

using namespace OpenMMFlow;
using namespace std;

// Less is not worth a thread.
static const long long MIN_BLOCKS_PER_THREAD = 8;
// Whole batches, so that every sample is evaluated in the same company whatever the number of threads.
static const long long LATENT_BATCH_BLOCKS = 64;

namespace {

void checkCount(long long count) {
    if (count < 0)
        fail("the number of molecules is ", count, ", expected 0 or more");
}

void checkPositions(const double* positions, long long count, int numParticles) {
    checkCount(count);
    const double* end = positions+3*numParticles*count;
    const double* bad = find_if(positions, end, [](double x) { return !isfinite(x); });
    if (bad != end) {
        long long particle = (bad-positions)/3;
        fail("the positions of molecule ", particle/numParticles, ", particle ", particle%numParticles, " are not finite (", *bad,
                "); expected coordinates in nm");
    }
}

/**
 * Call evaluate(first, number, workspace) for shares of all molecules, by several threads if there are many. Shares are whole
 * blocks of the evaluator, so results do not depend on the number of threads.
 */
template <class Evaluate>
void forEachShare(const Evaluator& evaluator, long long count, const Evaluate& evaluate) {
    const long long blockSize = evaluator.getBlockSize();
    const long long numBlocks = (count+blockSize-1)/blockSize;
    const long long numShares = max(1LL, min<long long>(thread::hardware_concurrency(), numBlocks/MIN_BLOCKS_PER_THREAD));
    auto firstOf = [&](long long share) {
        return min(count, share*numBlocks/numShares*blockSize);
    };
    vector<Evaluator::WorkspacePointer> workspaces;
    for (long long s = 0; s < numShares; s++)
        workspaces.push_back(evaluator.createWorkspace(firstOf(s+1)-firstOf(s)));
    auto work = [&](long long share) {
        evaluate(firstOf(share), firstOf(share+1)-firstOf(share), *workspaces[share]);
    };
    vector<thread> threads;
    for (long long s = 1; s < numShares; s++)
        try {
            threads.emplace_back(work, s);
        }
        catch (const system_error&) {
            work(s);    // there are no more threads to have
        }
    work(0);
    for (thread& thread : threads)
        thread.join();
    long long notConverged = 0;
    for (const Evaluator::WorkspacePointer& workspace : workspaces)
        notConverged += evaluator.getNumNotConverged(*workspace);
    if (notConverged > 0)
        fail(notConverged, " inverses of transformers were not found to full precision; the weights of the model, or its input, are too extreme");
}

} // namespace

/**
 * Move the mean of positions (numParticles, 3) to the origin and turn them by the uniformly distributed rotation that belongs to three
 * uniform random numbers: K. Shoemake, Uniform random rotations, Graphics Gems III (1992).
 */
static void centreAndRotate(int numParticles, const double* uniform, double* positions) {
    const double twoPi = 6.283185307179586476925;
    const double a = sqrt(1-uniform[0]), b = sqrt(uniform[0]);
    const double x = a*sin(twoPi*uniform[1]), y = a*cos(twoPi*uniform[1]), z = b*sin(twoPi*uniform[2]), w = b*cos(twoPi*uniform[2]);
    const double rotation[3][3] = {
        {1-2*(y*y+z*z), 2*(x*y-z*w), 2*(x*z+y*w)},
        {2*(x*y+z*w), 1-2*(x*x+z*z), 2*(y*z-x*w)},
        {2*(x*z-y*w), 2*(y*z+x*w), 1-2*(x*x+y*y)}};
    double mean[3] = {0, 0, 0};
    for (int i = 0; i < numParticles; i++)
        for (int k = 0; k < 3; k++)
            mean[k] += positions[3*i+k]/numParticles;
    for (int i = 0; i < numParticles; i++) {
        double* r = positions+3*i;
        const double centred[3] = {r[0]-mean[0], r[1]-mean[1], r[2]-mean[2]};
        for (int k = 0; k < 3; k++)
            r[k] = rotation[k][0]*centred[0]+rotation[k][1]*centred[1]+rotation[k][2]*centred[2];
    }
}

/** The random numbers of one sample, uniform in (0,1): latent (n) and orientation (3). */
static void drawUniform(unsigned long long seed, unsigned long long index, int n, double* latent, double* orientation) {
    seed_seq sequence = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed>>32), static_cast<uint32_t>(index),
            static_cast<uint32_t>(index>>32)};
    mt19937_64 random(sequence);
    // 52 bits in the middle of the 2^52 intervals of (0,1): never an end.
    const auto uniform = [&] { return ((random()>>12)+0.5)*0x1p-52; };
    for (int k = 0; k < n; k++)
        latent[k] = uniform();
    for (int k = 0; k < 3; k++)
        orientation[k] = uniform();
}

struct FlowModel::Contents {
    explicit Contents(ModelContents&& file) : file(move(file)) {
    }

    /**
     * @param model     the one that holds these contents
     * @param logProb   out, (count), or null
     * @param gradient  out, (count, numParticles, 3), or null
     * @param latent    out, (count, numCoordinates), or null
     */
    void evaluate(const FlowModel& model, const double* positions, long long count, double* logProb, double* gradient,
            double* latent) const;
    const Evaluator& getEvaluator(const FlowModel& model) const;

    const ModelContents file;

private:
    // Compiled when it is first needed.
    mutable once_flag compilation;
    mutable unique_ptr<const Evaluator> evaluator;
};

const Evaluator& FlowModel::Contents::getEvaluator(const FlowModel& model) const {
    call_once(compilation, [&] { evaluator = make_unique<const Evaluator>(model); });
    return *evaluator;
}

void FlowModel::Contents::evaluate(const FlowModel& model, const double* positions, long long count, double* logProb,
        double* gradient, double* latent) const {
    const int numParticles = model.getNumParticles(), numCoordinates = model.getNumCoordinates();
    checkPositions(positions, count, numParticles);
    const Evaluator& evaluator = getEvaluator(model);
    vector<double> unused(logProb == nullptr ? count : 0);
    double* values = (logProb == nullptr ? unused.data() : logProb);
    forEachShare(evaluator, count, [&](long long first, long long number, Evaluator::Workspace& workspace) {
        evaluator.logProb(number, positions+first*3*numParticles, values+first,
                gradient == nullptr ? nullptr : gradient+first*3*numParticles,
                latent == nullptr ? nullptr : latent+first*numCoordinates, workspace);
    });
}

FlowModel::FlowModel(shared_ptr<const Contents> contents) : contents(move(contents)) {
}

FlowModel FlowModel::load(const string& path) {
    try {
        return fromBytes(readWholeFile(path, checkSafetensorsBeginning));
    }
    catch (const FlowModelError& error) {
        fail("model file '", path, "': ", error.what());
    }
    catch (const bad_alloc&) {
        fail("model file '", path, "' needs more memory than there is");
    }
}

FlowModel FlowModel::fromBytes(const string& bytes) {
    return FlowModel(make_shared<const Contents>(readModelFile(bytes)));
}

void FlowModel::save(const string& path) const {
    writeWholeFile(path, toBytes());
}

string FlowModel::toBytes() const {
    return writeModelFile(contents->file.json, namedTensors(contents->file.architecture));
}

const Architecture& FlowModel::getArchitecture() const {
    return contents->file.architecture;
}

string FlowModel::getArchitectureJson() const {
    return contents->file.json;
}

string FlowModel::getChecksum() const {
    return contents->file.checksum;
}

int FlowModel::getNumParticles() const {
    return getArchitecture().numParticles;
}

int FlowModel::getNumCoordinates() const {
    return getArchitecture().numCoordinates();
}

int FlowModel::getNumContinuousDerivatives(string* leastSmooth) const {
    switch (smoothness(getArchitecture(), leastSmooth)) {
        case Smoothness::C1: return 1;
        case Smoothness::C2: return 2;
        default: return numeric_limits<int>::max();
    }
}

long long FlowModel::getNumParameters() const {
    long long number = 0;
    for (const Layer& layer : getArchitecture().layers)
        if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            for (const vector<DenseLayer>& network : coupling->conditioner.networks)
                for (const DenseLayer& dense : network)
                    number += dense.weight.values.size()+dense.bias.values.size();
    return number;
}

double FlowModel::getTemperature() const {
    return getArchitecture().temperature;
}

bool FlowModel::hasSameArchitecture(const FlowModel& other) const {
    return contents == other.contents || equalArchitectures(contents->file.json, other.contents->file.json);
}

void FlowModel::logProb(const double* positions, long long count, double* logProb) const {
    contents->evaluate(*this, positions, count, logProb, nullptr, nullptr);
}

void FlowModel::logProbAndGradient(const double* positions, long long count, double* logProb, double* gradient) const {
    contents->evaluate(*this, positions, count, logProb, gradient, nullptr);
}

void FlowModel::toLatent(const double* positions, long long count, double* latent, double* logProb) const {
    contents->evaluate(*this, positions, count, logProb, nullptr, latent);
}

void FlowModel::toPositions(const double* latent, long long count, double* positions, double* logProb) const {
    checkCount(count);
    const int numParticles = getNumParticles(), n = getNumCoordinates();
    for (long long i = 0; i < count*n; i++)
        if (!isfinite(latent[i]))
            fail("latent ", i/n, " has a value that is not a finite number");
    const Evaluator& evaluator = contents->getEvaluator(*this);
    forEachShare(evaluator, count, [&](long long first, long long number, Evaluator::Workspace& workspace) {
        evaluator.toPositions(number, latent+first*n, positions+first*3*numParticles, logProb+first, workspace);
    });
}

void FlowModel::sample(long long count, unsigned long long seed, double* positions, double* logProb, double* gradient,
        long long first) const {
    checkCount(count);
    if (first < 0)
        fail("the index of the first sample is ", first, ", expected 0 or more");
    const int numParticles = getNumParticles(), n = getNumCoordinates();
    const Evaluator& evaluator = contents->getEvaluator(*this);
    // A block that is not aligned has a density of place and orientation, too.
    const bool stands = getArchitecture().measure == Measure::Frame
            && holds_alternative<MixedCoordinatesLayer>(getArchitecture().layers.front());
    forEachShare(evaluator, count, [&](long long begin, long long number, Evaluator::Workspace& workspace) {
        // Latents of one batch of blocks at a time: memory does not grow with the count.
        const long long batch = LATENT_BATCH_BLOCKS*evaluator.getBlockSize();
        vector<double> latent(min(number, batch)*n), orientation(3*min(number, batch));
        for (long long start = begin; start < begin+number; start += batch) {
            const long long size = min(batch, begin+number-start);
            for (long long i = 0; i < size; i++)
                drawUniform(seed, first+start+i, n, &latent[i*n], &orientation[3*i]);
            evaluator.sampleLatent(size, latent.data());
            double* x = positions+start*3*numParticles;
            evaluator.toPositions(size, latent.data(), x, logProb+start, workspace);
            for (long long i = 0; i < size && !stands; i++)
                centreAndRotate(numParticles, &orientation[3*i], x+i*3*numParticles);
        }
    });
    if (gradient != nullptr) {
        // ln p of the sampling direction stays: it has not been through the rounding of positions.
        vector<double> again(count);
        logProbAndGradient(positions, count, again.data(), gradient);
    }
}
