// SPDX-License-Identifier: MIT
// The dense networks for one molecule, where work-items of a warp read each other's numbers, and groups of a cluster each other's memory. Some
// work-items side by side have a quad of outputs, each a slice of its inputs. Everything but the sources is on its way before it is the quad's turn:
// weights one round ahead, and where they are two, as a work-item that waits for the one cannot ask for the other.

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
// What is read from global memory for a quad: the first weights of this slice; what is added to output number slice%4, and what that is multiplied
// with.
typedef struct {
    real4 portion[PORTION];
    real bias, factor;
} FlowQuadWeights;

// Of this work-item in a round.
static DEVICE inline FlowQuad quadOf(int round, Quads quads) {
    Quads numbers = quads+2*((round*CLUSTER+RANK)*(LOCAL_SIZE/SLICES)+LOCAL_ID/SLICES);
    const int4 a = numbers[0], b = numbers[1];
    FlowQuad quad;
    quad.matrix = a.x;
    quad.inputs = a.y;
    quad.sourceRow = a.z;
    quad.targetRow = a.w;
    quad.outputs = b.x;
    quad.slopeRow = b.y;
    quad.factorRow = b.z;
    return quad;
}

// This slice's inputs have numbers slice, slice+SLICES... of all; `left` is how far it is from the first of them to the last one.
static DEVICE inline GLOBAL const real4* matrixOf(FlowQuad quad, Weights weights) {
    return (GLOBAL const real4*) weights+quad.matrix+LOCAL_ID%SLICES;
}

static DEVICE inline void fetchPortion(real4 portion[PORTION], GLOBAL const real4* matrix, int left) {
#pragma unroll
    for (int j = 0; j < PORTION; j++) {
        portion[j] = make_real4(0);
        if (j*SLICES <= left)
            portion[j] = matrix[j*SLICES];
    }
}

static DEVICE inline FlowQuadWeights fetchWeights(FlowQuad quad, Weights weights, KeptArena kept) {
    const int o = LOCAL_ID%4;
    FlowQuadWeights fetched;
    fetchPortion(fetched.portion, matrixOf(quad, weights), quad.inputs-1-LOCAL_ID%SLICES);
    fetched.bias = weights[4*(quad.matrix-1)+o];
    fetched.factor = 1;
    if (quad.factorRow >= 0 && o < quad.outputs)
        fetched.factor = kept[quad.factorRow+o];
    return fetched;
}

static DEVICE inline void addPortion(real sums[4], const real4 portion[PORTION], ARENA const real* source, int left) {
    // All sources before the first is used.
    real sources[PORTION];
#pragma unroll
    for (int j = 0; j < PORTION; j++) {
        sources[j] = 0;
        if (j*SLICES <= left)
            sources[j] = source[j*SLICES];
    }
#pragma unroll
    for (int j = 0; j < PORTION; j++)
        addProduct(sums, portion[j], sources[j]);
}

// Of slices side by side, which have a part of each sum: the whole sum number slice%4. Neighbours first take over half of the sums from each other,
// then a quarter.
static DEVICE inline real sumOfSlices(const real sums[4]) {
    const bool isOdd = (LOCAL_ID%2 > 0), isUpper = (LOCAL_ID%4 > 1);
    const real lower = (isOdd ? sums[1] : sums[0])+FROM_NEIGHBOUR(isOdd ? sums[0] : sums[1], 1);
    const real upper = (isOdd ? sums[3] : sums[2])+FROM_NEIGHBOUR(isOdd ? sums[2] : sums[3], 1);
    real sum = (isUpper ? upper : lower)+FROM_NEIGHBOUR(isUpper ? lower : upper, 2);
#pragma unroll
    for (int bits = 4; bits < SLICES; bits <<= 1)
        sum += FROM_NEIGHBOUR(sum, bits);
    return sum;
}

// The products of networks, one after the other, from their first round on.
static DEVICE void multiplyInWarps(int index, Rounds rounds, Quads quads, Weights weights, RealArena arena, KeptArena kept) {
    const int last = index+rounds[index].numFollowing, slice = LOCAL_ID%SLICES, o = LOCAL_ID%4;
    // Groups of a cluster write outputs only where all of them are done with what was there. After the first product they are: none has the rows
    // of the one before as its target, and all have waited at its end.
    bool mustWait = (CLUSTER > 1);
    ARRIVE_AT_CLUSTER
    // Behind the last round is one more.
    FlowQuad quad = quadOf(index, quads), next = quadOf(index+1, quads);
    FlowQuadWeights fetched = fetchWeights(quad, weights, kept);
    for (;; index++) {
        const FlowRound round = rounds[index];
        ARENA const real* source = arena+quad.sourceRow+slice;
        real sums[4];
        sums[0] = sums[1] = sums[2] = sums[3] = 0;
        GLOBAL const real4* matrix = matrixOf(quad, weights);
        int left = quad.inputs-1-slice;
        while (left >= PORTION*SLICES) {
            real4 portion[PORTION];
            matrix += PORTION*SLICES;
            fetchPortion(portion, matrix, left-PORTION*SLICES);
            addPortion(sums, fetched.portion, source, left);
            source += PORTION*SLICES;
            left -= PORTION*SLICES;
#pragma unroll
            for (int j = 0; j < PORTION; j++)
                fetched.portion[j] = portion[j];
        }
        addPortion(sums, fetched.portion, source, left);
        const FlowQuad done = quad;
        const real bias = fetched.bias, factor = fetched.factor;
        if (index < last) {
            quad = next;
            next = quadOf(index+2, quads);
            fetched = fetchWeights(quad, weights, kept);
        }
        real output = bias+sumOfSlices(sums);
        if (mustWait) {
            WAIT_FOR_CLUSTER
            mustWait = false;
        }
        if (o < done.outputs && slice < 4*CLUSTER) {
            if (done.slopeRow >= 0) {
                real slope;
                output = activateLanes(round.activation, output, &slope);
                if (slice < 4)
                    kept[done.slopeRow+o] = slope;
            }
            else
                output *= factor;
            // Slices share out the groups that the output goes to.
            for (int rank = slice/4; rank < CLUSTER; rank += SLICES/4)
                ARENA_OF(arena, rank)[done.targetRow+o] = output;
        }
        if (index == last)
            break;
        if (round.endsStep) {
            SYNC_CLUSTER
        }
    }
#if CLUSTER > 1
    SYNC_CLUSTER
#endif
}
#endif
