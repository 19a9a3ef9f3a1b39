// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWFORCE_H_
#define OPENMMFLOW_FLOWFORCE_H_

#include "engine/Evaluator.h"
#include "model/FlowModel.h"

#include <openmm/Context.h>
#include <openmm/Force.h>

#include <optional>
#include <string>
#include <vector>

namespace OpenMMFlow {

/**
 * The potential of a trained normalizing flow: a sum over molecules of
 *
 *     U(x) = -lambda k_B T ln p(x)
 *
 * where p is the density of a FlowModel, T the temperature of the data that it was trained on (getTemperature()), and lambda a
 * Context parameter (getScaleParameterName(), 1 by default). T is a property of the model and independent of a thermostat: at
 * the thermostat's temperature T', dynamics samples p^(lambda T/T').
 *
 * Call addMolecule() for each set of particles that the model is applied to. If it is never called, the System must consist of
 * exactly the particles of one molecule.
 *
 * The potential is exactly the one above on the inner support of the model, which setMargins() defines. Outside it is continued
 * to be finite and twice continuously differentiable, with walls, independent of lambda, that push back. It is not finite only
 * where particles of a molecule coincide: as with OpenMM's own forces, the result is then passed on as it is, and integrators
 * and minimizers complain about it.
 *
 * A Context with a FlowForce cannot be created if a molecule's constraints differ from those that the model was trained with, or
 * if it has virtual sites, massless particles or Drude particles. Masses matter otherwise only to dynamics: hydrogen mass
 * repartitioning is fine.
 *
 * Where a FlowForce is put into another force (CustomCVForce, ATMForce), OpenMM evaluates it in an inner System of particles
 * without constraints. There, constraints cannot be checked.
 */
class FlowForce : public OpenMM::Force {
public:
    /** Create a FlowForce that evaluates a model. */
    explicit FlowForce(const FlowModel& model);
    /**
     * Create a FlowForce that evaluates the model of a model file.
     *
     * @param path  the model file (docs/model_format.md); OpenMMException if it cannot be read or is not valid
     */
    explicit FlowForce(const std::string& path);

    /** Get the model that this force evaluates. */
    const FlowModel& getModel() const {
        return model;
    }
    /**
     * Set the model that this force evaluates, for example the same flow with other weights, and call
     * updateParametersInContext(). A temperature that was set stays. Margins that were set stay if the new model has the same
     * architecture, otherwise they return to the defaults.
     */
    void setModel(const FlowModel& model);

    /** Get the number of molecules that were added. */
    int getNumMolecules() const {
        return static_cast<int>(molecules.size());
    }
    /**
     * Add a molecule that the model is applied to.
     *
     * @param particles  indices of its particles, in the order of the model. The Context raises unless there are as many as the
     *                   model has, each index is in range, and no particle occurs twice in the force.
     * @return the index of the molecule
     */
    int addMolecule(const std::vector<int>& particles);
    /**
     * Get the particles of a molecule, in the order of the model.
     *
     * @param index  index of the molecule; OpenMMException if there is none
     */
    const std::vector<int>& getMoleculeParticles(int index) const;
    /**
     * Set the particles of a molecule. This has no effect on existing Contexts.
     *
     * @param index      index of the molecule; OpenMMException if there is none
     * @param particles  indices of its particles, in the order of the model
     */
    void setMoleculeParticles(int index, const std::vector<int>& particles);

    /** Get T in U = -lambda k_B T ln p, in K: what setTemperature() set, otherwise the temperature of the model. */
    double getTemperature() const;
    /**
     * Set T in U = -lambda k_B T ln p to another value than the temperature of the model.
     *
     * @param temperature  in K; OpenMMException unless it is finite and > 0
     */
    void setTemperature(double temperature);
    /** Whether setTemperature() was called. */
    bool hasTemperatureOverride() const {
        return temperature.has_value();
    }

    /** Get the name of the Context parameter lambda. Several forces may share it if their defaults are equal. */
    const std::string& getScaleParameterName() const {
        return scaleParameterName;
    }
    /** Set the name of the Context parameter lambda; OpenMMException if it is empty. */
    void setScaleParameterName(const std::string& name);
    /** Get the value of lambda in a new Context. */
    double getDefaultScale() const {
        return defaultScale;
    }
    /** Set the value of lambda in a new Context; OpenMMException unless it is finite. */
    void setDefaultScale(double scale);

    /**
     * Ask for the derivative of the energy with respect to a Context parameter, in kJ/mol, which State then holds. The only
     * parameter of this force is lambda. Asking twice is the same as asking once.
     *
     * @param name  getScaleParameterName(); OpenMMException for any other
     */
    void addEnergyParameterDerivative(const std::string& name);
    /** Get the number of parameters whose energy derivative is computed: 0 or 1. */
    int getNumEnergyParameterDerivatives() const {
        return scaleDerivative ? 1 : 0;
    }
    /**
     * Get the name of a parameter whose energy derivative is computed.
     *
     * @param index  OpenMMException unless 0 <= index < getNumEnergyParameterDerivatives()
     */
    const std::string& getEnergyParameterDerivativeName(int index) const;

    /** Whether molecules are made whole before they are evaluated. */
    bool usesPeriodicBoundaryConditions() const override {
        return periodic;
    }
    /**
     * Set whether molecules are made whole, along the bonds of the model, with the periodic box of the Context (rectangular or
     * triclinic) before they are evaluated. A bond must be shorter than half of the box. The default is false.
     */
    void setUsesPeriodicBoundaryConditions(bool periodic);

    /** Get the margins of the inner support: what setMargins() set, otherwise defaultMargins() of the model. */
    SupportMargins getMargins() const;
    /**
     * Set the margins of the inner support.
     *
     * @param margins  nm and rad; OpenMMException unless there is one, finite and > 0, for every coordinate
     */
    void setMargins(const SupportMargins& margins);
    /** Whether setMargins() was called. */
    bool hasMarginsOverride() const {
        return margins.has_value();
    }

    /**
     * Copy the weights of the model, the temperature and the margins to a Context that holds this force. Nothing else can
     * change in a Context: OpenMMException if the architecture of the model, the molecules, the name of the scale parameter,
     * the requested derivatives or the use of periodic boundary conditions differ from those of the Context.
     */
    void updateParametersInContext(OpenMM::Context& context);

    /**
     * The ln p of each molecule at the current positions of a Context: the true density per nm^3 of the molecule's origin, of the
     * model that the Context evaluates; -inf outside of its support.
     */
    std::vector<double> getLogProbs(OpenMM::Context& context) const;
    /**
     * The latents of each molecule at the current positions of a Context: [molecule][3*numParticles-6]; NaN outside of the support.
     */
    std::vector<std::vector<double>> getLatents(OpenMM::Context& context) const;
    /**
     * How often a Context evaluated a molecule outside of the inner support, where the potential is no longer -lambda k_B T ln p: the
     * number of pairs (molecule, evaluation) since the Context was made. Every evaluation of energy or forces counts, those of minimizers
     * and of getState() as well. Checkpoints and States do not hold it.
     */
    long long getNumSupportExits(OpenMM::Context& context) const;

protected:
    OpenMM::ForceImpl* createImpl() const override;

private:
    FlowModel model;
    std::vector<std::vector<int>> molecules;
    std::optional<double> temperature;
    std::optional<SupportMargins> margins;
    std::string scaleParameterName = "FlowScale";
    double defaultScale = 1.0;
    bool scaleDerivative = false;
    bool periodic = false;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWFORCE_H_
