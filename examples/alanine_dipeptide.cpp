// SPDX-License-Identifier: MIT
// Molecular dynamics in the potential of a flow, with the C++ API alone: NVT to bring the molecule to its temperature, then NVE
// to see how well the potential conserves energy.
//
//     alanine_dipeptide MODEL.safetensors START.pdb [--steps N] [--platform NAME] [--plugins FOLDER[:FOLDER...]]

#include <OpenMM.h>
#include <OpenMMFlow.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr double timeStep = 0.001;    // ps
constexpr int stepsPerSample = 5;

struct Options {
    std::string model, start, platform = "CPU", plugins = OpenMM::Platform::getDefaultPluginsDirectory();
    int steps = 10000;
};

struct Molecule {
    std::vector<double> masses;              // dalton
    std::vector<OpenMM::Vec3> positions;     // nm
};

/** What one run showed; energies in kJ/mol. */
struct Figures {
    double stepsPerSecond, potentialEnergy, temperature;
    double fluctuation;    // of the total energy around its trend, per degree of freedom
    double drift;          // of the total energy, per degree of freedom and ns
};

Options parseArguments(int argc, char** argv) {
    const std::string usage = "usage: alanine_dipeptide MODEL.safetensors START.pdb [--steps N] [--platform NAME] [--plugins FOLDER]";
    if (argc < 3 || argc % 2 == 0)
        throw std::runtime_error(usage);
    Options options;
    options.model = argv[1];
    options.start = argv[2];
    for (int i = 3; i < argc; i += 2) {
        const std::string name = argv[i], value = argv[i+1];
        if (name == "--steps")
            options.steps = std::atoi(value.c_str());
        else if (name == "--platform")
            options.platform = value;
        else if (name == "--plugins")
            options.plugins = value;
        else
            throw std::runtime_error("unknown option "+name+"\n"+usage);
    }
    if (options.steps < 10*stepsPerSample)
        throw std::runtime_error("--steps must be "+std::to_string(10*stepsPerSample)+" or more");
    return options;
}

/** Elements and positions of a PDB file that holds the molecule, in the order of the model. */
Molecule readPdb(const std::string& path) {
    const std::map<std::string, double> massOfElement = {{"H", 1.008}, {"C", 12.011}, {"N", 14.007}, {"O", 15.999}, {"S", 32.06}};
    std::ifstream file(path);
    if (!file)
        throw std::runtime_error("cannot read "+path);
    Molecule molecule;
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("ATOM", 0) != 0 && line.rfind("HETATM", 0) != 0)
            continue;
        if (line.size() < 78)
            throw std::runtime_error(path+": a line ends before the element in columns 77 and 78:\n"+line);
        const std::string element = line.substr(line[76] == ' ' ? 77 : 76, line[76] == ' ' ? 1 : 2);
        if (massOfElement.count(element) == 0)
            throw std::runtime_error(path+": the mass of the element '"+element+"' is not known to this program");
        molecule.masses.push_back(massOfElement.at(element));
        constexpr double nmPerAngstrom = 0.1;
        molecule.positions.push_back(nmPerAngstrom*OpenMM::Vec3(std::stod(line.substr(30, 8)), std::stod(line.substr(38, 8)),
                std::stod(line.substr(46, 8))));
    }
    return molecule;
}

double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0)/values.size();
}

/** Slope of the least-squares line through values at 0, 1, 2, ... */
double slope(const std::vector<double>& values) {
    const double centre = (values.size()-1)/2.0;
    double numerator = 0, denominator = 0;
    for (std::size_t i = 0; i < values.size(); i++) {
        numerator += (i-centre)*values[i];
        denominator += (i-centre)*(i-centre);
    }
    return numerator/denominator;
}

/** Standard deviation around the least-squares line. */
double detrendedDeviation(const std::vector<double>& values) {
    const double average = mean(values), trend = slope(values), centre = (values.size()-1)/2.0;
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); i++) {
        const double residual = values[i]-average-trend*(i-centre);
        sum += residual*residual;
    }
    return std::sqrt(sum/values.size());
}

