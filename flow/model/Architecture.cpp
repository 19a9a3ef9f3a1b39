// SPDX-License-Identifier: MIT
#include "model/Architecture.h"

#include <algorithm>

using namespace OpenMMFlow;
using namespace std;

vector<vector<Domain>> OpenMMFlow::coordinateDomains(const Architecture& architecture) {
    const int numTorsions = architecture.numParticles-3;
    vector<Domain> domains(architecture.numCoordinates(), Domain::Real);
    fill(domains.end()-numTorsions, domains.end(), Domain::Circle);
    vector<vector<Domain>> result;
    for (const Layer& layer : architecture.layers) {
        if (const MarginalLayer* marginal = get_if<MarginalLayer>(&layer))
            for (int coordinate : marginal->coordinates)
                domains[coordinate] = Domain::Interval;
        result.push_back(domains);
    }
    return result;
}

vector<int> OpenMMFlow::rawBlockLengths(const CouplingLayer& coupling, const vector<Domain>& domains) {
    const int D = static_cast<int>(coupling.transformed.size());
    if (const SmoothMixtureTransformer* mixture = get_if<SmoothMixtureTransformer>(&coupling.transformer))
        return vector<int>(5, D*mixture->components);
    const int numIntervals = static_cast<int>(count_if(coupling.transformed.begin(), coupling.transformed.end(),
            [&](int coordinate) { return domains[coordinate] == Domain::Interval; }));
    const FormulaTransformer& transformer = get<FormulaTransformer>(coupling.transformer);
    vector<int> lengths;
    for (const TransformerDescriptor::Block& block : transformer.descriptor->blocks)
        lengths.push_back(transformer.descriptor->numRows(block, transformer.size)*(block.ofIntervals ? numIntervals : D));
    return lengths;
}

Smoothness OpenMMFlow::smoothness(const Architecture& architecture, string* leastSmooth) {
    Smoothness result = Smoothness::Infinite;
    for (const Layer& layer : architecture.layers)
        if (const CouplingLayer* coupling = get_if<CouplingLayer>(&layer))
            if (const FormulaTransformer* transformer = get_if<FormulaTransformer>(&coupling->transformer))
                if (transformer->descriptor->smoothness < result) {
                    result = transformer->descriptor->smoothness;
                    if (leastSmooth != nullptr)
                        *leastSmooth = transformer->descriptor->name;
                }
    return result;
}
