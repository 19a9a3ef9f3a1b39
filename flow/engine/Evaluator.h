// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EVALUATOR_H_
#define OPENMMFLOW_EVALUATOR_H_

#include "model/FlowModel.h"

#include <memory>

namespace OpenMMFlow {

/** Where FlowForce's potential is exactly that of the flow; see docs/theory.md, "Outside the support". */
struct SupportMargins {
    /** Inside each edge of the support of a bond, nm: (numParticles-1), in coordinate order. */
    std::vector<double> bonds;
    /** Inside each edge of the support of an angle of the Z-matrix, rad: (numParticles-2), in coordinate order. */
    std::vector<double> angles;
    /** From collinearity, for the angle jkl of each torsion i-j-k-l, rad: (numParticles-3), in row order. */
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
};

/**
 * Evaluates a FlowModel in double precision: the density direction, reverse-mode gradients, and the continuation outside the
 * support. Immutable; each thread needs a Workspace of its own, and nothing is allocated in an evaluation.
 */
class Evaluator {
public:
    /** Room for the intermediate results of evaluations, for one thread. */
    class Workspace;
    struct WorkspaceDeleter {
        void operator()(Workspace* workspace) const;
    };
    using WorkspacePointer = std::unique_ptr<Workspace, WorkspaceDeleter>;

    explicit Evaluator(const FlowModel& model);
    Evaluator(const FlowModel& model, const SupportMargins& margins);
    ~Evaluator();

    WorkspacePointer createWorkspace() const;

    /**
     * The true density of one molecule.
     *
     * @param positions  (numParticles, 3), nm
     * @param gradient   out, d ln p/dx (numParticles, 3) per nm, or null
     * @param latent     out, (numCoordinates), or null
     * @return ln p; -inf outside of the support, where gradient and latent are NaN
     */
    double logProb(const double* positions, double* gradient, double* latent, Workspace& workspace) const;

    /**
     * The potential of one molecule as FlowForce has it: finite wherever no two atoms coincide.
     *
     * @param positions  (numParticles, 3), nm
     * @param lambda     factor of the flow's part in the gradient
     * @param gradient   out, d(lambda*flow + wall)/dx (numParticles, 3), k_B T_model per nm, or null
     */
    ContinuedPotential continuedPotential(const double* positions, double lambda, double* gradient, Workspace& workspace) const;

private:
    struct Compiled;
    std::unique_ptr<const Compiled> compiled;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_EVALUATOR_H_
