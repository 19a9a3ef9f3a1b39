// SPDX-License-Identifier: MIT
// The dense networks of conditioners: matrix-vector products for one molecule, matrix-matrix products for a tile. A work-item owns a quad of
// outputs, whose weights it reads as one vector, a slice of their inputs and LANES molecules; consecutive ones read consecutive weights.

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

// What an output is after its sum is complete. `keeps` is whether this work-item writes what is kept of it.
static DEVICE inline Lanes finishedOutput(FlowProduct product, int output, int chunk, Lanes sum, int activation, KeptArena kept, bool keeps) {
    if (product.activated) {
        Lanes slopes;
        sum = activateLanes(activation, sum, &slopes);
        if (keeps)
            *slopesAt(kept, product, output, chunk) = slopes;
    }
    else if (product.slopeRow >= 0)
        sum *= *slopesAt(kept, product, output, chunk);
    return sum;
}

static DEVICE inline void finishOutput(FlowProduct product, int output, int chunk, Lanes sum, int activation, RealArena arena, KeptArena kept) {
    *lanesAt(arena, product.targetRow+output, chunk) = finishedOutput(product, output, chunk, sum, activation, kept, true);
}

// All of it is read at once, where it does not wait for what is written in between.
static DEVICE inline FlowProduct productOf(Step step, Product products, int quad) {
    Product product = products+step->firstProduct;
    while (quad >= product->firstQuad+product->numQuads)
        product++;
    return *product;
}

// Row of a partial sum.
static DEVICE inline int partialSum(Step step, int slice, int quad, int o) {
    return (slice*step->numQuads+quad)*4+o;
}

static DEVICE inline void addProduct(Lanes sums[4], real4 w, Lanes source) {
    sums[0] += w.x*source;
    sums[1] += w.y*source;
    sums[2] += w.z*source;
    sums[3] += w.w*source;
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

#if CLUSTER > 1
#if !defined(SUMS_IN_WARPS) || !defined(ARENAS_ARE_LOCAL)
#error "groups of a cluster write into each other's local memory what warps have added up"
#endif
#define ARRIVE_AT_CLUSTER __cluster_barrier_arrive();
#define WAIT_FOR_CLUSTER __cluster_barrier_wait();
#define ARENA_OF(arena, rank) ((RealArena) __cluster_map_shared_rank(arena, rank))
#else
#define ARRIVE_AT_CLUSTER
#define WAIT_FOR_CLUSTER
#define ARENA_OF(arena, rank) (arena)
#endif

static DEVICE void multiply(Step step, Product products, Weights weights, int partialRow, RealArena arena, KeptArena kept) {
    const int log2Slices = step->log2Slices, slices = 1<<log2Slices, numQuads = step->numQuads, numItems = (numQuads<<log2Slices)*CHUNKS;
#ifdef SUMS_IN_WARPS
    const int endItem = WHOLE_WARPS(numItems);
#else
    const int endItem = numItems;
#endif
    // Groups of a cluster write outputs only where all of them are done with what was there. Of products in a row they are: none has the rows
    // of the one before as its target, and all have waited at its end.
    bool mustWait = (CLUSTER > 1 && !step->followsProduct);
    if (mustWait) {
        ARRIVE_AT_CLUSTER
    }
    for (int item = LOCAL_ID; item < endItem; item += LOCAL_SIZE) {
        // Slices run fastest, then quads.
        const int slice = item&(slices-1);
#if TILE == 1
        const int quad = min(item>>log2Slices, numQuads-1), chunk = 0;
#else
        const int quad = (item>>log2Slices)%numQuads, chunk = (item>>log2Slices)/numQuads;
#endif
        const FlowProduct product = productOf(step, products, quad);
        const int column = (quad-product.firstQuad)*CLUSTER+RANK, matrixStride = product.numQuads*CLUSTER<<log2Slices;
        // Those that quads are filled up with for clusters have no inputs.
        const int lastInput = (CLUSTER == 1 || 4*column < product.outputs ? product.inputs-1 : -1);
        GLOBAL const real4* matrix = (GLOBAL const real4*) (weights+product.matrixWeight)+(column<<log2Slices)+slice;
        ARENA const Lanes* sources = lanesAt(arena, product.sourceRow, chunk);
        // Asked for before the weights, used after them.
#ifdef SUMS_IN_WARPS
        const int o = slice&3;
        const real bias = biasOf(product, 4*column+o, weights);
#else
        real biases[4];
#pragma unroll
        for (int o = 0; o < 4; o++)
            biases[o] = (slice == 0 ? biasOf(product, 4*column+o, weights) : (real) 0);
#endif
        Lanes sums[4];
        sums[0] = sums[1] = sums[2] = sums[3] = TO_LANES((real) 0);
        int input = slice, left = (lastInput>>log2Slices)+1;
        for (; left > BATCH; left -= BATCH) {
            addProducts(sums, matrix, matrixStride, sources+input*CHUNKS, CHUNKS<<log2Slices);
            matrix += BATCH*matrixStride;
            input += BATCH<<log2Slices;
        }
        addLastProducts(sums, matrix, matrixStride, sources+input*CHUNKS, CHUNKS<<log2Slices, (lastInput-input)*CHUNKS);
#ifdef SUMS_IN_WARPS
        for (int bits = 1; bits < slices; bits <<= 1) {
            real others[4];
#pragma unroll
            for (int o = 0; o < 4; o++)
                others[o] = FROM_NEIGHBOUR(sums[o], bits);
#pragma unroll
            for (int o = 0; o < 4; o++)
                sums[o] += others[o];
        }
        if (mustWait) {
            WAIT_FOR_CLUSTER
            mustWait = false;
        }
        // All slices have all sums of their quad; they share out the groups that an output goes to.
        const real sum = bias+(o == 0 ? sums[0] : o == 1 ? sums[1] : o == 2 ? sums[2] : sums[3]);
        if (item < numItems && slice < 4*CLUSTER && 4*column+o < product.outputs) {
            const real output = finishedOutput(product, 4*column+o, chunk, sum, step->activation, kept, slice < 4);
            for (int rank = slice>>2; rank < CLUSTER; rank += slices>>2)
                *lanesAt(ARENA_OF(arena, rank), product.targetRow+4*column+o, chunk) = output;
        }
#else
#pragma unroll
        for (int o = 0; o < 4; o++) {
            sums[o] += TO_LANES(biases[o]);
            if (slices > 1)
                *lanesAt(arena, partialRow+partialSum(step, slice, quad, o), chunk) = sums[o];
            else if (4*column+o < product.outputs)
                finishOutput(product, 4*column+o, chunk, sums[o], step->activation, arena, kept);
        }
#endif
    }
    if (mustWait) {
        WAIT_FOR_CLUSTER
    }
    ARRIVE_AT_CLUSTER
    WAIT_FOR_CLUSTER
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
