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
#include <mutex>
#include <thread>
#include <vector>

using namespace OpenMMFlow;
using namespace std;

// Fewer molecules than this are not worth a thread.
static const long long MIN_MOLECULES_PER_THREAD = 64;

struct FlowModel::Contents {
    explicit Contents(ModelContents&& file) : file(move(file)) {
    }

    /** Compiled when it is first needed; model is the one that holds these contents. */
    const Evaluator& evaluator(const FlowModel& model) const {
        call_once(compilation, [&] { compiled = make_unique<const Evaluator>(model); });
        return *compiled;
    }

    const ModelContents file;

private:
    mutable once_flag compilation;
    mutable unique_ptr<const Evaluator> compiled;
};

namespace {

void checkPositions(const double* positions, long long count, int numParticles) {
    if (count < 0)
        fail("the number of molecules is ", count, ", expected 0 or more");
    const double* end = positions+3*numParticles*count;
    const double* bad = find_if(positions, end, [](double x) { return !isfinite(x); });
    if (bad != end) {
        long long particle = (bad-positions)/3;
        fail("the positions of molecule ", particle/numParticles, ", particle ", particle%numParticles, " are not finite (", *bad,
                "); expected coordinates in nm");
    }
}

/**
 * Call evaluate(molecule, workspace) for each molecule, by several threads if there are many. Every molecule is computed on its own,
 * so the results do not depend on the number of threads.
 */
template <class Evaluate>
void forEachMolecule(const Evaluator& evaluator, long long count, const Evaluate& evaluate) {
    long long numThreads = min<long long>(max(1u, thread::hardware_concurrency()), count/MIN_MOLECULES_PER_THREAD);
    numThreads = max(numThreads, 1LL);
    vector<Evaluator::WorkspacePointer> workspaces;
    for (long long t = 0; t < numThreads; t++)
        workspaces.push_back(evaluator.createWorkspace());
    auto evaluateShare = [&](long long t) {
        for (long long molecule = t*count/numThreads; molecule < (t+1)*count/numThreads; molecule++)
            evaluate(molecule, *workspaces[t]);
    };
    vector<thread> threads;
    for (long long t = 1; t < numThreads; t++)
        threads.emplace_back(evaluateShare, t);
    evaluateShare(0);
    for (thread& thread : threads)
        thread.join();
}

} // namespace

FlowModel::FlowModel(shared_ptr<const Contents> contents) : contents(move(contents)) {
}

FlowModel FlowModel::load(const string& path) {
    string bytes = readWholeFile(path, [&](string_view beginning, uint64_t size) {
        try {
            checkSafetensorsBeginning(beginning, size);
        }
        catch (const FlowModelError& error) {
            fail("'", path, "': ", error.what());
        }
    });
    try {
        return fromBytes(bytes);
    }
    catch (const FlowModelError& error) {
        fail("'", path, "': ", error.what());
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
    logProbAndGradient(positions, count, logProb, nullptr);
}

void FlowModel::logProbAndGradient(const double* positions, long long count, double* logProb, double* gradient) const {
    const size_t size = 3*getNumParticles();
    checkPositions(positions, count, getNumParticles());
    const Evaluator& evaluator = contents->evaluator(*this);
    forEachMolecule(evaluator, count, [&](long long molecule, Evaluator::Workspace& workspace) {
        double* moleculeGradient = (gradient == nullptr ? nullptr : gradient+molecule*size);
        logProb[molecule] = evaluator.logProb(positions+molecule*size, moleculeGradient, nullptr, workspace);
    });
}

void FlowModel::toLatent(const double* positions, long long count, double* latent, double* logProb) const {
    const size_t size = 3*getNumParticles();
    checkPositions(positions, count, getNumParticles());
    const Evaluator& evaluator = contents->evaluator(*this);
    forEachMolecule(evaluator, count, [&](long long molecule, Evaluator::Workspace& workspace) {
        double value = evaluator.logProb(positions+molecule*size, nullptr, latent+molecule*getNumCoordinates(), workspace);
        if (logProb != nullptr)
            logProb[molecule] = value;
    });
}
