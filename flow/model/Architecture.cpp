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
