// SPDX-License-Identifier: MIT
// What the formulas of transformers, which follow, take for a list of parameters: rows of the arena, for one coordinate and molecule.

typedef struct {
    RealArena values;
    Indices offsets;        // of each parameter, in rows
} Parameters;

#define PARAMETER(list, i) (list).values[(list).offsets[i]*TILE]
