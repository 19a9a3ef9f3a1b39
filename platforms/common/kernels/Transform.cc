// SPDX-License-Identifier: MIT
// Couplings with the transformers of flow/formulas/Transformers.h. A work-item owns a coordinate; its parameters lie where the networks
// left the raw ones.

static DEVICE inline TransformerSettings transformerSettings(Stage stage, Constants constants) {
    Constants values = constants+stage->headConstant;
    TransformerSettings s;
#ifdef TRANSFORMER_TYPE
    s.type = TRANSFORMER_TYPE;
#else
    s.type = stage->transformerType;
#endif
    s.size = stage->transformerSize;
    s.setting0 = (real) values[0];
    s.setting1 = (real) values[1];
    s.setting2 = (real) values[2];
    s.setting3 = (real) values[3];
    return s;
}

// The parameters of coordinate d in rows that begin at `firstRow`, or their gradient.
static DEVICE inline Parameters transformerParameters(Stage stage, Indices indices, RealArena arena, int firstRow, int d,
        int t) {
    Parameters p;
    if (d < stage->numIntervals) {
        p.values = arena+(firstRow+d)*TILE+t;
        p.offsets = indices+stage->otherOffsetIndex;
    }
    else {
        p.values = arena+(firstRow+d-stage->numIntervals)*TILE+t;
        p.offsets = indices+stage->circleOffsetIndex;
    }
    return p;
}

static DEVICE Root solveTransformer(TransformerSettings s, bool circular, real y, Parameters p) {
    Root root = beginRoot(y);
    for (int step = 0; step < MOST_ROOT_STEPS && !root.found; step++) {
        TransformerValue value = transformerValue(s, circular, root.x, p);
        stepRoot(&root, value.value-y, value.d1);
    }
    return root;
}

static DEVICE void transform(Layout layout, Stage stage, Indices indices, Constants constants,
        MixedArena arena, RealArena realArena, int firstMolecule, int numMolecules, GLOBAL mm_ulong* counters) {
    const TransformerSettings s = transformerSettings(stage, constants);
    FOR_EACH(stage->numIntervals+stage->numCircles) {
        int d = ITEM_ROW, t = ITEM_MOLECULE;
        bool circular = (d >= stage->numIntervals);
        Parameters p = transformerParameters(stage, indices, realArena, stage->rawRow, d, t);
        transformerHead(s, circular, p);
        real input = AT(realArena, stage->argumentRow+d), x = (circular ? input-floor(input) : input);
        if (stage->inverse && transformerHasInverse(s))
            x = transformerInverse(s, circular, x, p);
        else if (stage->inverse) {
            Root root = solveTransformer(s, circular, x, p);
            if (!root.found && firstMolecule+t < numMolecules)
                ATOMIC_ADD(&counters[FLOW_ROOTS_MISSED], (mm_ulong) 1);
            x = root.x;
        }
        TransformerValue v = transformerValue(s, circular, x, p);
        AT(realArena, stage->argumentRow+d) = x;
        AT(realArena, stage->mixtureSlopeRow+d) = v.d1;
        AT(realArena, stage->curvatureRow+d) = v.d2;
        mixed logSlope = log(v.d1);
        AT(arena, stage->termRow+d) = (stage->inverse ? -logSlope : logSlope);
        real y = (stage->inverse ? x : v.value);
        if (circular)
            y = y-floor(y);
        else if (!stage->onRealLine) {
            // Rounding may leave [0,1].
            y = (y > (real) 1 && y <= (real) 1+(real) 16*REAL_EPSILON ? (real) 1 : y);
            y = (y < (real) 0 && y >= (real) -16*REAL_EPSILON ? (real) 0 : y);
        }
        AT(arena, layout->coordinateRow+indices[stage->transformedIndex+d]) = y;
    }
}

static DEVICE void transformBackward(Layout layout, Stage stage, Indices indices, Constants constants,
        MixedArena arena, RealArena realArena) {
    const TransformerSettings s = transformerSettings(stage, constants);
    FOR_EACH(stage->numIntervals+stage->numCircles) {
        int d = ITEM_ROW, t = ITEM_MOLECULE, row = layout->gradientRow+indices[stage->transformedIndex+d];
        real yGradient = (real) AT(arena, row), d1 = AT(realArena, stage->mixtureSlopeRow+d), d2 = AT(realArena, stage->curvatureRow+d);
        // As in `components`.
        real vF = yGradient, vD = (real) 1/d1, xGradient = yGradient*d1+d2*vD;
        if (stage->inverse) {
            xGradient = (yGradient-d2*vD)*vD;
            vF = -xGradient;
            vD = -vD;
        }
        AT(arena, row) = xGradient;
        transformerGradient(s, d >= stage->numIntervals, AT(realArena, stage->argumentRow+d), vF, vD,
                transformerParameters(stage, indices, realArena, stage->rawRow, d, t),
                transformerParameters(stage, indices, realArena, stage->rawGradientRow, d, t));
    }
}
