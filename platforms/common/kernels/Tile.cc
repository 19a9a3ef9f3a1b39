// SPDX-License-Identifier: MIT
#undef real

// Where the arenas lie: in local memory if a tile fits there.
#ifdef ARENAS_ARE_LOCAL
#define ARENA LOCAL_ARG
#else
#define ARENA GLOBAL
#endif

// What a work-item multiplies a weight with at once.
#if TILE == 1
typedef real Lanes;
#define LANES 1
#define TO_LANES(x) (x)
#else
typedef real4 Lanes;
#define LANES 4
#define TO_LANES(x) make_real4(x)
#endif
#define CHUNKS (TILE/LANES)

typedef GLOBAL const int* Indices;
typedef GLOBAL const mixed* Constants;
typedef GLOBAL const real* Weights;
typedef ARENA mixed* MixedArena;
typedef ARENA real* RealArena;

// Each work-item of a group takes its share of (rows, TILE): `row` and `t` are which row and which molecule of the tile.
#define FOR_EACH(numRows) for (int item_ = LOCAL_ID; item_ < (numRows)*TILE; item_ += LOCAL_SIZE)
#define ITEM_ROW (item_/TILE)
#define ITEM_MOLECULE (item_%TILE)
// One molecule's number of a row.
#define AT(arena, row) (arena)[(row)*TILE+t]
