// SPDX-License-Identifier: MIT
// FlowModel as openmmflow/_flow_model.py uses it. Arrays are passed by the address of their first element: the caller has made
// sure that they are C-contiguous, of type float64 and long enough.

namespace OpenMMFlow {

class FlowModel {
public:
    static FlowModel load(const std::string& path);
    static FlowModel fromBytes(const std::string& bytes);
    void save(const std::string& path) const;
    std::string toBytes() const;
    std::string getArchitectureJson() const;
    std::string getChecksum() const;
    int getNumParticles() const;
    int getNumCoordinates() const;
    long long getNumParameters() const;
    double getTemperature() const;
    int getNumContinuousDerivatives() const;
    bool hasSameArchitecture(const FlowModel& other) const;

private:
    FlowModel();
};

} // namespace OpenMMFlow

%extend OpenMMFlow::FlowModel {
    void logProb(std::size_t positions, long long count, std::size_t logProb) const {
        $self->logProb(reinterpret_cast<const double*>(positions), count, reinterpret_cast<double*>(logProb));
    }

    void logProbAndGradient(std::size_t positions, long long count, std::size_t logProb, std::size_t gradient) const {
        $self->logProbAndGradient(reinterpret_cast<const double*>(positions), count, reinterpret_cast<double*>(logProb),
            reinterpret_cast<double*>(gradient));
    }

    void toLatent(std::size_t positions, long long count, std::size_t latent, std::size_t logProb) const {
        $self->toLatent(reinterpret_cast<const double*>(positions), count, reinterpret_cast<double*>(latent),
            reinterpret_cast<double*>(logProb));
    }

    void toPositions(std::size_t latent, long long count, std::size_t positions, std::size_t logProb) const {
        $self->toPositions(reinterpret_cast<const double*>(latent), count, reinterpret_cast<double*>(positions),
            reinterpret_cast<double*>(logProb));
    }

    void sample(long long count, unsigned long long seed, std::size_t positions, std::size_t logProb, std::size_t gradient,
            long long first) const {
        $self->sample(count, seed, reinterpret_cast<double*>(positions), reinterpret_cast<double*>(logProb),
            reinterpret_cast<double*>(gradient), first);
    }
}
