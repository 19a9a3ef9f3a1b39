// SPDX-License-Identifier: MIT
// The dense networks of conditioners: matrix-vector products for one molecule, matrix-matrix products for a tile. A work-item owns a quad of
// outputs, whose weights it reads as one vector, and LANES molecules; consecutive ones read consecutive weights.

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

static DEVICE inline KEPT Lanes* slopesAt(KeptArena kept, Product product, int output, int chunk) {
    return (KEPT Lanes*) kept+(product->slopeRow+output)*CHUNKS+chunk;
}

// What an output is after its sum is complete.
static DEVICE inline void finishOutput(Product product, int output, int chunk, Lanes sum, int activation, Weights weights, RealArena arena,
        KeptArena kept) {
    if (product->biasWeight >= 0)
        sum += TO_LANES(weights[product->biasWeight+output]);
    if (product->activated) {
        Lanes slopes;
        sum = activateLanes(activation, sum, &slopes);
        *slopesAt(kept, product, output, chunk) = slopes;
    }
    else if (product->slopeRow >= 0)
        sum *= *slopesAt(kept, product, output, chunk);
    *lanesAt(arena, product->targetRow+output, chunk) = sum;
}

static DEVICE inline Product productOf(Step step, Product products, int quad) {
    Product product = products+step->firstProduct;
    while (quad >= product->firstQuad+product->numQuads)
        product++;
    return product;
}

// Partial sums are (slices, 4, numQuads), so that neither who writes them nor who reads them strides.
static DEVICE inline int partialSum(Step step, int slice, int o, int quad) {
    return (slice*4+o)*step->numQuads+quad;
}

// Adds the products of up to BATCH inputs. Where there are fewer the last one is read again, and multiplied with 0.
static DEVICE inline void addProducts(Lanes sums[4], GLOBAL const real4* matrix, int numColumns, ARENA const Lanes* source, int count) {
    real4 w[BATCH];
#pragma unroll
    for (int j = 0; j < BATCH; j++)
        w[j] = matrix[min(j, count-1)*numColumns];
#pragma unroll
    for (int j = 0; j < BATCH; j++) {
        Lanes s = source[min(j, count-1)*CHUNKS];
        if (j >= count)
            s = TO_LANES((real) 0);
        sums[0] += w[j].x*s;
        sums[1] += w[j].y*s;
        sums[2] += w[j].z*s;
        sums[3] += w[j].w*s;
    }
}

static DEVICE void multiply(Step step, Product products, Weights weights, int partialRow, RealArena arena, KeptArena kept) {
    const int slices = step->slices, numQuads = step->numQuads;
    for (int item = LOCAL_ID; item < numQuads*CHUNKS*slices; item += LOCAL_SIZE) {
        // Quads run fastest.
        const int quad = item%numQuads, chunk = item/numQuads%CHUNKS, slice = item/(numQuads*CHUNKS);
        Product product = productOf(step, products, quad);
        const int column = quad-product->firstQuad, numColumns = product->numQuads;
        const int begin = product->inputs*slice/slices, end = product->inputs*(slice+1)/slices;
        GLOBAL const real4* matrix = (GLOBAL const real4*) (weights+product->matrixWeight)+begin*numColumns+column;
        ARENA const Lanes* source = lanesAt(arena, product->sourceRow+begin, chunk);
        Lanes sums[4];
        sums[0] = sums[1] = sums[2] = sums[3] = TO_LANES((real) 0);
        int left = end-begin;
        for (; left >= BATCH; left -= BATCH) {
            addProducts(sums, matrix, numColumns, source, BATCH);
            matrix += BATCH*numColumns;
            source += BATCH*CHUNKS;
        }
        if (left > 0)
            addProducts(sums, matrix, numColumns, source, left);
#pragma unroll
        for (int o = 0; o < 4; o++) {
            if (slices > 1)
                *lanesAt(arena, partialRow+partialSum(step, slice, o, quad), chunk) = sums[o];
            else if (4*column+o < product->outputs)
                finishOutput(product, 4*column+o, chunk, sums[o], step->activation, weights, arena, kept);
        }
    }
}

static DEVICE void sumSlices(Step step, Product products, Weights weights, int partialRow, RealArena arena, KeptArena kept) {
    const int numQuads = step->numQuads;
    for (int item = LOCAL_ID; item < 4*numQuads*CHUNKS; item += LOCAL_SIZE) {
        const int quad = item%numQuads, o = item/numQuads%4, chunk = item/(4*numQuads);
        Product product = productOf(step, products, quad);
        const int output = 4*(quad-product->firstQuad)+o;
        if (output >= product->outputs)
            continue;
        Lanes sum = TO_LANES((real) 0);
        for (int slice = 0; slice < step->slices; slice++)
            sum += *lanesAt(arena, partialRow+partialSum(step, slice, o, quad), chunk);
        finishOutput(product, output, chunk, sum, step->activation, weights, arena, kept);
    }
}
