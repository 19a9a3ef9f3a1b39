// SPDX-License-Identifier: MIT
// The dense networks where work-items of a warp read each other's numbers, and groups of a cluster each other's memory. Some work-items side by side
// have a quad of outputs of LANES molecules, each a slice of its inputs. What is in global memory is on its way before it is the quad's turn: weights
// one round ahead, and where they are two, as a work-item that waits for the one cannot ask for the other.

#if CLUSTER > 1
#if !defined(SUMS_IN_WARPS) || !defined(ARENAS_ARE_LOCAL)
#error "groups of a cluster write into each other's local memory what warps have added up"
#endif
#define ARRIVE_AT_CLUSTER __cluster_barrier_arrive();
#define WAIT_FOR_CLUSTER __cluster_barrier_wait();
#define SYNC_CLUSTER ARRIVE_AT_CLUSTER WAIT_FOR_CLUSTER
#define ARENA_OF(arena, rank) ((RealArena) __cluster_map_shared_rank(arena, rank))
#else
#define ARRIVE_AT_CLUSTER
#define WAIT_FOR_CLUSTER
#define SYNC_CLUSTER SYNC_THREADS
#define ARENA_OF(arena, rank) (arena)
#endif

#ifdef SUMS_IN_WARPS
#define QUADS_OF_ROUND (LOCAL_SIZE/(SLICES*CHUNKS))
// Which slice a work-item has, and of which molecules.
#define SLICE (LOCAL_ID%SLICES)
#define CHUNK (LOCAL_ID/SLICES%CHUNKS)
// How many outputs of its quad it finishes, and which: those that its neighbours do not.
#if SLICES < 4
#define NUM_OWN (4/SLICES)
#else
#define NUM_OWN 1
#endif
#define OWN_OUTPUT(j) (SLICE%4+(j)*SLICES)
// Inputs whose weights and sources are on their way at once. Slices of a cluster are about that short, and a tile has no registers for more.
#if TILE == 1 && CLUSTER == 1
#define PORTION 8
#else
#define PORTION 4
#endif
// From the weights of one input of a slice to those of the next, for which there are no addresses to be computed.
#if TILE == 1
#define MATRIX_STRIDE SLICES
#else
#define MATRIX_STRIDE (QUADS_TOGETHER*SLICES)
#endif

// What is read from global memory for a quad: the first weights of this slice; what is added to its own outputs, and what they are multiplied with.
typedef struct {
    real4 portion[PORTION];
    real biases[NUM_OWN];
    Lanes factors[NUM_OWN];
} FlowQuadWeights;

// Of this work-item in a round.
static DEVICE inline FlowQuad quadOf(int round, Quads quads) {
    Quads numbers = quads+2*((round*CLUSTER+RANK)*QUADS_OF_ROUND+LOCAL_ID/(SLICES*CHUNKS));
    const int4 a = numbers[0], b = numbers[1];
    FlowQuad quad;
    quad.matrix = a.x;
    quad.inputs = a.y;
    quad.sourceRow = a.z;
    quad.targetRow = a.w;
    quad.outputs = b.x;
    quad.biasWeight = b.y;
    quad.slopeRow = b.z;
    quad.factorRow = b.w;
    return quad;
}

// A slice has inputs SLICE, SLICE+SLICES... of all; `left` is how far it is from the next of them to the last.
static DEVICE inline real4 fetchWeight(GLOBAL const real4* matrix, int left, int j) {
    real4 weight = make_real4(0);
    if (j*SLICES <= left)
        weight = matrix[j*MATRIX_STRIDE];
    return weight;
}

static DEVICE inline Lanes fetchSource(ARENA const Lanes* source, int left, int j) {
    Lanes value = TO_LANES((real) 0);
    if (j*SLICES <= left)
        value = source[j*SLICES*CHUNKS];
    return value;
}

static DEVICE inline FlowQuadWeights fetchWeights(FlowQuad quad, Weights weights, KeptArena kept) {
    FlowQuadWeights fetched;
#pragma unroll
    for (int j = 0; j < PORTION; j++)
        fetched.portion[j] = fetchWeight((GLOBAL const real4*) weights+quad.matrix+SLICE, quad.inputs-1-SLICE, j);
#pragma unroll
    for (int j = 0; j < NUM_OWN; j++) {
        const int o = OWN_OUTPUT(j);
        fetched.biases[j] = weights[quad.biasWeight+o];
        fetched.factors[j] = TO_LANES((real) 1);
        if (quad.factorRow >= 0 && o < quad.outputs)
            fetched.factors[j] = ((KEPT Lanes*) kept)[(quad.factorRow+o)*CHUNKS+CHUNK];
    }
    return fetched;
}

// Adds what is there of a portion, and asks for the next one into the same place, which from `matrix` and `source` on has inputs up to `left`.
static DEVICE inline void addPortion(Lanes sums[4], real4 portion[PORTION], Lanes sources[PORTION], GLOBAL const real4* matrix,
        ARENA const Lanes* source, int left) {
#pragma unroll
    for (int j = 0; j < PORTION; j++) {
        addProduct(sums, portion[j], sources[j]);
        portion[j] = fetchWeight(matrix, left, j);
        sources[j] = fetchSource(source, left, j);
    }
}

