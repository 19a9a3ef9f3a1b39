// SPDX-License-Identifier: MIT
#include "engine/Evaluator.h"
#include "engine/Coupling.h"
#include "engine/Elementwise.h"
#include "engine/GeometryPlan.h"
#include "engine/InternalCoordinates.h"
#include "engine/LogProbBound.h"
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

template <class Real>
using Stage = variant<Marginals, Elementwise, Coupling<Real>>;

/** Call work(stage) if it is one of single coordinates: Marginals or Elementwise. */
template <class Stage, class Work>
void visitSingle(Stage& stage, const Work& work) {
    if (auto* marginals = get_if<Marginals>(&stage))
        work(*marginals);
    else if (auto* elementwise = get_if<Elementwise>(&stage))
        work(*elementwise);
}

template <class Real>
vector<Stage<Real>> compileStages(const Architecture& architecture) {
    vector<Stage<Real>> stages;
    const vector<vector<Domain>> domains = coordinateDomains(architecture);
    for (size_t i = 1; i < architecture.layers.size(); i++) {
        const Layer& layer = architecture.layers[i];
        if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            stages.emplace_back(in_place_type<Coupling<Real>>, *coupling, domains[i-1]);
        else if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            stages.emplace_back(in_place_type<Marginals>, *marginal);
        else if (const ElementwiseLayer* elementwise = get_if<ElementwiseLayer>(&layer))
            stages.emplace_back(in_place_type<Elementwise>, *elementwise);
    }
    return stages;
}

} // namespace

/** Hides the precision. */
class Evaluator::Implementation {
public:
    virtual ~Implementation() = default;
    virtual Workspace* createWorkspace(long long count) const = 0;
    virtual int getBlockSize() const = 0;
    virtual int getUnitSize(long long count) const = 0;
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
 * All stages for molecules in groups of M: one, half a block or a block. Arrays over a group are [n][M] or [M].
 */
template <class Real>
class Evaluator::Pipeline : public Evaluator::Implementation {
public:
    Pipeline(const FlowModel& model, const SupportMargins& margins) :
            Pipeline(model, withoutPermutations(model.getArchitecture()), margins) {
    }

    Pipeline(const FlowModel& model, const UnpermutedArchitecture& unpermuted, const SupportMargins& margins) :
            n(model.getNumCoordinates()), numParticles(model.getNumParticles()), latentOrder(unpermuted.latentOrder),
            internalCoordinates(unpermuted.architecture), stages(compileStages<Real>(unpermuted.architecture)),
            continuation(model, margins, logProbLowerBound(model.getArchitecture())) {
        for (const CoordinateDistributions& distributions : unpermuted.architecture.base)
            base.emplace_back(distributions);
        internalCoordinates.describe(plan);
        continuation.describe(plan);
    }

    int getBlockSize() const override {
        return Coupling<Real>::blockSize();
    }

    int getUnitSize(long long count) const override {
        // Not whole blocks: what all couplings keep of half a block stays in a core's own cache, which is worth more than fewer passes
        // over the weights (1,024 molecules of the published flow on two threads: 13.5 ms instead of 21.6).
        return count < smallestHalfBlock() ? 1 : getBlockSize()/2;
    }

    Workspace* createWorkspace(long long count) const override {
        return new Room(*this, count);
    }

    void logProb(long long count, const double* positions, double* logProb, double* gradient, double* latent,
            Workspace& workspace) const override {
        Room& room = static_cast<Room&>(workspace);
        forEachGroup(count, [&](long long first, int used, Group& group) {
            enter(group, positions+first*3*numParticles, used, false);
            forward(group, gradient != nullptr);
            // Outside of the support, or positions that coincide or are not numbers.
            for (int m = 0; m < used; m++)
                logProb[first+m] = (isfinite(group.logProb[m]) ? group.logProb[m] : -INFINITE);
            if (latent != nullptr)
                for (int m = 0; m < used; m++)
                    for (int i = 0; i < n; i++)
                        latent[(first+m)*n+i] = (isfinite(group.logProb[m]) ? group.coordinates[latentOrder[i]*group.M+m] :
                                numeric_limits<double>::quiet_NaN());
            if (gradient == nullptr)
                return;
            backward(group);
            leave(group, 1.0, gradient+first*3*numParticles, used, false);
            for (int m = 0; m < used; m++)
                if (!isfinite(group.logProb[m]))
                    fill_n(gradient+(first+m)*3*numParticles, 3*numParticles, numeric_limits<double>::quiet_NaN());
        }, room);
    }

