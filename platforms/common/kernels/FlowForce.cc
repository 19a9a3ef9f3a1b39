// SPDX-License-Identifier: MIT

// Sums of the rows of the continuation for each molecule: chi (a product), the wall, and whether anything is outside.
static DEVICE void sumContinuation(Layout layout, MixedArena arena) {
    FOR_EACH(SUM_SLICES) {
        int slice = ITEM_ROW, t = ITEM_MOLECULE;
        mixed chi = 1, wallSum = 0, outside = 0;
        for (int row = slice; row < layout->numRanges; row += SUM_SLICES) {
            chi *= AT(arena, layout->chiRow+row);
            wallSum += AT(arena, layout->wallRow+row);
            outside += AT(arena, layout->outsideRow+row);
        }
        AT(arena, layout->scratchRow+slice) = chi;
        AT(arena, layout->scratchRow+SUM_SLICES+slice) = wallSum;
        AT(arena, layout->scratchRow+2*SUM_SLICES+slice) = outside;
    }
}

static DEVICE void finishContinuation(Layout layout, MixedArena arena) {
    FOR_EACH(3) {
        int which = ITEM_ROW, t = ITEM_MOLECULE;
        mixed total = AT(arena, layout->scratchRow+which*SUM_SLICES);
        for (int slice = 1; slice < SUM_SLICES; slice++) {
            mixed next = AT(arena, layout->scratchRow+which*SUM_SLICES+slice);
            total = (which == 0 ? total*next : total+next);
        }
        AT(arena, layout->totalRow+which) = total;
    }
}

// Sums of the terms of ln p for each molecule.
static DEVICE void sumLogProb(Layout layout, MixedArena arena) {
    FOR_EACH(SUM_SLICES) {
        int slice = ITEM_ROW, t = ITEM_MOLECULE;
        mixed sum = 0;
        for (int row = slice; row < layout->numTerms; row += SUM_SLICES)
            sum += AT(arena, layout->termRow+row);
        AT(arena, layout->scratchRow+slice) = sum;
    }
}

// ln p and the energies of each molecule.
static DEVICE void finishLogProb(Layout layout, Constants constants, MixedArena arena, mixed lambda, int firstMolecule, int numMolecules,
        GLOBAL mm_ulong* counters) {
    const mixed ceiling = constants[layout->ceilingConstant];
    FOR_EACH(1) {
        int t = ITEM_MOLECULE;
        mixed logProb = constants[layout->logConstant], chi = AT(arena, layout->totalRow);
        for (int slice = 0; slice < SUM_SLICES; slice++)
            logProb += AT(arena, layout->scratchRow+slice);
        // On the inner support chi is exactly 1, and -ln p must not be rounded at the size of the ceiling.
        mixed flow = -logProb;
        if (chi == 0)
            flow = ceiling;
        else if (chi != 1)
            flow = ceiling-chi*(logProb+ceiling);
        AT(arena, layout->totalRow+3) = logProb;
        AT(arena, layout->totalRow+4) = flow;
        AT(arena, layout->totalRow+5) = lambda*flow+AT(arena, layout->totalRow+1);
        if (AT(arena, layout->totalRow+2) > 0 && firstMolecule+t < numMolecules)
            ATOMIC_ADD(&counters[FLOW_SUPPORT_EXITS], (mm_ulong) 1);
    }
}

// The energies of a tile, by one work-item, in the order of the molecules.
static DEVICE void addEnergies(Layout layout, Constants constants, MixedArena arena, int count, GLOBAL mixed* energy, GLOBAL mixed* derivative) {
    const mixed thermalEnergy = constants[layout->thermalEnergyConstant];
    mixed energySum = 0, flowSum = 0;
    for (int t = 0; t < count; t++) {
        flowSum += AT(arena, layout->totalRow+4);
        energySum += AT(arena, layout->totalRow+5);
    }
    *energy += thermalEnergy*energySum;
    if (derivative != 0)
        *derivative += thermalEnergy*flowSum;
}

#if CLUSTER > 1
#define CLUSTERED __cluster_dims__(CLUSTER, 1, 1)
#else
#define CLUSTERED
#endif
// So that a multiprocessor has the registers for a group of a tile, or of arenas in global memory, whose addresses take more. In double precision groups
// are made smaller in place of that.
#if defined(SUMS_IN_WARPS) && (TILE > 1 || !defined(ARENAS_ARE_LOCAL)) && !defined(USE_DOUBLE_PRECISION)
#define BOUNDED __launch_bounds__(GROUP_SIZE)
#else
#define BOUNDED
#endif

