// SPDX-License-Identifier: MIT
// FlowForce as openmmflow/_flow_force.py uses it. What C++ returns by reference is returned by value here: Python gets copies.

namespace OpenMMFlow {

class FlowForce : public OpenMM::Force {
public:
    explicit FlowForce(const FlowModel& model);
    FlowModel getModel() const;
    void setModel(const FlowModel& model);
    int getNumMolecules() const;
    int addMolecule(const std::vector<int>& particles);
    std::vector<int> getMoleculeParticles(int index) const;
    void setMoleculeParticles(int index, const std::vector<int>& particles);
    double getTemperature() const;
    void setTemperature(double temperature);
    bool hasTemperatureOverride() const;
    std::string getScaleParameterName() const;
    void setScaleParameterName(const std::string& name);
    double getDefaultScale() const;
    void setDefaultScale(double scale);
    void addEnergyParameterDerivative(const std::string& name);
    int getNumEnergyParameterDerivatives() const;
    std::string getEnergyParameterDerivativeName(int index) const;
    bool usesPeriodicBoundaryConditions() const;
    void setUsesPeriodicBoundaryConditions(bool periodic);
    bool hasMarginsOverride() const;
    void updateParametersInContext(OpenMM::Context& context);
    std::vector<double> getLogProbs(OpenMM::Context& context) const;
    std::vector<std::vector<double> > getLatents(OpenMM::Context& context) const;
    long long getNumSupportExits(OpenMM::Context& context) const;
};

} // namespace OpenMMFlow

%extend OpenMMFlow::FlowForce {
    /** The bonds (nm), angles (rad) and torsion angles (rad) of getMargins(). */
    std::vector<std::vector<double> > getMargins() const {
        OpenMMFlow::SupportMargins margins = $self->getMargins();
        return {margins.bonds, margins.angles, margins.torsionAngles};
    }

    void setMargins(const std::vector<double>& bonds, const std::vector<double>& angles, const std::vector<double>& torsionAngles) {
        $self->setMargins(OpenMMFlow::SupportMargins{bonds, angles, torsionAngles});
    }

    /** The FlowForce that a Force is, or null: OpenMM's wrappers know every FlowForce as a Force only. */
    static OpenMMFlow::FlowForce* fromForce(OpenMM::Force& force) {
        return dynamic_cast<OpenMMFlow::FlowForce*>(&force);
    }
}