    void continuedPotential(long long count, const double* positions, double lambda, ContinuedPotential* potentials,
            double* gradient, Workspace& workspace) const override {
        Room& room = static_cast<Room&>(workspace);
        const double ceiling = continuation.getCeiling();
        forEachGroup(count, [&](long long first, int used, Group& group) {
            enter(group, positions+first*3*numParticles, used, true);
            if (any_of(group.chi.begin(), group.chi.begin()+used, [](double chi) { return chi > 0; })) {
                forward(group, gradient != nullptr);
                if (gradient != nullptr)
                    backward(group);
            }
            for (int m = 0; m < used; m++) {
                const double chi = group.chi[m];
                double& logProb = group.logProb[m];
                if (!(chi > 0))
                    logProb = 0;
                // On the inner support chi is exactly 1, and -ln p must not be rounded at the size of the ceiling.
                potentials[first+m].flow = (chi == 1 ? -logProb : ceiling-chi*(logProb+ceiling));
                potentials[first+m].wall = group.wall[m];
                potentials[first+m].outside = (group.inside[m] == 0);
            }
            if (gradient != nullptr)
                leave(group, lambda, gradient+first*3*numParticles, used, true);
        }, room);
    }

    void toPositions(long long count, const double* latent, double* positions, double* logProb,
            Workspace& workspace) const override {
        Room& room = static_cast<Room&>(workspace);
        forEachGroup(count, [&](long long first, int used, Group& group) {
            const int M = group.M;
            fill(group.logProb.begin(), group.logProb.end(), 0.0);
            for (int m = 0; m < M; m++)
                for (int i = 0; i < n; i++)
                    group.coordinates[latentOrder[i]*M+m] = (m < used ? latent[(first+m)*n+i] : 0.5);
            for (const Marginals& distribution : base)
                distribution.addLogDensity(M, group.coordinates.data(), group.logProb.data());
            for (size_t i = stages.size(); i-- > 0; )
                if (const Coupling<Real>* coupling = get_if<Coupling<Real>>(&stages[i]))
                    coupling->sample(M, group.coordinates.data(), group.logProb.data(), group.rooms[i].data(), group.roots);
                else
                    visitSingle(stages[i], [&](const auto& stage) { stage.sample(M, group.coordinates.data(), group.logProb.data()); });
            for (int m = 0; m < used; m++) {
                for (int i = 0; i < n; i++)
                    group.column[i] = group.coordinates[i*M+m];
                logProb[first+m] = group.logProb[m]+
                        internalCoordinates.place(group.column.data(), positions+(first+m)*3*numParticles);
            }
        }, room);
    }

    void sampleLatent(long long count, double* latent) const override {
        vector<double> coordinates(n);
        for (long long i = 0; i < count; i++) {
            for (int j = 0; j < n; j++)
                coordinates[latentOrder[j]] = latent[i*n+j];
            for (const Marginals& distribution : base)
                distribution.sampleLatent(1, coordinates.data());
            for (int j = 0; j < n; j++)
                latent[i*n+j] = coordinates[latentOrder[j]];
        }
    }

    long long getNumNotConverged(const Workspace& workspace) const override {
        const Room& room = static_cast<const Room&>(workspace);
        const Group* groups[] = {&room.single, room.half.get(), room.block.get()};
        long long sum = 0;
        for (const Group* group : groups)
            sum += (group == nullptr ? 0 : group->roots.notConverged);
        return sum;
    }

private:
    /** Room for a group of M molecules. */
    struct Group {
        Group(const Pipeline& pipeline, int M) : M(M), kernels(M == 1 ? scalarGeometryKernels() : selectGeometryKernels()),
                coordinates(pipeline.n*static_cast<size_t>(M), 0.5), gradient(pipeline.n*static_cast<size_t>(M)), logProb(M),
                column(pipeline.n), chi(M), wall(M), inside(M) {
            for (int m = 0; m < M; m += kernels.vectorLength)
                geometries.emplace_back(kernels.roomSize(pipeline.plan));
            for (const Stage<Real>& stage : pipeline.stages)
                if (const Coupling<Real>* coupling = get_if<Coupling<Real>>(&stage)) {
                    rooms.push_back(coupling->createArena(M));
                    marginals.emplace_back();
                }
                else {
                    rooms.emplace_back();
                    visitSingle(stage, [&](const auto& single) { marginals.emplace_back(2*single.getCoordinates().size()*M); });
                }
        }
        int M;
        const GeometryKernels& kernels;
        vector<AlignedArray<double>> geometries;             // [molecules that enter together]
        vector<double> coordinates;                          // [n][M] at the current layer, the latents at last
        vector<double> gradient;                             // [n][M]
        vector<double> logProb;                              // [M]
        vector<double> column;                               // [n] of one molecule
        vector<double> chi, wall, inside;                    // [M]
        vector<AlignedArray<Real>> rooms;                    // [stage] of couplings
        vector<AlignedArray<double>> marginals;              // [stage] of marginals
        RootFinding roots;
    };

