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

using Stage = variant<Marginals, Coupling>;
using StageState = variant<Marginals::State, Coupling::State>;

const InternalCoordinatesLayer& internalCoordinatesOf(const Architecture& architecture) {
    return get<InternalCoordinatesLayer>(architecture.layers.front());
}

vector<Stage> compileStages(const Architecture& architecture) {
    vector<Stage> stages;
    vector<vector<Domain>> domains = coordinateDomains(architecture);
    for (size_t i = 1; i < architecture.layers.size(); i++) {
        const Layer& layer = architecture.layers[i];
        if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            stages.emplace_back(in_place_type<Coupling>, *coupling, domains[i-1]);
        else
            stages.emplace_back(in_place_type<Marginals>, get<MarginalLayer>(layer));
    }
    return stages;
}

/** Smallest log density within the support, normal distributions within 8 standard deviations. */
double lowestLogDensity(const CoordinateDistributions& distributions) {
    Marginals marginals(distributions);
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

double logProbLowerBound(const Architecture& architecture, const vector<Stage>& stages) {
    double bound = 0;
    for (const Layer& layer : architecture.layers)
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            bound += lowestLogDensity(*marginal);
    for (const CoordinateDistributions& base : architecture.base)
        bound += lowestLogDensity(base);
    for (const Stage& stage : stages)
        if (const Coupling* coupling = get_if<Coupling>(&stage))
            bound += coupling->getLowerBound();
    // normalization of angles, torsions and orientation
    return bound-log(2*3.14159265358979323846)*(2*architecture.numParticles);
}

} // namespace

struct Evaluator::Compiled {
    Compiled(const FlowModel& model, const SupportMargins& margins) :
            numCoordinates(model.getNumCoordinates()), numParticles(model.getNumParticles()),
            internalCoordinates(internalCoordinatesOf(model.getArchitecture()).zMatrix, model.getNumParticles(),
                    model.getArchitecture().measure),
            stages(compileStages(model.getArchitecture())),
            continuation(model, margins, logProbLowerBound(model.getArchitecture(), stages)) {
        for (const CoordinateDistributions& distributions : model.getArchitecture().base)
            base.emplace_back(distributions);
    }

    int numCoordinates, numParticles;
    InternalCoordinates internalCoordinates;
    vector<Stage> stages;
    SupportContinuation continuation;
    vector<Marginals> base;
};

class Evaluator::Workspace {
public:
    explicit Workspace(const Compiled& compiled) : geometry(compiled.internalCoordinates.createState()),
            continuation(compiled.continuation.createState()), coordinates(compiled.numCoordinates),
            gradient(compiled.numCoordinates) {
        for (const Stage& stage : compiled.stages)
            stages.push_back(visit([](const auto& s) -> StageState { return s.createState(); }, stage));
    }

    /** All stages after the geometry, and the base density. @return ln p; -inf outside of the support */
    double forward(const Compiled& compiled, const double* bonds, const double* angles) {
        double logProb = compiled.internalCoordinates.normalize(bonds, angles, geometry.torsionValues.data(), coordinates.data());
        for (size_t i = 0; i < stages.size(); i++) {
            logProb += visit([&](const auto& stage) {
                using State = typename decay_t<decltype(stage)>::State;
                return stage.forward(coordinates.data(), get<State>(stages[i]));
            }, compiled.stages[i]);
            if (!(logProb > -numeric_limits<double>::infinity()))
                return -numeric_limits<double>::infinity();
        }
        for (const Marginals& distribution : compiled.base)
            logProb += distribution.logDensity(coordinates.data(), nullptr);
        return logProb;
    }

