// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_REFERENCECALCFLOWFORCEKERNEL_H_
#define OPENMMFLOW_REFERENCECALCFLOWFORCEKERNEL_H_

#include "engine/Evaluator.h"
#include "internal/CalcFlowForceKernel.h"
#include "internal/MoleculeGatherer.h"

#include <openmm/internal/ThreadPool.h>
#include <openmm/reference/ReferencePlatform.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace OpenMMFlow {

/**
 * FlowForce on the processor, molecules in parallel, for Reference and for platforms that keep its data, such as CPU. Results do not
 * depend on the number of threads. A step allocates nothing.
 */
class ReferenceCalcFlowForceKernel : public CalcFlowForceKernel, private OpenMM::ThreadPool::Task {
public:
    /** @param precision  of the flow's couplings: Reference is double throughout, CPU has them in single precision */
    ReferenceCalcFlowForceKernel(const std::string& name, const OpenMM::Platform& platform, OpenMM::ReferencePlatform::PlatformData& data,
            Precision precision);
    void initialize(const OpenMM::System& system, const FlowForce& force, const std::vector<std::vector<int>>& molecules) override;
    double execute(OpenMM::ContextImpl& context, bool includeForces, bool includeEnergy) override;
    void copyParametersToContext(OpenMM::ContextImpl& context, const FlowForce& force) override;
    long long getNumSupportExits() override {
        return numSupportExits;
    }

private:
    /** What a thread needs for the molecules that it is at. */
    struct ThreadData {
        Evaluator::WorkspacePointer workspace;
        std::vector<double> positions, gradient;    // (molecules of a unit, numParticles, 3)
    };
    /** What depends on weights, temperature and margins. */
    struct Parameters {
        Evaluator evaluator;
        double thermalEnergy;    // k_B T, kJ/mol
        int unitSize;            // molecules that a thread evaluates together
        std::vector<ThreadData> threads;
        Parameters(const FlowForce& force, Precision precision, int numMolecules, int numThreads);
    };

    /** Task: evaluates units of molecules until none is left. */
    void execute(OpenMM::ThreadPool& pool, int threadIndex) override;
    void evaluateUnit(int firstMolecule, ThreadData& thread);

    OpenMM::ReferencePlatform::PlatformData& data;
    Precision precision;
    std::vector<std::vector<int>> molecules;
    std::unique_ptr<const MoleculeGatherer> gatherer;
    std::unique_ptr<Parameters> parameters;
    std::string scaleParameterName;
    bool periodic = false, scaleDerivative = false;
    std::vector<ContinuedPotential> potentials;    // (molecules)
    long long numSupportExits = 0;
    // Of the evaluation that is going on
    double scale = 1;
    bool includeForces = false;
    std::atomic<int> nextUnit{0};
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_REFERENCECALCFLOWFORCEKERNEL_H_
