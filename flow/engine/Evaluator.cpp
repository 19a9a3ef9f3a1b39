// SPDX-License-Identifier: MIT
#include "engine/Evaluator.h"
#include "engine/Coupling.h"
#include "engine/InternalCoordinates.h"
#include "engine/Marginals.h"
#include "engine/SupportContinuation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <variant>

using namespace OpenMMFlow;
using namespace std;

namespace {

const double INFINITE = numeric_limits<double>::infinity();

const InternalCoordinatesLayer& internalCoordinatesOf(const Architecture& architecture) {
    return get<InternalCoordinatesLayer>(architecture.layers.front());
}

template <class Real>
using Stage = variant<Marginals, Coupling<Real>>;

template <class Real>
vector<Stage<Real>> compileStages(const Architecture& architecture) {
    vector<Stage<Real>> stages;
    const vector<vector<Domain>> domains = coordinateDomains(architecture);
    for (size_t i = 1; i < architecture.layers.size(); i++) {
        const Layer& layer = architecture.layers[i];
        if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            stages.emplace_back(in_place_type<Coupling<Real>>, *coupling, domains[i-1]);
        else
            stages.emplace_back(in_place_type<Marginals>, get<MarginalLayer>(layer));
    }
    return stages;
}

/** Smallest log density within the support, normal distributions within 8 standard deviations. */
double lowestLogDensity(const CoordinateDistributions& distributions) {
    const Marginals marginals(distributions);
    double sum = 0;
    for (size_t i = 0; i < distributions.coordinates.size(); i++) {
        double edges[2] = {Marginals::lowerEdge(distributions, i), Marginals::upperEdge(distributions, i)};
        if (distributions.distribution == Distribution::Normal) {
            edges[0] = distributions.mean.values[i]-8*distributions.std.values[i];
            edges[1] = distributions.mean.values[i]+8*distributions.std.values[i];
        }
        sum += min(marginals.evaluate(i, edges[0]).logDensity, marginals.evaluate(i, edges[1]).logDensity);
    }
    return sum;
}

template <class Real>
double logProbLowerBound(const Architecture& architecture, const vector<Stage<Real>>& stages) {
    double bound = 0;
    for (const Layer& layer : architecture.layers)
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            bound += lowestLogDensity(*marginal);
    for (const CoordinateDistributions& base : architecture.base)
        bound += lowestLogDensity(base);
    for (const Stage<Real>& stage : stages)
        if (const Coupling<Real>* coupling = get_if<Coupling<Real>>(&stage))
            bound += coupling->getLowerBound();
    // normalization of angles, torsions and orientation
    return bound-log(2*3.14159265358979323846)*(2*architecture.numParticles);
}

} // namespace

/** Hides the precision. */
class Evaluator::Implementation {
public:
    virtual ~Implementation() = default;
    virtual Workspace* createWorkspace(long long count) const = 0;
    virtual int getBlockSize() const = 0;
    virtual void logProb(long long count, const double* positions, double* logProb, double* gradient, double* latent,
            Workspace& workspace) const = 0;
    virtual void continuedPotential(long long count, const double* positions, double lambda, ContinuedPotential* potentials,
            double* gradient, Workspace& workspace) const = 0;
    virtual void toPositions(long long count, const double* latent, double* positions, double* logProb,
            Workspace& workspace) const = 0;
    virtual void sampleLatent(long long count, double* latent) const = 0;
    virtual long long getNumNotConverged(const Workspace& workspace) const = 0;
};

class Evaluator::Workspace {
public:
    virtual ~Workspace() = default;
};

/**
 * All stages for molecules in groups of M, M = 1 or a block. Arrays over a group are [n][M] or [M].
 */
template <class Real>
class Evaluator::Pipeline : public Evaluator::Implementation {
public:
    Pipeline(const FlowModel& model, const SupportMargins& margins) :
            n(model.getNumCoordinates()), numParticles(model.getNumParticles()),
            internalCoordinates(internalCoordinatesOf(model.getArchitecture()).zMatrix, model.getNumParticles(),
                    model.getArchitecture().measure),
            stages(compileStages<Real>(model.getArchitecture())),
            continuation(model, margins, logProbLowerBound<Real>(model.getArchitecture(), stages)) {
        for (const CoordinateDistributions& distributions : model.getArchitecture().base)
            base.emplace_back(distributions);
    }

