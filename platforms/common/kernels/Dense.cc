// SPDX-License-Identifier: MIT
// The dense networks of conditioners: matrix-vector products for one molecule, matrix-matrix products for a tile. A work-item owns one
// output and up to four molecules; consecutive ones read consecutive weights.

static DEVICE inline Activation activate(int type, real x) {
    switch (type) {
        case FLOW_ACTIVATION_SILU: return activationSiLU(x);
        case FLOW_ACTIVATION_TANH: return activationTanh(x);
        case FLOW_ACTIVATION_SIN: return activationSin(x);
        case FLOW_ACTIVATION_GELU: return activationGELU(x);
        default: return activationSoftplus(x);
    }
}

// What an output is after its sum is complete.
static DEVICE inline void finishOutput(GLOBAL const FlowProduct* product, int output, int chunk, Lanes sum, int activation,
        Weights weights, RealArena arena) {
    ARENA Lanes* target = (ARENA Lanes*) arena+(product->targetRow+output)*CHUNKS+chunk;
    if (product->biasWeight >= 0)
        sum += TO_LANES(weights[product->biasWeight+output]);
    if (product->activated) {
        *target = sum;
        ARENA real* values = (ARENA real*) target;
        ARENA real* slopes = arena+(product->slopeRow+output)*TILE+chunk*LANES;
        for (int lane = 0; lane < LANES; lane++) {
            Activation a = activate(activation, values[lane]);
            values[lane] = a.value;
            slopes[lane] = a.d1;
        }
    }
    else {
        if (product->slopeRow >= 0)
            sum *= *((ARENA Lanes*) arena+(product->slopeRow+output)*CHUNKS+chunk);
        *target = sum;
    }
}

static DEVICE inline GLOBAL const FlowProduct* productOf(GLOBAL const FlowStep* step, GLOBAL const FlowProduct* products, int output) {
    GLOBAL const FlowProduct* product = products+step->firstProduct;
    while (output >= product->firstOutput+product->outputs)
        product++;
    return product;
}

static DEVICE void multiply(GLOBAL const FlowStep* step, GLOBAL const FlowProduct* products, Weights weights, int partialRow,
        RealArena arena) {
    const int slices = step->slices, numOutputs = step->numOutputs;
    for (int item = LOCAL_ID; item < numOutputs*CHUNKS*slices; item += LOCAL_SIZE) {
        // Outputs run fastest.
        int output = item%numOutputs, chunk = item/numOutputs%CHUNKS, slice = item/(numOutputs*CHUNKS);
        GLOBAL const FlowProduct* product = productOf(step, products, output);
        int column = output-product->firstOutput, numColumns = product->outputs;
        int begin = product->inputs*slice/slices, end = product->inputs*(slice+1)/slices;
        Weights weight = weights+product->matrixWeight+begin*numColumns+column;
        ARENA const Lanes* source = (ARENA const Lanes*) arena+(product->sourceRow+begin)*CHUNKS+chunk;
        Lanes sum = TO_LANES((real) 0);
        for (int input = begin; input < end; input++) {
            sum += *weight*(*source);
            weight += numColumns;
            source += CHUNKS;
        }
        if (slices == 1)
            finishOutput(product, column, chunk, sum, step->activation, weights, arena);
        else
            ((ARENA Lanes*) arena)[(partialRow+slice*numOutputs+output)*CHUNKS+chunk] = sum;
    }
}

static DEVICE void sumSlices(GLOBAL const FlowStep* step, GLOBAL const FlowProduct* products, Weights weights, int partialRow,
        RealArena arena) {
    const int numOutputs = step->numOutputs;
    for (int item = LOCAL_ID; item < numOutputs*CHUNKS; item += LOCAL_SIZE) {
        int output = item%numOutputs, chunk = item/numOutputs;
        GLOBAL const FlowProduct* product = productOf(step, products, output);
        Lanes sum = TO_LANES((real) 0);
        for (int slice = 0; slice < step->slices; slice++)
            sum += ((ARENA const Lanes*) arena)[(partialRow+slice*numOutputs+output)*CHUNKS+chunk];
        finishOutput(product, output-product->firstOutput, chunk, sum, step->activation, weights, arena);
    }
}
