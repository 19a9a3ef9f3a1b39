// SPDX-License-Identifier: MIT
#include "model/ArchitectureTensors.h"
#include "model/Failure.h"
#include "model/SafetensorsFile.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

using namespace OpenMMFlow;
using namespace std;

namespace {

/** Call visit(name, tensor) for each tensor; Model is Architecture or const Architecture. */
template <class Model, class Visit>
void forEachTensor(Model& architecture, const Visit& visit) {
    // Which tensors a distribution or a map has shows in the shapes.
    auto visitIfPresent = [&](const string& name, auto& tensor) {
        if (!tensor.shape.empty())
            visit(name, tensor);
    };
    auto visitDistributions = [&](const string& prefix, auto& distributions) {
        visitIfPresent(prefix+".lower", distributions.lower);
        visitIfPresent(prefix+".upper", distributions.upper);
        visitIfPresent(prefix+".mean", distributions.mean);
        visitIfPresent(prefix+".std", distributions.std);
    };
    for (size_t l = 0; l < architecture.layers.size(); l++) {
        const string layerName = "layers."+to_string(l);
        auto& layer = architecture.layers[l];
        if (auto* marginal = get_if<MarginalLayer>(&layer))
            visitDistributions(layerName, *marginal);
        else if (auto* mixed = get_if<MixedCoordinatesLayer>(&layer)) {
            visit(layerName+".reference", mixed->reference);
            visit(layerName+".whitening", mixed->whitening);
        }
        else if (auto* elementwise = get_if<ElementwiseLayer>(&layer)) {
            visitIfPresent(layerName+".shift", elementwise->shift);
            visitIfPresent(layerName+".scale", elementwise->scale);
        }
        else if (auto* coupling = get_if<CouplingLayer>(&layer))
            for (size_t n = 0; n < coupling->conditioner.networks.size(); n++) {
                auto& network = coupling->conditioner.networks[n];
                for (size_t m = 0; m < network.size(); m++) {
                    const string name = layerName+".networks."+to_string(n)+"."+to_string(m);
                    visit(name+".weight", network[m].weight);
                    visit(name+".bias", network[m].bias);
                }
            }
    }
    for (size_t e = 0; e < architecture.base.size(); e++)
        visitDistributions("base."+to_string(e), architecture.base[e]);
}

/** -1 in expected stands for any size. */
bool shapeFits(const vector<int64_t>& shape, const vector<int64_t>& expected) {
    return equal(shape.begin(), shape.end(), expected.begin(), expected.end(), [](int64_t size, int64_t wanted) {
        return wanted < 0 || size == wanted;
    });
}

void setNumFeatures(Architecture& architecture) {
    vector<vector<Domain>> domains = coordinateDomains(architecture);
    for (size_t l = 1; l < architecture.layers.size(); l++)
        if (CouplingLayer* coupling = get_if<CouplingLayer>(&architecture.layers[l]))
            for (vector<DenseLayer>& network : coupling->conditioner.networks)
                network.front().weight.shape[1] = numFeatures(*coupling, domains[l-1]);
}

} // namespace

map<string, const Tensor*> OpenMMFlow::namedTensors(const Architecture& architecture) {
    map<string, const Tensor*> tensors;
    forEachTensor(architecture, [&](const string& name, const Tensor& tensor) {
        tensors[name] = &tensor;
    });
    return tensors;
}

void OpenMMFlow::attachTensors(Architecture& architecture, map<string, Tensor> tensors) {
    setNumFeatures(architecture);
    forEachTensor(architecture, [&](const string& name, Tensor& tensor) {
        auto found = tensors.find(name);
        if (found == tensors.end())
            fail("the tensor '", name, "' is missing; the architecture needs it, of shape ", describeShape(tensor.shape));
        if (!shapeFits(found->second.shape, tensor.shape))
            fail("the tensor '", name, "' has the shape ", describeShape(found->second.shape),
                    ", but by the architecture it must have ",
                    describeShape(tensor.shape));
        const vector<double>& values = found->second.values;
        auto bad = find_if(values.begin(), values.end(), [](double value) { return !isfinite(value); });
        if (bad != values.end())
            fail("the tensor '", name, "' has the value ", *bad, " at position ", bad-values.begin(),
                    "; weights must be finite. The training that wrote it failed");
        tensor = move(found->second);
        tensors.erase(found);
    });
    if (!tensors.empty())
        fail("the tensor '", tensors.begin()->first,
                "' belongs to nothing in the architecture; remove it, or name what it is of");
}

int OpenMMFlow::numFeatures(const CouplingLayer& coupling, const vector<Domain>& domains) {
    // cosine and sine of circular coordinates
    return (int) coupling.conditionedOn.size()+(int) count_if(coupling.conditionedOn.begin(), coupling.conditionedOn.end(),
            [&](int coordinate) { return domains[coordinate] == Domain::Circle; });
}
