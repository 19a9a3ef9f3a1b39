// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EVALUATOR_H_
#define OPENMMFLOW_EVALUATOR_H_

#include "model/FlowModel.h"

#include <memory>

namespace OpenMMFlow {

/** Where FlowForce's potential is exactly that of the flow; see docs/theory.md, "Outside the support". */
struct SupportMargins {
    /** Inside each edge of the support of a bond, nm: one for each bond, in coordinate order. */
    std::vector<double> bonds;
    /** Inside each edge of the support of an angle of the Z-matrix, rad: one for each, in coordinate order. */
    std::vector<double> angles;
    /** From collinearity, for the angle jkl of each torsion i-j-k-l, rad: one for each, in row order. */
    std::vector<double> torsionAngles;
};

/** The margins that FlowForce takes unless told otherwise. */
SupportMargins defaultMargins(const FlowModel& model);

/**
 * The potential of one molecule, in units of k_B T_model, in two parts: the total is lambda*flow + wall.
 */
struct ContinuedPotential {
    /** -ln p on the inner support, continued outside of it. */
    double flow;
    /** 0 on the inner support, confining outside of it. */
    double wall;
    /** Whether any coordinate is outside of its inner support, or not a number. */
    bool outside;
};

/** Of the couplings' networks and transformers; geometry, marginals and sums of logarithms are always double. */
enum class Precision { Single, Double };

/**
 * Evaluates a FlowModel: the density direction, reverse-mode gradients, and the continuation outside the support. Immutable; each
 * thread needs a Workspace of its own, and nothing is allocated in an evaluation.
 */
class Evaluator {
public:
    /** Room for the intermediate results of evaluations, for one thread. */
    class Workspace;
    struct WorkspaceDeleter {
        void operator()(Workspace* workspace) const;
    };
    using WorkspacePointer = std::unique_ptr<Workspace, WorkspaceDeleter>;

    explicit Evaluator(const FlowModel& model, Precision precision = Precision::Double);
    Evaluator(const FlowModel& model, const SupportMargins& margins, Precision precision = Precision::Double);
    ~Evaluator();

    /** @param count  the largest number of molecules of a call with this workspace */
    WorkspacePointer createWorkspace(long long count = 1) const;
    /** Molecules that are evaluated together when there are many; splitting work at its multiples loses nothing. */
    int getBlockSize() const;
    /** Into calls of how many molecules to split `count` of them that are spread over threads. */
    int getUnitSize(long long count) const;

    /**
     * The true density.
     *
     * @param count      number of molecules
     * @param positions  (count, numParticles, 3), nm
     * @param logProb    out, (count), ln p; -inf outside of the support, where gradient and latent are NaN
     * @param gradient   out, d ln p/dx (count, numParticles, 3) per nm, or null
     * @param latent     out, (count, numCoordinates), or null
     */
    void logProb(long long count, const double* positions, double* logProb, double* gradient, double* latent,
            Workspace& workspace) const;

    /**
     * The potential as FlowForce has it: finite wherever no two atoms coincide.
     *
     * @param count       number of molecules
     * @param positions   (count, numParticles, 3), nm
     * @param lambda      factor of the flow's part in the gradient
     * @param potentials  out, (count)
     * @param gradient    out, d(lambda*flow + wall)/dx (count, numParticles, 3), k_B T_model per nm, or null
     */
    void continuedPotential(long long count, const double* positions, double lambda, ContinuedPotential* potentials,
            double* gradient, Workspace& workspace) const;

    /**
     * The sampling direction.
     *
     * @param count      number of molecules
     * @param latent     (count, numCoordinates)
     * @param positions  out, (count, numParticles, 3), nm; the first frame atom at the origin, the second on the positive x axis, the
     *                   third in the xy plane with positive y; a block in Cartesians where its reference is
     * @param logProb    out, (count), ln p; -inf for a latent of mixed coordinates that is none of a conformation
     */
    void toPositions(long long count, const double* latent, double* positions, double* logProb, Workspace& workspace) const;

    /** Latents of the base density from uniform random numbers in (0,1), in place: (count, numCoordinates). */
    void sampleLatent(long long count, double* latent) const;

    /**
     * Roots that were not found to full precision in all evaluations with this workspace: 0, unless the parameters of a transformer are
     * not numbers. Whoever evaluates must look, and raise.
     */
    long long getNumNotConverged(const Workspace& workspace) const;

    /** The same for one molecule. */
    double logProb(const double* positions, double* gradient, double* latent, Workspace& workspace) const {
        double value;
        logProb(1, positions, &value, gradient, latent, workspace);
        return value;
    }
    ContinuedPotential continuedPotential(const double* positions, double lambda, double* gradient, Workspace& workspace) const {
        ContinuedPotential potential;
        continuedPotential(1, positions, lambda, &potential, gradient, workspace);
        return potential;
    }

private:
    class Implementation;
    template <class Real>
    class Pipeline;
    std::unique_ptr<const Implementation> implementation;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_EVALUATOR_H_