/**
 * Energies and forces of all molecules: work-groups, or clusters of them, take tiles of TILE molecules and run the program for each.
 *
 * @param globalTable (NUM_TABLE_NUMBERS) a FlowLayout, and after it the lists that it tells the places of. Of the operations of the program the
 *                    first layout->numForwardOperations do for the energy
 * @param globalConstants (NUM_CONSTANTS)
 * @param quads       (number of them, 2), if sums are in warps
 * @param atoms       (numMolecules, numParticles) particles
 * @param firstMolecule, numMolecules  which of them: from the first one to one before the last number
 * @param mixedArenas, realArenas  one for each group, unless they are in local memory; then `realArenas` may have what is kept
 * @param energyBuffer  the energy, kJ/mol, is added to one number for each group,
 * @param derivatives   and its derivative with respect to lambda to number `derivative` out of numDerivatives, if that is not negative
 */
KERNEL CLUSTERED BOUNDED void computeFlowForce(GLOBAL const int4* RESTRICT globalTable, GLOBAL const mixed* RESTRICT globalConstants,
        GLOBAL const real* RESTRICT weights, GLOBAL const int4* RESTRICT quads, GLOBAL const int* RESTRICT atoms, int firstMolecule, int numMolecules,
        GLOBAL mixed* mixedArenas, GLOBAL real* realArenas, GLOBAL mm_ulong* RESTRICT counters, GLOBAL const real4* RESTRICT posq,
        GLOBAL mm_ulong* RESTRICT forceBuffers, GLOBAL mixed* energyBuffer, GLOBAL mixed* derivatives, int derivative, int numDerivatives,
        int paddedNumAtoms, mixed lambda, int includeForces, mixed4 boxA, mixed4 boxB, mixed4 boxC
#ifdef USE_MIXED_PRECISION
        , GLOBAL const real4* RESTRICT posqCorrection
#endif
        ) {
#ifdef TABLES_ARE_LOCAL
    LOCAL int4 table[NUM_TABLE_NUMBERS/4];
    LOCAL mixed constants[NUM_CONSTANTS];
    for (int i = LOCAL_ID; i < NUM_TABLE_NUMBERS/4; i += LOCAL_SIZE)
        table[i] = globalTable[i];
    for (int i = LOCAL_ID; i < NUM_CONSTANTS; i += LOCAL_SIZE)
        constants[i] = globalConstants[i];
    SYNC_THREADS
#else
    GLOBAL const int4* table = globalTable;
    Constants constants = globalConstants;
#endif
    Indices numbers = (Indices) table;
    Layout layout = (Layout) numbers;
    TABLE const FlowOperation* program = (TABLE const FlowOperation*) (numbers+layout->programTable);
    Stage stages = (Stage) (numbers+layout->stagesTable);
#ifdef SUMS_IN_WARPS
    Rounds rounds = (Rounds) (numbers+layout->roundsTable);
#else
    Step steps = (Step) (numbers+layout->stepsTable);
    Product products = (Product) (numbers+layout->productsTable);
#endif
    Indices indices = numbers+layout->indicesTable;
#ifdef ARENAS_ARE_LOCAL
    LOCAL mixed mixedArena[NUM_MIXED_ROWS*TILE];
    // A tile's rows are read as vectors.
    LOCAL real4 realVectors[NUM_REAL_ROWS*TILE/4];
    RealArena realArena = (RealArena) realVectors;
#else
    MixedArena mixedArena = mixedArenas+(mm_long) GROUP_ID*layout->numMixedRows*TILE;
    RealArena realArena = realArenas+(mm_long) GROUP_ID*layout->numRealRows*TILE;
#endif
#ifdef KEPT_IS_GLOBAL
    KeptArena kept = realArenas+(mm_long) GROUP_ID*layout->numKeptRows*TILE;
#else
    KeptArena kept = realArena;
#endif
#ifndef USE_MIXED_PRECISION
    GLOBAL const real4* posqCorrection = posq;
#endif
    const int numOperations = (includeForces ? layout->numOperations : layout->numForwardOperations);
    for (int first = firstMolecule+GROUP_ID/CLUSTER*TILE; first < numMolecules; first += NUM_GROUPS/CLUSTER*TILE) {
        const int endCounted = (IS_FIRST_OF_CLUSTER ? numMolecules : 0);
        for (int operation = 0; operation < numOperations; operation++) {
            const int index = program[operation].index;
            Stage stage = stages+index;
            switch (program[operation].code) {
                case FLOW_GATHER:
                    gatherPositions(layout, mixedArena, atoms, posq, posqCorrection, first, numMolecules);
                    break;
                case FLOW_UNWRAP:
                    unwrap(layout, indices, mixedArena, boxA, boxB, boxC);
                    break;
                case FLOW_BONDS_AND_ANGLES:
                    bondsAndAngles(layout, indices, constants, mixedArena);
                    break;
#ifdef HAS_BLOCK
                case FLOW_ALIGN:
                    alignBlock(layout, indices, constants, mixedArena);
                    break;
                case FLOW_WHITEN:
                    whitenBlock(layout, constants, mixedArena);
                    break;
#endif
                case FLOW_SUM_CONTINUATION:
                    sumContinuation(layout, mixedArena);
                    break;
                case FLOW_FINISH_CONTINUATION:
                    finishContinuation(layout, mixedArena);
                    break;
                case FLOW_TORSIONS:
                    torsions(layout, indices, mixedArena);
                    break;
                case FLOW_MARGINAL:
                    marginal(layout, stage, indices, constants, mixedArena);
                    break;
                case FLOW_FEATURES:
                    features(layout, stage, indices, mixedArena, realArena);
                    break;
#ifdef SUMS_IN_WARPS
                case FLOW_PRODUCTS_IN_WARPS:
                    multiplyInWarps(index, rounds, quads, weights, realArena, kept);
                    break;
#else
                case FLOW_PRODUCT:
                    multiply(steps+index, products, weights, layout->partialRow, realArena, kept);
                    break;
                case FLOW_SUM_SLICES:
                    sumSlices(steps+index, products, layout->partialRow, realArena, kept);
                    break;
#endif
#ifdef KEPT_IS_GLOBAL
                case FLOW_KEEP:
                    keep(stage, realArena, kept);
                    break;
                case FLOW_RECALL:
                    recall(stage, realArena, kept);
                    break;
#endif
#ifdef HAS_MIXTURE_ROOTS
                case FLOW_PARAMETERS:
                    parameters(stage, constants, realArena);
                    break;
                case FLOW_SOLVE:
                    solve(layout, stage, indices, mixedArena, realArena, first, endCounted, counters);
                    break;
#endif
#ifdef HAS_MIXTURES
                case FLOW_SOFTMAX:
                    softmax(stage, realArena);
                    break;
                case FLOW_COMPONENTS:
                case FLOW_COMPONENTS_BACKWARD:
                    components(layout, stage, indices, constants, mixedArena, realArena,
                            program[operation].code == FLOW_COMPONENTS_BACKWARD);
                    break;
                case FLOW_MIXTURE:
                    mixture(layout, stage, indices, mixedArena, realArena);
                    break;
#ifdef SUMS_IN_WARPS
                case FLOW_MIXTURE_IN_WARPS:
                    mixtureInWarps(layout, stage, indices, constants, mixedArena, realArena, kept, includeForces != 0);
                    break;
                case FLOW_MIXTURE_BACKWARD_IN_WARPS:
                    mixtureBackwardInWarps(layout, stage, indices, mixedArena, realArena, kept);
                    break;
#endif
#endif
#ifdef HAS_TRANSFORMERS
                case FLOW_TRANSFORM:
                    transform(layout, stage, indices, constants, mixedArena, realArena, first, endCounted, counters);
                    break;
                case FLOW_TRANSFORM_BACKWARD:
                    transformBackward(layout, stage, indices, constants, mixedArena, realArena);
                    break;
#endif
                case FLOW_BASE:
                    baseDensity(layout, indices, constants, mixedArena);
                    break;
                case FLOW_SUM_LOG_PROB:
                    sumLogProb(layout, mixedArena);
                    break;
                case FLOW_FINISH_LOG_PROB:
                    finishLogProb(layout, constants, mixedArena, lambda, first, endCounted, counters);
                    break;
                case FLOW_ENERGY:
                    if (IS_FIRST_OF_CLUSTER && LOCAL_ID == 0)
                        addEnergies(layout, constants, mixedArena, min(TILE, numMolecules-first), energyBuffer+GROUP_ID,
                                derivative < 0 ? (GLOBAL mixed*) 0 : derivatives+GROUP_ID*numDerivatives+derivative);
                    break;
#ifdef HAS_MIXTURES
                case FLOW_MIXTURE_BACKWARD:
                    mixtureBackward(layout, stage, indices, mixedArena, realArena);
                    break;
#endif
                case FLOW_FEATURES_BACKWARD:
                    featuresBackward(layout, stage, indices, mixedArena, realArena);
                    break;
                case FLOW_MARGINAL_BACKWARD:
                    marginalBackward(layout, stage, indices, mixedArena);
                    break;
#ifdef HAS_BLOCK
                case FLOW_WHITEN_BACKWARD:
                    whitenBlockBackward(layout, constants, mixedArena, lambda);
                    break;
                case FLOW_BLOCK_GRADIENT:
                    blockGradient(layout, constants, mixedArena, lambda);
                    break;
                case FLOW_BLOCK_TURN:
                    blockTurn(layout, mixedArena);
                    break;
                case FLOW_BLOCK_FORCES:
                    addBlockForces(layout, indices, constants, mixedArena, atoms, first, endCounted, paddedNumAtoms, forceBuffers);
                    break;
#endif
                case FLOW_FORCES:
                    addForces(layout, indices, constants, mixedArena, lambda, atoms, first, endCounted, paddedNumAtoms,
                            forceBuffers);
                    break;
            }
            SYNC_THREADS
        }
    }
}
