// SPDX-License-Identifier: MIT
// Layers of single coordinates, marginals and elementwise ones, and the base density.

static DEVICE inline MarginalValue marginalOf(int map, Constants p, mixed x) {
    if (map == FLOW_MAP_AFFINE)
        return uniformMarginal(x, p[0], p[1], p[2]);
    if (map == FLOW_MAP_LOGIT)
        return logitMap(x);
    if (map == FLOW_MAP_LOGISTIC)
        return logisticMap(x);
    if (map == FLOW_MAP_CIRCULAR_SHIFT)
        return circularShiftMap(x, p[0]);
    return normalMarginal(x, p[0], p[1], p[2], p[3], p[4]);
}

static DEVICE void marginal(Layout layout, Stage stage, Indices indices, Constants constants,
        MixedArena arena) {
    FOR_EACH(stage->count) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        int row = layout->coordinateRow+indices[stage->coordinateIndex+i];
        MarginalValue m = marginalOf(stage->map, constants+stage->parameterConstant+5*i, AT(arena, row));
        AT(arena, row) = m.value;
        AT(arena, stage->termRow+i) = m.logDensity;
        AT(arena, stage->densityRow+i) = exp(m.logDensity);
        AT(arena, stage->slopeRow+i) = m.dLogDensity;
    }
}

static DEVICE void marginalBackward(Layout layout, Stage stage, Indices indices, MixedArena arena) {
    FOR_EACH(stage->count) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        int row = layout->gradientRow+indices[stage->coordinateIndex+i];
        AT(arena, row) = AT(arena, row)*AT(arena, stage->densityRow+i)+AT(arena, stage->slopeRow+i);
    }
}

// ln p of the latents, and the gradient that the way back begins with.
static DEVICE void baseDensity(Layout layout, Indices indices, Constants constants, MixedArena arena) {
    FOR_EACH(layout->numCoordinates) {
        int coordinate = ITEM_ROW, t = ITEM_MOLECULE, i = indices[layout->baseIndex+coordinate];
        mixed gradient = 0;
        if (i >= 0) {
            MarginalValue m = marginalOf(FLOW_MAP_NORMAL, constants+layout->baseConstant+5*i,
                    AT(arena, layout->coordinateRow+coordinate));
            AT(arena, layout->baseTermRow+i) = m.logDensity;
            gradient = m.dLogDensity;
        }
        AT(arena, layout->gradientRow+coordinate) = gradient;
    }
}
