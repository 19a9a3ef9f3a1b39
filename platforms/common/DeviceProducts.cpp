// SPDX-License-Identifier: MIT
#include "DeviceProducts.h"

#include <algorithm>

namespace OpenMMFlow {

static int activationNumber(ActivationType type) {
    switch (type) {
        case ActivationType::SiLU: return FLOW_ACTIVATION_SILU;
        case ActivationType::Tanh: return FLOW_ACTIVATION_TANH;
        case ActivationType::Sin: return FLOW_ACTIVATION_SIN;
        case ActivationType::GELU: return FLOW_ACTIVATION_GELU;
        default: return FLOW_ACTIVATION_SOFTPLUS;
    }
}

static FlowQuad noQuad() {
    FlowQuad quad = {};
    quad.slopeRow = quad.factorRow = -1;
    return quad;
}

/** Layers of the same depth, counted from the first, backward from the last. */
struct DeviceProducts::Depth {
    int numQuads = 0;    // of each group
    int mostInputs = 0;
};

DeviceProducts::DeviceProducts(DevicePlan& plan, const DevicePlan::Shape& shape, const Architecture& architecture) : plan(plan), shape(shape) {
    if (shape.sumsInWarps) {
        plan.slices = (shape.slices > 0 ? shape.slices : bestSlices(architecture));
        plan.weights.resize(4);    // what is added where there are no biases
    }
}

void DeviceProducts::add(std::vector<std::vector<Product>>& depths, ActivationType activation, std::vector<FlowOperation>& operations) {
    const std::size_t firstRound = rounds.size();
    for (std::vector<Product>& items : depths)
        if (shape.sumsInWarps)
            addRounds(activationNumber(activation), items);
        else
            addStep(activationNumber(activation), items, operations);
    for (std::size_t index = firstRound; index < rounds.size(); index++)
        rounds[index].numFollowing = static_cast<int>(rounds.size()-1-index);
    if (firstRound < rounds.size())
        operations.push_back({FLOW_PRODUCTS_IN_WARPS, static_cast<int>(firstRound)});
}

void DeviceProducts::finish() {
    // After the last round is one more, which is looked at and not done.
    if (shape.sumsInWarps)
        plan.quads.insert(plan.quads.end(), quadsOfRound(plan.slices)*shape.cluster, noQuad());
}

/** Of each group of a cluster. */
int DeviceProducts::numQuads(int outputs) const {
    return (outputs+4*shape.cluster-1)/(4*shape.cluster);
}

/** A matrix from a place that is a multiple of 4, with outputs filled up to so many quads and inputs to slices; which place. */
int DeviceProducts::addMatrix(int inputs, int outputs, int quads, int slices, const Matrix& value) {
    plan.weights.resize((plan.weights.size()+3)/4*4);
    const int place = static_cast<int>(plan.weights.size());
    for (int first = 0; first < inputs; first += slices)
        for (int quad = 0; quad < quads; quad++)
            for (int input = first; input < first+slices; input++)
                for (int output = 4*quad; output < 4*quad+4; output++)
                    plan.weights.push_back(input < inputs && output < outputs ? value(input, output) : 0);
    return place;
}

void DeviceProducts::addStep(int activation, std::vector<Product>& items, std::vector<FlowOperation>& operations) {
    FlowStep step = {};
    step.firstProduct = static_cast<int>(products.size());
    step.activation = activation;
    int shortest = items.front().product.inputs;
    for (auto& [product, matrix] : items) {
        product.firstQuad = step.numQuads;
        product.numQuads = numQuads(product.outputs);
        step.numQuads += product.numQuads;
        shortest = std::min(shortest, product.inputs);
    }
    // Networks without features are their bias, and have no gradient.
    if (step.numQuads == 0)
        return;
    step.log2Slices = log2Slices(step.numQuads, shortest);
    const int slices = 1<<step.log2Slices;
    for (auto& [product, matrix] : items) {
        product.matrixWeight = addMatrix(product.inputs, product.outputs, product.numQuads, slices, matrix);
        products.push_back(product);
    }
    const int index = static_cast<int>(steps.size());
    operations.push_back({FLOW_PRODUCT, index});
    if (slices > 1) {
        operations.push_back({FLOW_SUM_SLICES, index});
        mostPartialSums = std::max(mostPartialSums, 4*slices*step.numQuads);
    }
    steps.push_back(step);
}

/** A step where work-items of a warp exchange numbers. */
void DeviceProducts::addRounds(int activation, const std::vector<Product>& items) {
    std::vector<std::vector<FlowQuad>> ofGroups(shape.cluster);
    for (const auto& [product, matrix] : items) {
        int together = 0;
        for (int column = 0; column < numQuads(product.outputs)*shape.cluster; column++) {
            FlowQuad quad = noQuad();
            if (4*column < product.outputs) {
                quad = quadOf(product, 4*column);
                const auto fromHere = [column, &matrix = matrix](int input, int o) {
                    return matrix(input, 4*column+o);
                };
                // Work-items side by side have one quad of a single molecule, and neighbouring quads of a tile.
                if (shape.tile == 1)
                    quad.matrix = addMatrix(product.inputs, quad.outputs, 1, 1, fromHere)/4;
                else {
                    if (column%QUADS_TOGETHER == 0)
                        together = addMatrix(product.inputs, product.outputs-4*column, QUADS_TOGETHER, plan.slices, fromHere)/4;
                    quad.matrix = together+column%QUADS_TOGETHER*plan.slices;
                }
            }
            ofGroups[column%shape.cluster].push_back(quad);
        }
    }
    const std::size_t size = quadsOfRound(plan.slices), numRounds = (ofGroups.front().size()+size-1)/size;
    for (std::size_t round = 0; round < numRounds; round++) {
        rounds.push_back({activation, round+1 == numRounds, 0});
        for (const std::vector<FlowQuad>& quads : ofGroups)
            for (std::size_t i = round*size; i < (round+1)*size; i++)
                plan.quads.push_back(i < quads.size() ? quads[i] : noQuad());
    }
}

/** Four outputs from `output` on, or as many as there are, without its matrix. */
FlowQuad DeviceProducts::quadOf(const FlowProduct& product, int output) {
    FlowQuad quad = noQuad();
    quad.inputs = product.inputs;
    quad.outputs = std::min(product.outputs-output, 4);
    quad.sourceRow = product.sourceRow;
    quad.targetRow = product.targetRow+output;
    if (product.slopeRow >= 0)
        (product.activated ? quad.slopeRow : quad.factorRow) = product.slopeRow+output;
    if (product.biasWeight >= 0)
        quad.biasWeight = addMatrix(1, quad.outputs, 1, 1, [&](int, int o) {
            return plan.weights[product.biasWeight+output+o];
        });
    return quad;
}

/** Work-items of a group that share a quad are so many slices of so many chunks of molecules. */
std::size_t DeviceProducts::quadsOfRound(int slices) const {
    return shape.groupSize/(slices*shape.tile/flowKernelLanes(shape.tile));
}

/**
 * Of how many slices sums are where work-items of a warp add them up: as many as make the least of instructions. Of a single molecule an output of
 * a quad has a slice that finishes it, so there are four at least.
 */
int DeviceProducts::bestSlices(const Architecture& architecture) const {
    // Counted in the machine code for sm_90: for each input of a slice, and for each round.
    const int lanes = flowKernelLanes(shape.tile), chunks = shape.tile/lanes;
    const long long forInput = 2+4*lanes, forRound = 60+20*lanes;
    int best = 0;
    long long least = 0;
    for (int slices = (shape.tile == 1 ? 4 : 1); slices <= flowKernelWarp; slices *= 2) {
        // Groups may yet have to be smaller.
        if (shape.groupSize%(slices*chunks) != 0 || slices*chunks > 4*flowKernelWarp)
            break;
        long long instructions = 0;
        for (const Layer& layer : architecture.layers)
            if (const CouplingLayer* coupling = std::get_if<CouplingLayer>(&layer))
                for (bool forward : {true, false})
                    for (const Depth& depth : depthsOf(coupling->conditioner, forward)) {
                        const long long size = quadsOfRound(slices), numRounds = (depth.numQuads+size-1)/size;
                        instructions += numRounds*(forRound+forInput*((depth.mostInputs+slices-1)/slices));
                    }
        if (best == 0 || instructions < least) {
            best = slices;
            least = instructions;
        }
    }
    return best;
}

std::vector<DeviceProducts::Depth> DeviceProducts::depthsOf(const Conditioner& conditioner, bool forward) const {
    std::vector<Depth> depths;
    for (const std::vector<DenseLayer>& network : conditioner.networks) {
        depths.resize(std::max(depths.size(), network.size()));
        for (std::size_t i = 0; i < network.size(); i++) {
            const DenseLayer& layer = network[forward ? i : network.size()-1-i];
            const int outputs = static_cast<int>(layer.weight.shape[forward ? 0 : 1]), inputs = static_cast<int>(layer.weight.shape[forward ? 1 : 0]);
            depths[i].numQuads += numQuads(outputs);
            depths[i].mostInputs = std::max(depths[i].mostInputs, inputs);
        }
    }
    return depths;
}

/**
 * Enough slices for all work-items, but no sum much shorter than what a work-item reads at once. Of a tile the sums of slices go through
 * global memory, which costs as much as the products: only where most work-items would have nothing to do.
 */
int DeviceProducts::log2Slices(int numQuads, int shortest) const {
    const int smallestSum = 8, mostSlices = 16;
    const int numItems = numQuads*shape.tile/flowKernelLanes(shape.tile);
    int most = 1;
    if (shape.tile == 1 || 4*numItems <= shape.groupSize)
        most = std::min({shape.groupSize/numItems, (shortest+smallestSum-1)/smallestSum, mostSlices});
    int log2 = 0;
    while (2<<log2 <= most)
        log2++;
    return log2;
}

} // namespace OpenMMFlow
