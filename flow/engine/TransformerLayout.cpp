// SPDX-License-Identifier: MIT
#include "engine/TransformerLayout.h"

#include <algorithm>

using namespace OpenMMFlow;
using namespace std;

TransformerLayout::TransformerLayout(const CouplingLayer& layer, const vector<Domain>& domains) {
    const FormulaTransformer& transformer = get<FormulaTransformer>(layer.transformer);
    const TransformerDescriptor& descriptor = *transformer.descriptor;
    const int D = static_cast<int>(layer.transformed.size());
    vector<int> order;    // places in the file
    for (bool circles : {false, true})
        for (int d = 0; d < D; d++)
            if ((domains[layer.transformed[d]] == Domain::Circle) == circles)
                order.push_back(d);
    for (int d : order)
        transformed.push_back(layer.transformed[d]);
    numCircles = static_cast<int>(count_if(transformed.begin(), transformed.end(), [&](int i) { return domains[i] == Domain::Circle; }));
    const int numOthers = D-numCircles;
    // The place of a coordinate among those on intervals, in the order of the file.
    vector<int> amongIntervals(D, 0);
    for (int d = 0, count = 0; d < D; d++)
        if (domains[layer.transformed[d]] == Domain::Interval)
            amongIntervals[d] = count++;

    const vector<int> lengths = rawBlockLengths(layer, domains);
    size_t block = 0;
    for (const vector<DenseLayer>& network : layer.conditioner.networks) {
        const int networkLength = static_cast<int>(network.back().bias.values.size());
        vector<int>& places = outputs.emplace_back();
        for (int first = 0; first < networkLength; first += lengths[block++]) {
            const TransformerDescriptor::Block& b = descriptor.blocks[block];
            const int rows = descriptor.numRows(b, transformer.size);
            for (int row = 0; row < rows && lengths[block] > 0; row++) {
                const int offset = numOutputs+static_cast<int>(places.size());
                const int numHere = (b.ofIntervals ? numOthers : D);
                if (numOthers > 0)
                    otherOffsets.push_back(offset);
                if (numHere > numOthers)
                    circleOffsets.push_back(offset+numOthers);
                for (int i = 0; i < numHere; i++)
                    places.push_back(first+(b.ofIntervals ? amongIntervals[order[i]] : order[i])*rows+row);
            }
        }
        numOutputs += networkLength;
    }
}