    int getBlockSize() const override {
        return Coupling<Real>::blockSize();
    }

    Workspace* createWorkspace(long long count) const override {
        return new Room(*this, count);
    }

    void logProb(long long count, const double* positions, double* logProb, double* gradient, double* latent,
            Workspace& workspace) const override {
        Room& room = static_cast<Room&>(workspace);
        forEachGroup(count, [&](long long first, int used, Group& group) {
            for (int m = 0; m < used; m++) {
                InternalCoordinates::State& geometry = group.geometries[m];
                const double* x = positions+(first+m)*3*numParticles;
                internalCoordinates.computeBondsAndAngles(x, geometry);
                internalCoordinates.computeTorsions(x, geometry);
                enter(group, m, geometry.bondValues.data(), geometry.angleValues.data());
            }
            forward(group, gradient != nullptr);
            // Outside of the support, or positions that coincide or are not numbers.
            for (int m = 0; m < used; m++)
                logProb[first+m] = (isfinite(group.logProb[m]) ? group.logProb[m] : -INFINITE);
            if (latent != nullptr)
                for (int m = 0; m < used; m++)
                    for (int i = 0; i < n; i++)
                        latent[(first+m)*n+i] = (isfinite(group.logProb[m]) ? group.coordinates[i*group.M+m] :
                                numeric_limits<double>::quiet_NaN());
            if (gradient == nullptr)
                return;
            backward(group);
            for (int m = 0; m < used; m++) {
                double* g = gradient+(first+m)*3*numParticles;
                if (!isfinite(group.logProb[m])) {
                    fill_n(g, 3*numParticles, numeric_limits<double>::quiet_NaN());
                    continue;
                }
                InternalCoordinates::State& geometry = group.geometries[m];
                leave(group, m, geometry.bondValues.data(), geometry.angleValues.data());
                fill(geometry.angleCosineGradient.begin(), geometry.angleCosineGradient.end(), 0.0);
                fill(geometry.torsionAngleCosineGradient.begin(), geometry.torsionAngleCosineGradient.end(), 0.0);
                internalCoordinates.backward(g, true, geometry);
            }
        }, room);
    }

    void continuedPotential(long long count, const double* positions, double lambda, ContinuedPotential* potentials,
            double* gradient, Workspace& workspace) const override {
        Room& room = static_cast<Room&>(workspace);
        const double ceiling = continuation.getCeiling();
        forEachGroup(count, [&](long long first, int used, Group& group) {
            bool anyFlow = false;
            for (int m = 0; m < used; m++) {
                InternalCoordinates::State& geometry = group.geometries[m];
                SupportContinuation::State& state = group.continuations[m];
                const double* x = positions+(first+m)*3*numParticles;
                internalCoordinates.computeBondsAndAngles(x, geometry);
                continuation.forward(geometry, state);
                if (state.chi > 0) {
                    internalCoordinates.computeTorsions(x, geometry);
                    enter(group, m, state.bonds.data(), state.angles.data());
                    anyFlow = true;
                }
                else
                    enterNothing(group, m);
            }
            if (anyFlow) {
                forward(group, gradient != nullptr);
                if (gradient != nullptr)
                    backward(group);
            }
            for (int m = 0; m < used; m++) {
                InternalCoordinates::State& geometry = group.geometries[m];
                SupportContinuation::State& state = group.continuations[m];
                const bool flow = (state.chi > 0);
                const double logProb = (flow ? group.logProb[m] : 0.0);
                // On the inner support chi is exactly 1, and -ln p must not be rounded at the size of the ceiling.
                potentials[first+m].flow = (state.chi == 1 ? -logProb : ceiling-state.chi*(logProb+ceiling));
                potentials[first+m].wall = state.wall;
                potentials[first+m].outside = state.outside;
                if (gradient != nullptr) {
                    if (flow)
                        leave(group, m, state.bonds.data(), state.angles.data());
                    continuation.backward(lambda, flow, logProb, geometry, state);
                    internalCoordinates.backward(gradient+(first+m)*3*numParticles, flow, geometry);
                }
            }
        }, room);
    }

