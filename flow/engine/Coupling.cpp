// SPDX-License-Identifier: MIT
#include "engine/Coupling.h"

#include <cmath>

using namespace OpenMMFlow;
using namespace std;

static const double TWO_PI = 6.283185307179586476925;

static vector<Domain> domainsOf(const vector<int>& coordinates, const vector<Domain>& domains) {
    vector<Domain> selected;
    for (int i : coordinates)
        selected.push_back(domains[i]);
    return selected;
}

Coupling::Coupling(const CouplingLayer& layer, const vector<Domain>& domains) :
        transformed(layer.transformed), transformer(layer.transformer, domainsOf(layer.transformed, domains)) {
    for (int i : layer.conditionedOn)
        (domains[i] == Domain::Circle ? circular : plain).push_back(i);
    for (const vector<DenseLayer>& network : layer.conditioner.networks)
        networks.emplace_back(network, layer.conditioner.activation);
}

Coupling::State Coupling::createState() const {
    State state;
    state.features.resize(plain.size()+2*circular.size());
    state.featureGradient.resize(state.features.size());
    state.raw.resize(transformer.getNumRawParameters());
    state.rawGradient.resize(state.raw.size());
    state.input.resize(transformed.size());
    state.output.resize(transformed.size());
    for (const DenseNetwork& network : networks)
        state.networks.push_back(network.createState());
    state.transformer = transformer.createState();
    return state;
}

double Coupling::forward(double* coordinates, State& state) const {
    const size_t numPlain = plain.size(), numCircular = circular.size();
    for (size_t i = 0; i < numPlain; i++)
        state.features[i] = coordinates[plain[i]];
    for (size_t i = 0; i < numCircular; i++) {
        double angle = TWO_PI*coordinates[circular[i]];
        state.features[numPlain+i] = cos(angle);
        state.features[numPlain+numCircular+i] = sin(angle);
    }
    double* raw = state.raw.data();
    for (size_t i = 0; i < networks.size(); i++) {
        networks[i].forward(state.features.data(), raw, state.networks[i]);
        raw += networks[i].getNumOutputs();
    }
    for (size_t i = 0; i < transformed.size(); i++)
        state.input[i] = coordinates[transformed[i]];
    double logDet = transformer.forward(state.input.data(), state.raw.data(), state.output.data(), state.transformer);
    for (size_t i = 0; i < transformed.size(); i++)
        coordinates[transformed[i]] = state.output[i];
    return logDet;
}

void Coupling::backward(double* gradient, State& state) const {
    for (size_t i = 0; i < transformed.size(); i++)
        state.output[i] = gradient[transformed[i]];
    transformer.backward(state.output.data(), state.input.data(), state.rawGradient.data(), state.transformer);
    for (size_t i = 0; i < transformed.size(); i++)
        gradient[transformed[i]] = state.input[i];
    fill(state.featureGradient.begin(), state.featureGradient.end(), 0.0);
    const double* rawGradient = state.rawGradient.data();
    for (size_t i = 0; i < networks.size(); i++) {
        networks[i].backward(rawGradient, state.featureGradient.data(), state.networks[i]);
        rawGradient += networks[i].getNumOutputs();
    }
    const size_t numPlain = plain.size(), numCircular = circular.size();
    for (size_t i = 0; i < numPlain; i++)
        gradient[plain[i]] += state.featureGradient[i];
    for (size_t i = 0; i < numCircular; i++)
        gradient[circular[i]] += TWO_PI*(state.features[numPlain+i]*state.featureGradient[numPlain+numCircular+i]
                -state.features[numPlain+numCircular+i]*state.featureGradient[numPlain+i]);
}
