// SPDX-License-Identifier: MIT
#include "internal/MoleculeChecks.h"
#include "DrudeParticles.h"

#include <openmm/OpenMMException.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <sstream>
#include <utility>

using OpenMM::OpenMMException;
using OpenMM::System;

namespace OpenMMFlow {

namespace {

/** Pair of particles of the System, the smaller index first. */
using Pair = std::pair<int, int>;

constexpr double distanceTolerance = 1e-4;    // relative
constexpr std::size_t listedDifferences = 10;

Pair orderedPair(int particle1, int particle2) {
    return std::minmax(particle1, particle2);
}

std::string describe(Pair pair, double distance) {
    std::ostringstream text;
    text << "particles " << pair.first << " and " << pair.second << " at " << distance << " nm";
    return text.str();
}

} // namespace

std::vector<std::vector<int>> resolveMolecules(const FlowForce& force, const System& system) {
    const int expected = force.getModel().getNumParticles();
    const int numParticles = system.getNumParticles();
    std::ostringstream message;
    message << "FlowForce: ";
    if (force.getNumMolecules() == 0) {
        if (numParticles != expected) {
            message << "no molecule was added, and the System of " << numParticles << " particles is not one molecule of the "
                    "model, which has " << expected << ". Call addMolecule() for each set of particles that the model is of";
            throw OpenMMException(message.str());
        }
        std::vector<int> all(numParticles);
        std::iota(all.begin(), all.end(), 0);
        return {all};
    }
    std::vector<std::vector<int>> molecules;
    std::map<int, int> moleculeOf;
    for (int i = 0; i < force.getNumMolecules(); i++) {
        const std::vector<int>& particles = force.getMoleculeParticles(i);
        if (static_cast<int>(particles.size()) != expected) {
            message << "molecule " << i << " has " << particles.size() << " particles, the model has " << expected;
            throw OpenMMException(message.str());
        }
        for (int particle : particles) {
            if (particle < 0 || particle >= numParticles) {
                message << "molecule " << i << " has the particle " << particle << ", which is not one of the System: it has "
                        "particles 0 to " << numParticles-1;
                throw OpenMMException(message.str());
            }
            auto [other, isNew] = moleculeOf.emplace(particle, i);
            if (!isNew) {
                message << "particle " << particle << " is ";
                if (other->second == i)
                    message << "twice in molecule " << i;
                else
                    message << "in molecule " << other->second << " and in molecule " << i;
                message << "; it may be in one molecule of the force, once";
                throw OpenMMException(message.str());
            }
        }
        molecules.push_back(particles);
    }
    return molecules;
}

void checkParticles(const std::vector<std::vector<int>>& molecules, const System& system) {
    const std::set<int> drude = drudeParticles(system);
    for (std::size_t i = 0; i < molecules.size(); i++)
        for (int particle : molecules[i]) {
            const char* what = nullptr;
            if (system.isVirtualSite(particle))
                what = "a virtual site";
            else if (system.getParticleMass(particle) == 0)
                what = "massless";
            else if (drude.count(particle) != 0)
                what = "part of a Drude oscillator";
            if (what != nullptr) {
                std::ostringstream message;
                message << "FlowForce: particle " << particle << " of molecule " << i << " is " << what
                        << ". A flow is a density of all particles of its molecule, which must all move by themselves";
                throw OpenMMException(message.str());
            }
        }
}

void checkConstraints(const FlowModel& model, const std::vector<std::vector<int>>& molecules, const System& system) {
    std::map<int, std::size_t> moleculeOf;
    std::map<Pair, double> expected;
    for (std::size_t i = 0; i < molecules.size(); i++) {
        for (int particle : molecules[i])
            moleculeOf[particle] = i;
        for (const DistanceConstraint& constraint : model.getArchitecture().constraints)
            expected[orderedPair(molecules[i][constraint.particle1], molecules[i][constraint.particle2])] = constraint.distance;
    }

    // Constraints that were found are taken out of those expected; what is left is missing.
    std::vector<std::string> differences;
    for (int i = 0; i < system.getNumConstraints(); i++) {
        int particle1, particle2;
        double distance;
        system.getConstraintParameters(i, particle1, particle2, distance);
        auto molecule1 = moleculeOf.find(particle1), molecule2 = moleculeOf.find(particle2);
        if (molecule1 == moleculeOf.end() && molecule2 == moleculeOf.end())
            continue;
        Pair pair = orderedPair(particle1, particle2);
        auto match = expected.find(pair);
        if (match == expected.end()) {
            bool isWithin = molecule1 != moleculeOf.end() && molecule2 != moleculeOf.end() && molecule1->second == molecule2->second;
            differences.push_back("the System constrains "+describe(pair, distance)
                    +(isWithin ? ", the model does not" : ", which are not of one molecule"));
            continue;
        }
        if (!(std::abs(distance-match->second) <= distanceTolerance*match->second)) {
            std::ostringstream text;
            text << "the System constrains " << describe(pair, distance) << ", the model at " << match->second << " nm";
            differences.push_back(text.str());
        }
        expected.erase(match);
    }
    for (const auto& [pair, distance] : expected)
        differences.push_back("the model constrains "+describe(pair, distance)+", the System does not");
    if (differences.empty())
        return;

    std::ostringstream message;
    message << "FlowForce: the constraints of the System differ from those that the model was trained with. Make the System with "
            "the constraints of the model, or use a model of the System's. Differences:";
    for (std::size_t i = 0; i < std::min(differences.size(), listedDifferences); i++)
        message << "\n  " << differences[i];
    if (differences.size() > listedDifferences)
        message << "\n  and " << differences.size()-listedDifferences << " more";
    throw OpenMMException(message.str());
}

} // namespace OpenMMFlow