#if LANES == 1
#define LANES_FROM_NEIGHBOUR(value, bits) FROM_NEIGHBOUR(value, bits)
#else
#define LANES_FROM_NEIGHBOUR(value, bits) lanesFromNeighbour(value, bits)
static DEVICE inline Lanes lanesFromNeighbour(Lanes value, int bits) {
    return make_real4(FROM_NEIGHBOUR(value.x, bits), FROM_NEIGHBOUR(value.y, bits), FROM_NEIGHBOUR(value.z, bits), FROM_NEIGHBOUR(value.w, bits));
}
#endif

// Of slices side by side, which have a part of each sum: the whole sums of their own outputs, in the first places. Neighbours first take over half of
// the sums from each other, then a quarter.
static DEVICE inline void sumSlicesInWarp(Lanes sums[4]) {
#pragma unroll
    for (int bits = 1; bits < SLICES; bits <<= 1) {
        const bool isUpper = ((LOCAL_ID&bits) > 0);
        if (bits >= 4)
            sums[0] += LANES_FROM_NEIGHBOUR(sums[0], bits);
        else {
#pragma unroll
            for (int o = 0; 2*bits*o < 4; o++) {
                const Lanes lower = sums[2*o], upper = sums[2*o+1];
                sums[o] = (isUpper ? upper : lower)+LANES_FROM_NEIGHBOUR(isUpper ? lower : upper, bits);
            }
        }
    }
}

// Of a slice that finishes an output.
static DEVICE inline void keepSlopes(KeptArena kept, FlowQuad quad, int o, Lanes slopes) {
    if (SLICE < 4)
        ((KEPT Lanes*) kept)[(quad.slopeRow+o)*CHUNKS+CHUNK] = slopes;
}

// The products of networks, one after the other, from their first round on.
static DEVICE void multiplyInWarps(int index, Rounds rounds, Quads quads, Weights weights, RealArena arena, KeptArena kept) {
    const int last = index+rounds[index].numFollowing;
    // Groups of a cluster write outputs only where all of them are done with what was there. After the first product they are: none has the rows
    // of the one before as its target, and all have waited at its end.
    bool mustWait = (CLUSTER > 1);
    ARRIVE_AT_CLUSTER
    // Behind the last round is one more.
    FlowQuad quad = quadOf(index, quads), next = quadOf(index+1, quads);
    FlowQuadWeights fetched = fetchWeights(quad, weights, kept);
    for (;; index++) {
        const FlowRound round = rounds[index];
        Lanes sums[4], sources[PORTION];
        sums[0] = sums[1] = sums[2] = sums[3] = TO_LANES((real) 0);
        ARENA const Lanes* source = (ARENA const Lanes*) arena+(quad.sourceRow+SLICE)*CHUNKS+CHUNK;
        GLOBAL const real4* matrix = (GLOBAL const real4*) weights+quad.matrix+SLICE;
        int left = quad.inputs-1-SLICE;
#pragma unroll
        for (int j = 0; j < PORTION; j++)
            sources[j] = fetchSource(source, left, j);
        while (left >= PORTION*SLICES) {
            matrix += PORTION*MATRIX_STRIDE;
            source += PORTION*SLICES*CHUNKS;
            left -= PORTION*SLICES;
            // Of a whole portion there is no input to ask after.
            const int wholePortion = (PORTION-1)*SLICES;
            if (left >= wholePortion)
                addPortion(sums, fetched.portion, sources, matrix, source, wholePortion);
            else
                addPortion(sums, fetched.portion, sources, matrix, source, left);
        }
#pragma unroll
        for (int j = 0; j < PORTION; j++)
            addProduct(sums, fetched.portion[j], sources[j]);
        const FlowQuad done = quad;
        const FlowQuadWeights ofDone = fetched;
        if (index < last) {
            quad = next;
            next = quadOf(index+2, quads);
            fetched = fetchWeights(quad, weights, kept);
        }
        sumSlicesInWarp(sums);
        if (mustWait) {
            WAIT_FOR_CLUSTER
            mustWait = false;
        }
        Lanes slopes[NUM_OWN];
#pragma unroll
        for (int j = 0; j < NUM_OWN; j++) {
            const int o = OWN_OUTPUT(j);
            if (o < done.outputs && SLICE < 4*CLUSTER) {
                Lanes output = sums[j]+TO_LANES(ofDone.biases[j]);
                if (done.slopeRow >= 0) {
                    output = activateLanes(round.activation, output, &slopes[j]);
                    if (CLUSTER == 1)
                        keepSlopes(kept, done, o, slopes[j]);
                }
                else
                    output *= ofDone.factors[j];
                // Slices share out the groups that the output goes to.
                for (int rank = SLICE/4; rank < CLUSTER; rank += (SLICES+3)/4)
                    ((ARENA Lanes*) ARENA_OF(arena, rank))[(done.targetRow+o)*CHUNKS+CHUNK] = output;
            }
        }
        if (index < last && round.endsStep) {
            SYNC_CLUSTER
        }
        // Not before the barrier of a cluster, which waits until all that was written has arrived.
#pragma unroll
        for (int j = 0; j < NUM_OWN; j++)
            if (CLUSTER > 1 && OWN_OUTPUT(j) < done.outputs && done.slopeRow >= 0)
                keepSlopes(kept, done, OWN_OUTPUT(j), slopes[j]);
        if (index == last)
            break;
    }
#if CLUSTER > 1
    SYNC_CLUSTER
#endif
}
#endif
