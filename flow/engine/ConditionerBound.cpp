// SPDX-License-Identifier: MIT
#include "engine/ConditionerBound.h"
#include "formulas/Formulas.h"

#include <algorithm>
#include <cmath>

using namespace OpenMMFlow;
using namespace std;

using Range = pair<double, double>;

static Range activated(ActivationType type, const Range& x) {
    using F = Formulas<double>;
    // The least values of two that fall before they rise.
    const double leastSiLU = -0.278465, leastGELU = -0.169972;
    switch (type) {
        case ActivationType::Tanh: return {F::activationTanh(x.first).value, F::activationTanh(x.second).value};
        case ActivationType::Sin: return {-1, 1};
        case ActivationType::Softplus: return {F::activationSoftplus(x.first).value, F::activationSoftplus(x.second).value};
        case ActivationType::SiLU: return {leastSiLU, max(F::activationSiLU(x.second).value, 0.0)};
        default: return {leastGELU, max(F::activationGELU(x.second).value, 0.0)};
    }
}

static vector<Range> product(const DenseLayer& layer, const vector<Range>& inputs) {
    const size_t numInputs = inputs.size();
    vector<Range> outputs;
    for (size_t o = 0; o < layer.bias.values.size(); o++) {
        double centre = layer.bias.values[o], radius = 0;
        for (size_t i = 0; i < numInputs; i++) {
            const double weight = layer.weight.values[o*numInputs+i];
            centre += weight*0.5*(inputs[i].first+inputs[i].second);
            radius += abs(weight)*0.5*(inputs[i].second-inputs[i].first);
        }
        outputs.emplace_back(centre-radius, centre+radius);
    }
    return outputs;
}

double OpenMMFlow::largestRawParameter(const CouplingLayer& coupling, const vector<Domain>& domains, const vector<Range>& ranges) {
    vector<Range> features;
    for (int coordinate : coupling.conditionedOn)
        if (domains[coordinate] != Domain::Circle)
            features.push_back(ranges[coordinate]);
    for (int coordinate : coupling.conditionedOn)
        if (domains[coordinate] == Domain::Circle)
            features.insert(features.end(), 2, {-1, 1});
    double largest = 0;
    for (const vector<DenseLayer>& network : coupling.conditioner.networks) {
        vector<Range> values = features;
        for (const DenseLayer& layer : network) {
            values = product(layer, values);
            if (&layer != &network.back())
                for (Range& value : values)
                    value = activated(coupling.conditioner.activation, value);
        }
        for (const Range& value : values)
            largest = max({largest, abs(value.first), abs(value.second)});
    }
    return largest;
}
