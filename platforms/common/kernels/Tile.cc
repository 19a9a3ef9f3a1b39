// SPDX-License-Identifier: MIT
#undef real

// Where the arenas lie, and what FlowPlan.h describes: in local memory if they fit there. What couplings keep for the way back may be left out.
#ifdef ARENAS_ARE_LOCAL
#define ARENA LOCAL_ARG
#else
#define ARENA GLOBAL
#endif
#ifdef KEPT_IS_GLOBAL
#define KEPT GLOBAL
#else
#define KEPT ARENA
#endif
#ifdef TABLES_ARE_LOCAL
#define TABLE LOCAL_ARG
#else
#define TABLE GLOBAL
#endif

#if TILE%LANES != 0
#error "a tile is not a number of chunks"
#endif
#if defined(KEPT_IS_GLOBAL) && !defined(ARENAS_ARE_LOCAL)
#error "what is kept has an arena of its own only where the others are in local memory"
#endif

// What a work-item multiplies a weight with at once, a chunk of a row of an arena.
#if LANES == 1
typedef real Lanes;
#define TO_LANES(x) (x)
#else
typedef real4 Lanes;
#define TO_LANES(x) make_real4(x)
#endif
#define CHUNKS (TILE/LANES)

// Work-items of a warp read each other's numbers: all of them, at the same place of the program. FROM_FIRST is of each `number`, a power of two.
#ifdef SUMS_IN_WARPS
#define WHOLE_WARPS(numItems) (((numItems)+SUMS_IN_WARPS-1)/SUMS_IN_WARPS*SUMS_IN_WARPS)
#ifdef USE_HIP
#define FROM_NEIGHBOUR(value, bits) __shfl_xor(value, bits)
#define FROM_BEFORE(value, distance) __shfl_up(value, distance)
#define FROM_AFTER(value, distance) __shfl_down(value, distance)
#define FROM_FIRST(value, number) __shfl(value, 0, number)
#else
#define FROM_NEIGHBOUR(value, bits) __shfl_xor_sync(0xffffffff, value, bits)
#define FROM_BEFORE(value, distance) __shfl_up_sync(0xffffffff, value, distance)
#define FROM_AFTER(value, distance) __shfl_down_sync(0xffffffff, value, distance)
#define FROM_FIRST(value, number) __shfl_sync(0xffffffff, value, 0, number)
#endif
#endif

// Which group of its cluster this is, and whether it does what is done once for a cluster.
#define RANK (GROUP_ID%CLUSTER)
#define IS_FIRST_OF_CLUSTER (RANK == 0)

typedef TABLE const FlowLayout* Layout;
typedef TABLE const FlowStage* Stage;
typedef TABLE const FlowStep* Step;
typedef TABLE const FlowProduct* Product;
typedef TABLE const FlowRound* Rounds;
typedef TABLE const FlowRange* Range;
typedef TABLE const int* Indices;
typedef TABLE const mixed* Constants;
typedef GLOBAL const real* Weights;
typedef GLOBAL const int4* Quads;    // a FlowQuad is two of them
typedef ARENA mixed* MixedArena;
typedef ARENA real* RealArena;
typedef KEPT real* KeptArena;

// Each work-item of a group takes its share of (rows, TILE): `row` and `t` are which row and which molecule of the tile.
#define FOR_EACH(numRows) for (int item_ = LOCAL_ID; item_ < (numRows)*TILE; item_ += LOCAL_SIZE)
#define ITEM_ROW (item_/TILE)
#define ITEM_MOLECULE (item_%TILE)
// So many rows as rows of one kind take, where rows of another kind follow: of one molecule, whole warps, which then do only one kind of work.
#if TILE == 1
#define ROWS_OF_A_KIND(numRows) (((numRows)+31)/32*32)
#else
#define ROWS_OF_A_KIND(numRows) (numRows)
#endif
// One molecule's number of a row.
#define AT(arena, row) (arena)[(row)*TILE+t]
