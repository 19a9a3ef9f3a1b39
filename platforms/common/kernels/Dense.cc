// SPDX-License-Identifier: MIT
// The dense networks of conditioners: matrix-vector products for one molecule, matrix-matrix products for a tile. A work-item owns a quad of
// outputs, whose weights it reads as one vector, a slice of their inputs and LANES molecules; consecutive ones read consecutive weights. Sums of
// slices go through an arena; DenseInWarps.cc has what is done where they need not.

// Weights that a work-item asks for before it uses the first.
#define BATCH 8

static DEVICE inline Activation activate(int type, real x) {
    switch (type) {
        case FLOW_ACTIVATION_SILU: return activationSiLU(x);
        case FLOW_ACTIVATION_TANH: return activationTanh(x);
        case FLOW_ACTIVATION_SIN: return activationSin(x);
        case FLOW_ACTIVATION_GELU: return activationGELU(x);
        default: return activationSoftplus(x);
    }
}

// Values and derivatives of an activation.
static DEVICE inline Lanes activateLanes(int type, Lanes x, Lanes* slopes) {
#ifdef ACTIVATION
    type = ACTIVATION;
#endif
#if LANES == 1
    Activation a = activate(type, x);
    *slopes = a.d1;
    return a.value;
#else
    Activation a = activate(type, x.x), b = activate(type, x.y), c = activate(type, x.z), d = activate(type, x.w);
    *slopes = make_real4(a.d1, b.d1, c.d1, d.d1);
    return make_real4(a.value, b.value, c.value, d.value);
#endif
}

// All of it is read at once, where it does not wait for what is written in between.
static DEVICE inline FlowProduct productOf(Step step, Product products, int quad) {
    Product product = products+step->firstProduct;
    while (quad >= product->firstQuad+product->numQuads)
        product++;
    return *product;
}

static DEVICE inline void addProduct(Lanes sums[4], real4 w, Lanes source) {
    sums[0] += w.x*source;
    sums[1] += w.y*source;
    sums[2] += w.z*source;
    sums[3] += w.w*source;
}

#ifndef SUMS_IN_WARPS
static DEVICE inline ARENA Lanes* lanesAt(RealArena arena, int row, int chunk) {
    return (ARENA Lanes*) arena+row*CHUNKS+chunk;
}

static DEVICE inline KEPT Lanes* slopesAt(KeptArena kept, FlowProduct product, int output, int chunk) {
    return (KEPT Lanes*) kept+(product.slopeRow+output)*CHUNKS+chunk;
}

// What is added to the sum of an output.
static DEVICE inline real biasOf(FlowProduct product, int output, Weights weights) {
    return product.biasWeight >= 0 && output < product.outputs ? weights[product.biasWeight+output] : (real) 0;
}

// Of an output whose sum is complete.
static DEVICE inline void finishOutput(FlowProduct product, int output, int chunk, Lanes sum, int activation, RealArena arena, KeptArena kept) {
    if (product.activated) {
        Lanes slopes;
        sum = activateLanes(activation, sum, &slopes);
        *slopesAt(kept, product, output, chunk) = slopes;
    }
    else if (product.slopeRow >= 0)
        sum *= *slopesAt(kept, product, output, chunk);
    *lanesAt(arena, product.targetRow+output, chunk) = sum;
}

// Row of a partial sum.
static DEVICE inline int partialSum(Step step, int slice, int quad, int o) {
    return (slice*step->numQuads+quad)*4+o;
}

// Adds the products of BATCH inputs; both strides are from one to the next.
static DEVICE inline void addProducts(Lanes sums[4], GLOBAL const real4* matrix, int matrixStride, ARENA const Lanes* source, int sourceStride) {
    real4 w[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++)
        w[j] = matrix[j*matrixStride];
#if LANES == 1
    // All of them before the first is used, for which there are registers.
    Lanes sources[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++)
        sources[j] = source[j*sourceStride];
#endif
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
#if LANES == 1
        addProduct(sums, w[j], sources[j]);
#else
        addProduct(sums, w[j], source[j*sourceStride]);
#endif
    }
}