    void toPositions(long long count, const double* latent, double* positions, double* logProb,
            Workspace& workspace) const override {
        Room& room = static_cast<Room&>(workspace);
        forEachGroup(count, [&](long long first, int used, Group& group) {
            const int M = group.M;
            fill(group.logProb.begin(), group.logProb.end(), 0.0);
            for (int m = 0; m < used; m++)
                for (int i = 0; i < n; i++)
                    group.coordinates[i*M+m] = latent[(first+m)*n+i];
            for (const Marginals& distribution : base)
                distribution.addLogDensity(M, group.coordinates.data(), group.logProb.data());
            for (size_t i = stages.size(); i-- > 0; )
                if (const Coupling<Real>* coupling = get_if<Coupling<Real>>(&stages[i]))
                    coupling->sample(M, group.coordinates.data(), group.logProb.data(), get<CouplingRoom>(group.rooms[i]).data(),
                            group.roots);
                else
                    get<Marginals>(stages[i]).sample(M, group.coordinates.data(), group.logProb.data());
            for (int m = 0; m < used; m++) {
                for (int i = 0; i < n; i++)
                    group.column[i] = group.coordinates[i*M+m];
                logProb[first+m] = group.logProb[m]+internalCoordinates.place(group.column.data(),
                        positions+(first+m)*3*numParticles, group.geometries[m]);
            }
        }, room);
    }

    void sampleLatent(long long count, double* latent) const override {
        for (const Marginals& distribution : base)
            for (long long i = 0; i < count; i++)
                distribution.sampleLatent(1, latent+i*n);
    }

    long long getNumNotConverged(const Workspace& workspace) const override {
        const Room& room = static_cast<const Room&>(workspace);
        return room.single.roots.notConverged+(room.block == nullptr ? 0 : room.block->roots.notConverged);
    }

private:
    using CouplingRoom = AlignedArray<Real>;

    /** Room for a group of M molecules. */
    struct Group {
        Group(const Pipeline& pipeline, int M) : M(M), coordinates(pipeline.n*static_cast<size_t>(M), 0.5),
                gradient(pipeline.n*static_cast<size_t>(M)), logProb(M), column(pipeline.n) {
            for (int m = 0; m < M; m++) {
                geometries.push_back(pipeline.internalCoordinates.createState());
                continuations.push_back(pipeline.continuation.createState());
            }
            for (const Stage<Real>& stage : pipeline.stages)
                if (const Coupling<Real>* coupling = get_if<Coupling<Real>>(&stage))
                    rooms.emplace_back(coupling->createArena(M));
                else
                    rooms.emplace_back(get<Marginals>(stage).createState(M));
        }
        int M;
        vector<InternalCoordinates::State> geometries;       // [M]
        vector<SupportContinuation::State> continuations;    // [M]
        vector<double> coordinates;                          // [n][M] at the current layer, the latents at last
        vector<double> gradient;                             // [n][M]
        vector<double> logProb;                              // [M]
        vector<double> column;                               // [n] of one molecule
        vector<variant<Marginals::State, CouplingRoom>> rooms;    // [stage]
        RootFinding roots;
    };

    struct Room : Workspace {
        Room(const Pipeline& pipeline, long long count) : single(pipeline, 1) {
            if (pipeline.usesBlocks(count))
                block = make_unique<Group>(pipeline, pipeline.getBlockSize());
        }
        Group single;
        unique_ptr<Group> block;
    };

    /** A block costs about as much as half of its molecules one by one. */
    bool usesBlocks(long long count) const {
        return 2*count >= getBlockSize();
    }

    /** Call work(first molecule, number of molecules, group) for groups that cover `count` molecules; the last may be partly filled. */
    template <class Work>
    void forEachGroup(long long count, Work work, Room& room) const {
        for (long long first = 0; first < count; ) {
            if (usesBlocks(count-first) && room.block != nullptr) {
                const int used = static_cast<int>(min<long long>(getBlockSize(), count-first));
                for (int m = used; m < getBlockSize(); m++)
                    enterNothing(*room.block, m);
                work(first, used, *room.block);
                first += used;
            }
            else
                work(first++, 1, room.single);
        }
    }

    /** Put molecule m into the group: its coordinates, and their ln|det J| into logProb. */
    void enter(Group& group, int m, const double* bonds, const double* angles) const {
        group.logProb[m] = internalCoordinates.normalize(bonds, angles, group.geometries[m].torsionValues.data(), group.column.data());
        for (int i = 0; i < n; i++)
            group.coordinates[i*group.M+m] = group.column[i];
    }