    /** The same rooms backwards: fills the bond, angle and torsion gradients of ln p. */
    void backward(const Compiled& compiled, const double* bonds, const double* angles) {
        fill(gradient.begin(), gradient.end(), 0.0);
        for (const Marginals& distribution : compiled.base)
            distribution.logDensity(coordinates.data(), gradient.data());
        for (size_t i = stages.size(); i-- > 0; )
            visit([&](const auto& stage) {
                using State = typename decay_t<decltype(stage)>::State;
                stage.backward(gradient.data(), get<State>(stages[i]));
            }, compiled.stages[i]);
        compiled.internalCoordinates.normalizeBackward(bonds, angles, gradient.data(), geometry.bondGradient.data(),
                geometry.angleGradient.data(), geometry.torsionGradient.data());
    }

    InternalCoordinates::State geometry;
    SupportContinuation::State continuation;
    vector<double> coordinates;    // (n) at the current layer, the latents at last
    vector<double> gradient;       // (n)
    vector<StageState> stages;
};

Evaluator::Evaluator(const FlowModel& model) : Evaluator(model, defaultMargins(model)) {
}

Evaluator::Evaluator(const FlowModel& model, const SupportMargins& margins) :
        compiled(make_unique<const Compiled>(model, margins)) {
}

Evaluator::~Evaluator() = default;

void Evaluator::WorkspaceDeleter::operator()(Workspace* workspace) const {
    delete workspace;
}

Evaluator::WorkspacePointer Evaluator::createWorkspace() const {
    return WorkspacePointer(new Workspace(*compiled));
}

double Evaluator::logProb(const double* positions, double* gradient, double* latent, Workspace& workspace) const {
    InternalCoordinates::State& geometry = workspace.geometry;
    compiled->internalCoordinates.computeBondsAndAngles(positions, geometry);
    compiled->internalCoordinates.computeTorsions(positions, geometry);
    const double* bonds = geometry.bondValues.data();
    const double* angles = geometry.angleValues.data();
    double logProb = workspace.forward(*compiled, bonds, angles);
    if (!isfinite(logProb)) {
        // Outside, or positions that are not numbers or coincide.
        if (gradient != nullptr)
            fill_n(gradient, 3*compiled->numParticles, numeric_limits<double>::quiet_NaN());
        if (latent != nullptr)
            fill_n(latent, compiled->numCoordinates, numeric_limits<double>::quiet_NaN());
        return -numeric_limits<double>::infinity();
    }
    if (latent != nullptr)
        copy(workspace.coordinates.begin(), workspace.coordinates.end(), latent);
    if (gradient != nullptr) {
        workspace.backward(*compiled, bonds, angles);
        fill(geometry.angleCosineGradient.begin(), geometry.angleCosineGradient.end(), 0.0);
        fill(geometry.torsionAngleCosineGradient.begin(), geometry.torsionAngleCosineGradient.end(), 0.0);
        compiled->internalCoordinates.backward(gradient, true, geometry);
    }
    return logProb;
}

ContinuedPotential Evaluator::continuedPotential(const double* positions, double lambda, double* gradient,
        Workspace& workspace) const {
    InternalCoordinates::State& geometry = workspace.geometry;
    SupportContinuation::State& continuation = workspace.continuation;
    compiled->internalCoordinates.computeBondsAndAngles(positions, geometry);
    compiled->continuation.forward(geometry, continuation);
    const double* bonds = continuation.bonds.data();
    const double* angles = continuation.angles.data();
    const double ceiling = compiled->continuation.getCeiling();
    const bool flow = (continuation.chi > 0);
    double logProb = 0;
    if (flow) {
        compiled->internalCoordinates.computeTorsions(positions, geometry);
        logProb = workspace.forward(*compiled, bonds, angles);
    }
    if (gradient != nullptr) {
        if (flow)
            workspace.backward(*compiled, bonds, angles);
        compiled->continuation.backward(lambda, flow, logProb, geometry, continuation);
        compiled->internalCoordinates.backward(gradient, flow, geometry);
    }
    // On the inner support chi is exactly 1, and -ln p must not be rounded at the size of the ceiling.
    double flowEnergy = (continuation.chi == 1 ? -logProb : ceiling-continuation.chi*(logProb+ceiling));
    return {flowEnergy, continuation.wall};
}