// The same of the last inputs, at most BATCH: those up to `lastSource`, counted from the first one. Where there are none, nothing is read.
static DEVICE inline void addLastProducts(Lanes sums[4], GLOBAL const real4* matrix, int matrixStride, ARENA const Lanes* source, int sourceStride,
        int lastSource) {
    real4 w[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
        w[j] = make_real4(0);
        if (j*sourceStride <= lastSource)
            w[j] = matrix[j*matrixStride];
    }
#if LANES == 1
    // Without a branch for each.
    Lanes sources[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
        sources[j] = 0;
        if (j*sourceStride <= lastSource)
            sources[j] = source[j*sourceStride];
    }
#pragma unroll
    for (int j = 0; j < BATCH; j++)
        addProduct(sums, w[j], sources[j]);
#else
#pragma unroll
    for (int j = 0; j < BATCH; j++)
        if (j*sourceStride <= lastSource)
            addProduct(sums, w[j], source[j*sourceStride]);
#endif
}

static DEVICE void multiply(Step step, Product products, Weights weights, int partialRow, RealArena arena, KeptArena kept) {
    const int log2Slices = step->log2Slices, slices = 1<<log2Slices, numQuads = step->numQuads, numItems = (numQuads<<log2Slices)*CHUNKS;
    for (int item = LOCAL_ID; item < numItems; item += LOCAL_SIZE) {
        // Slices run fastest, then quads.
        const int slice = item&(slices-1);
#if TILE == 1
        const int quad = item>>log2Slices, chunk = 0;
#else
        const int quad = (item>>log2Slices)%numQuads, chunk = (item>>log2Slices)/numQuads;
#endif
        const FlowProduct product = productOf(step, products, quad);
        const int column = quad-product.firstQuad, matrixStride = product.numQuads<<log2Slices, lastInput = product.inputs-1;
        GLOBAL const real4* matrix = (GLOBAL const real4*) (weights+product.matrixWeight)+(column<<log2Slices)+slice;
        ARENA const Lanes* sources = lanesAt(arena, product.sourceRow, chunk);
        // Asked for before the weights, used after them.
        real biases[4];
#pragma unroll
        for (int o = 0; o < 4; o++)
            biases[o] = (slice == 0 ? biasOf(product, 4*column+o, weights) : (real) 0);
        Lanes sums[4];
        sums[0] = sums[1] = sums[2] = sums[3] = TO_LANES((real) 0);
        int input = slice, left = (lastInput>>log2Slices)+1;
        for (; left > BATCH; left -= BATCH) {
            addProducts(sums, matrix, matrixStride, sources+input*CHUNKS, CHUNKS<<log2Slices);
            matrix += BATCH*matrixStride;
            input += BATCH<<log2Slices;
        }
        addLastProducts(sums, matrix, matrixStride, sources+input*CHUNKS, CHUNKS<<log2Slices, (lastInput-input)*CHUNKS);
#pragma unroll
        for (int o = 0; o < 4; o++) {
            sums[o] += TO_LANES(biases[o]);
            if (slices > 1)
                *lanesAt(arena, partialRow+partialSum(step, slice, quad, o), chunk) = sums[o];
            else if (4*column+o < product.outputs)
                finishOutput(product, 4*column+o, chunk, sums[o], step->activation, arena, kept);
        }
    }
}

static DEVICE void sumSlices(Step step, Product products, int partialRow, RealArena arena, KeptArena kept) {
    const int slices = 1<<step->log2Slices;
    for (int item = LOCAL_ID; item < 4*step->numQuads*CHUNKS; item += LOCAL_SIZE) {
        const int chunk = item%CHUNKS, o = item/CHUNKS&3, quad = item/(4*CHUNKS);
        const FlowProduct product = productOf(step, products, quad);
        const int output = 4*(quad-product.firstQuad)+o;
        if (output >= product.outputs)
            continue;
        Lanes sum = TO_LANES((real) 0);
        for (int slice = 0; slice < slices; slice++)
            sum += *lanesAt(arena, partialRow+partialSum(step, slice, quad, o), chunk);
        finishOutput(product, output, chunk, sum, step->activation, arena, kept);
    }
}
#endif