    /** Put harmless numbers where there is no molecule. */
    void enterNothing(Group& group, int m) const {
        group.logProb[m] = 0;
        for (int i = 0; i < n; i++)
            group.coordinates[i*group.M+m] = 0.5;
    }

    /** All stages after the geometry, and the base density. */
    void forward(Group& group, bool withGradient) const {
        for (size_t i = 0; i < stages.size(); i++)
            if (const Coupling<Real>* coupling = get_if<Coupling<Real>>(&stages[i]))
                coupling->forward(group.M, withGradient, group.coordinates.data(), group.logProb.data(),
                        get<CouplingRoom>(group.rooms[i]).data(), group.roots);
            else
                get<Marginals>(stages[i]).forward(group.M, group.coordinates.data(), group.logProb.data(),
                        get<Marginals::State>(group.rooms[i]));
        for (const Marginals& distribution : base)
            distribution.addLogDensity(group.M, group.coordinates.data(), group.logProb.data());
    }

    /** The same rooms backwards, up to the coordinates of the first layer. */
    void backward(Group& group) const {
        fill(group.gradient.begin(), group.gradient.end(), 0.0);
        for (const Marginals& distribution : base)
            distribution.addLogDensityGradient(group.M, group.coordinates.data(), group.gradient.data());
        for (size_t i = stages.size(); i-- > 0; )
            if (const Coupling<Real>* coupling = get_if<Coupling<Real>>(&stages[i]))
                coupling->backward(group.M, group.gradient.data(), get<CouplingRoom>(group.rooms[i]).data());
            else
                get<Marginals>(stages[i]).backward(group.M, group.gradient.data(), get<Marginals::State>(group.rooms[i]));
    }

    /** Take the gradient of molecule m out of the group, as that of its bonds, angles and torsions. */
    void leave(Group& group, int m, const double* bonds, const double* angles) const {
        InternalCoordinates::State& geometry = group.geometries[m];
        for (int i = 0; i < n; i++)
            group.column[i] = group.gradient[i*group.M+m];
        internalCoordinates.normalizeBackward(bonds, angles, group.column.data(), geometry.bondGradient.data(),
                geometry.angleGradient.data(), geometry.torsionGradient.data());
    }

    int n, numParticles;
    InternalCoordinates internalCoordinates;
    vector<Stage<Real>> stages;
    SupportContinuation continuation;
    vector<Marginals> base;
};

Evaluator::Evaluator(const FlowModel& model, Precision precision) : Evaluator(model, defaultMargins(model), precision) {
}

Evaluator::Evaluator(const FlowModel& model, const SupportMargins& margins, Precision precision) {
    if (precision == Precision::Double)
        implementation = make_unique<const Pipeline<double>>(model, margins);
    else
        implementation = make_unique<const Pipeline<float>>(model, margins);
}

Evaluator::~Evaluator() = default;

void Evaluator::WorkspaceDeleter::operator()(Workspace* workspace) const {
    delete workspace;
}

Evaluator::WorkspacePointer Evaluator::createWorkspace(long long count) const {
    return WorkspacePointer(implementation->createWorkspace(count));
}

int Evaluator::getBlockSize() const {
    return implementation->getBlockSize();
}

void Evaluator::logProb(long long count, const double* positions, double* logProb, double* gradient, double* latent,
        Workspace& workspace) const {
    implementation->logProb(count, positions, logProb, gradient, latent, workspace);
}

void Evaluator::continuedPotential(long long count, const double* positions, double lambda, ContinuedPotential* potentials,
        double* gradient, Workspace& workspace) const {
    implementation->continuedPotential(count, positions, lambda, potentials, gradient, workspace);
}

void Evaluator::toPositions(long long count, const double* latent, double* positions, double* logProb, Workspace& workspace) const {
    implementation->toPositions(count, latent, positions, logProb, workspace);
}

void Evaluator::sampleLatent(long long count, double* latent) const {
    implementation->sampleLatent(count, latent);
}

long long Evaluator::getNumNotConverged(const Workspace& workspace) const {
    return implementation->getNumNotConverged(workspace);
}