Figures run(OpenMM::Context& context, int steps) {
    const int degreesOfFreedom = 3*context.getSystem().getNumParticles();
    std::vector<double> potential, kinetic, total;
    const auto begin = std::chrono::steady_clock::now();
    for (int step = 0; step < steps; step += stepsPerSample) {
        context.getIntegrator().step(stepsPerSample);
        const OpenMM::State state = context.getState(OpenMM::State::Energy);
        potential.push_back(state.getPotentialEnergy());
        kinetic.push_back(state.getKineticEnergy());
        total.push_back(state.getPotentialEnergy()+state.getKineticEnergy());
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now()-begin;

    constexpr double gasConstant = 8.31446261815324e-3;    // kJ/mol/K
    const double samplesPerNanosecond = 1000/(timeStep*stepsPerSample);
    Figures figures;
    figures.stepsPerSecond = total.size()*stepsPerSample/seconds.count();
    figures.potentialEnergy = mean(potential);
    figures.temperature = 2*mean(kinetic)/(degreesOfFreedom*gasConstant);
    figures.fluctuation = detrendedDeviation(total)/degreesOfFreedom;
    figures.drift = std::abs(slope(total))*samplesPerNanosecond/degreesOfFreedom;
    return figures;
}

void printRow(const char* ensemble, const Figures& figures) {
    const double nanosecondsPerDay = figures.stepsPerSecond*timeStep*86400/1000;
    std::printf("%-8s %10.0f %10.2f %16.3f %12.1f %20.5f %20.4f\n", ensemble, figures.stepsPerSecond, nanosecondsPerDay,
            figures.potentialEnergy, figures.temperature, figures.fluctuation, figures.drift);
    if (!std::isfinite(figures.potentialEnergy))
        throw std::runtime_error("the energy is not finite");
}

void simulate(const Options& options) {
    OpenMM::Platform::loadPluginsFromDirectory(options.plugins);
    const std::string reason = OpenMMFlow::whyNotSupported(options.platform);
    if (!reason.empty())
        throw std::runtime_error(reason);
    OpenMM::Platform& platform = OpenMM::Platform::getPlatform(options.platform);

    const Molecule molecule = readPdb(options.start);
    OpenMM::System system;
    for (double mass : molecule.masses)
        system.addParticle(mass);
    auto* force = new OpenMMFlow::FlowForce(options.model);
    system.addForce(force);    // takes ownership
    const double temperature = force->getTemperature();

    OpenMM::LangevinMiddleIntegrator thermostat(temperature, 1.0, timeStep);
    OpenMM::Context nvt(system, thermostat, platform);
    nvt.setPositions(molecule.positions);
    OpenMM::LocalEnergyMinimizer::minimize(nvt);
    nvt.setVelocitiesToTemperature(temperature);

    std::printf("%d atoms, %lld parameters, model %s, T = %g K, ln p = %.3f after minimization, platform %s\n\n",
            force->getModel().getNumParticles(), force->getModel().getNumParameters(), force->getModel().getChecksum().c_str(),
            temperature, force->getLogProbs(nvt)[0], options.platform.c_str());
    std::printf("%-8s %10s %10s %16s %12s %20s %20s\n", "", "steps/s", "ns/day", "<U> [kJ/mol]", "<T> [K]", "std(E)/f [kJ/mol]",
            "drift/f [kJ/mol/ns]");
    printRow("NVT", run(nvt, options.steps));

    OpenMM::VerletIntegrator verlet(timeStep);
    OpenMM::Context nve(system, verlet, platform);
    const OpenMM::State state = nvt.getState(OpenMM::State::Positions | OpenMM::State::Velocities);
    nve.setPositions(state.getPositions());
    nve.setVelocities(state.getVelocities());
    printRow("NVE", run(nve, options.steps));
    std::printf("\nf = %d degrees of freedom; E is the total energy, its fluctuation is taken around a straight line\n",
            3*system.getNumParticles());
}

} // namespace

int main(int argc, char** argv) {
    try {
        simulate(parseArguments(argc, argv));
        return 0;
    }
    catch (const std::exception& error) {
        std::cerr << error.what() << std::endl;
        return 1;
    }
}