    struct Room : Workspace {
        Room(const Pipeline& pipeline, long long count) : single(pipeline, 1) {
            if (count > pipeline.getBlockSize()/2)
                block = make_unique<Group>(pipeline, pipeline.getBlockSize());
            if (count >= pipeline.smallestHalfBlock())
                half = make_unique<Group>(pipeline, pipeline.getBlockSize()/2);
        }
        Group single;
        unique_ptr<Group> half, block;
    };

    /** Half a block costs about as much as half of its molecules one by one. */
    int smallestHalfBlock() const {
        return max(2, getBlockSize()/4);
    }

    /** Call work(first molecule, number of molecules, group) for groups that cover `count` molecules; the last may be partly filled. */
    template <class Work>
    void forEachGroup(long long count, Work work, Room& room) const {
        for (long long first = 0; first < count; ) {
            const long long left = count-first;
            Group& group = (left > getBlockSize()/2 && room.block != nullptr ? *room.block :
                    left >= smallestHalfBlock() && room.half != nullptr ? *room.half : room.single);
            const int used = static_cast<int>(min<long long>(group.M, left));
            work(first, used, group);
            first += used;
        }
    }

    /** Molecules to the first coordinates of the group, and ln|det J| into logProb. Lanes without a molecule repeat the last one. */
    void enter(Group& group, const double* positions, int used, bool continued) const {
        for (int m = 0; m < group.M; m += group.kernels.vectorLength) {
            const int first = min(m, used-1);
            const ContinuationValues values = {&group.chi[m], &group.wall[m], &group.inside[m]};
            group.kernels.enter(plan, positions+first*static_cast<size_t>(3*numParticles), min(group.kernels.vectorLength, used-first),
                    group.M, &group.coordinates[m], &group.logProb[m], continued ? &values : nullptr,
                    group.geometries[m/group.kernels.vectorLength].data());
        }
    }

    /** The gradient of the group as that of positions (used, numParticles, 3), with the continuation's part if there is one. */
    void leave(Group& group, double lambda, double* positionGradient, int used, bool continued) const {
        for (int m = 0; m < used; m += group.kernels.vectorLength) {
            const ContinuationValues values = {&group.chi[m], &group.wall[m], &group.inside[m]};
            group.kernels.leave(plan, lambda, &group.logProb[m], &group.gradient[m], min(group.kernels.vectorLength, used-m), group.M,
                    continued ? &values : nullptr, positionGradient+m*static_cast<size_t>(3*numParticles),
                    group.geometries[m/group.kernels.vectorLength].data());
        }
    }

    /** All stages after the geometry, and the base density. */
    void forward(Group& group, bool withGradient) const {
        for (size_t i = 0; i < stages.size(); i++)
            if (const Coupling<Real>* coupling = get_if<Coupling<Real>>(&stages[i]))
                coupling->forward(group.M, withGradient, group.coordinates.data(), group.logProb.data(), group.rooms[i].data(),
                        group.roots);
            else
                visitSingle(stages[i], [&](const auto& stage) {
                    group.kernels.marginalForward(stage.plan(), group.M, group.coordinates.data(), group.logProb.data(),
                            group.marginals[i].data());
                });
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
                coupling->backward(group.M, group.gradient.data(), group.rooms[i].data());
            else
                visitSingle(stages[i], [&](const auto& stage) {
                    group.kernels.marginalBackward(stage.plan(), group.M, group.gradient.data(), group.marginals[i].data());
                });
    }

    int n, numParticles;
    vector<int> latentOrder;                     // latent i is coordinate latentOrder[i] here
    InternalCoordinates internalCoordinates;
    vector<Stage<Real>> stages;
    SupportContinuation continuation;
    vector<Marginals> base;
    GeometryPlan plan = {};
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

int Evaluator::getUnitSize(long long count) const {
    return implementation->getUnitSize(count);
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
