// SPDX-License-Identifier: MIT
// A block of particles in Cartesian coordinates, centred and turned onto its reference if it is aligned, and whitened: docs/theory.md,
// "Mixed coordinates". The same as measureBlock, continueBlock and leaveBlock of flow/engine/GeometryKernels.h.

static DEVICE inline Vector constantVector(Constants values) {
    Vector v;
    v.x = values[0];
    v.y = values[1];
    v.z = values[2];
    return v;
}

static DEVICE inline int firstRangeOfBlock(Layout layout) {
    return layout->numBonds+layout->numAngles+layout->numTorsions;
}

static DEVICE inline int rangeOfAlignment(Layout layout) {
    return layout->numRanges-1;
}

static DEVICE inline Matrix3 rotationAt(Layout layout, MixedArena arena, int t) {
    const int row = layout->rotationRow;
    Matrix3 m;
    m.xx = AT(arena, row);
    m.xy = AT(arena, row+1);
    m.xz = AT(arena, row+2);
    m.yx = AT(arena, row+3);
    m.yy = AT(arena, row+4);
    m.yz = AT(arena, row+5);
    m.zx = AT(arena, row+6);
    m.zy = AT(arena, row+7);
    m.zz = AT(arena, row+8);
    return m;
}

static DEVICE inline SymmetricMatrix3 inverseAt(Layout layout, MixedArena arena, int t) {
    const int row = layout->rotationRow+9;
    SymmetricMatrix3 m;
    m.xx = AT(arena, row);
    m.xy = AT(arena, row+1);
    m.xz = AT(arena, row+2);
    m.yy = AT(arena, row+3);
    m.yz = AT(arena, row+4);
    m.zz = AT(arena, row+5);
    return m;
}

static DEVICE inline void setAlignment(Layout layout, MixedArena arena, int t, Alignment a) {
    const int row = layout->rotationRow;
    AT(arena, row) = a.rotation.xx;
    AT(arena, row+1) = a.rotation.xy;
    AT(arena, row+2) = a.rotation.xz;
    AT(arena, row+3) = a.rotation.yx;
    AT(arena, row+4) = a.rotation.yy;
    AT(arena, row+5) = a.rotation.yz;
    AT(arena, row+6) = a.rotation.zx;
    AT(arena, row+7) = a.rotation.zy;
    AT(arena, row+8) = a.rotation.zz;
    AT(arena, row+9) = a.inverse.xx;
    AT(arena, row+10) = a.inverse.xy;
    AT(arena, row+11) = a.inverse.xz;
    AT(arena, row+12) = a.inverse.yy;
    AT(arena, row+13) = a.inverse.yz;
    AT(arena, row+14) = a.inverse.zz;
}

// The block as it is whitened, with the volume element and the continuation of its alignment. One work-item for each molecule: the
// eigenvector takes a fixed number of steps, one after the other.
static DEVICE void alignBlock(Layout layout, Indices indices, Constants constants, MixedArena arena) {
    const int B = layout->numBlock;
    Indices block = indices+layout->blockIndex;
    Constants reference = constants+layout->referenceConstant;
    const mixed one = 1, zero = 0;
    FOR_EACH(1) {
        int t = ITEM_MOLECULE;
        if (!layout->blockIsAligned) {
            Vector origin = vectorAt(arena, layout->originRow, t);
            for (int i = 0; i < B; i++)
                setVector(arena, layout->alignedRow+3*i, t, vectorCombination(one, origin, one, positionOf(layout, arena, block[i], t)));
            continue;
        }
        Vector mean = {zero, zero, zero};
        for (int i = 0; i < B; i++)
            mean = vectorCombination(one, mean, one/B, positionOf(layout, arena, block[i], t));
        Matrix3 h = {zero, zero, zero, zero, zero, zero, zero, zero, zero};
        for (int i = 0; i < B; i++)
            h = matrixAddProduct(h, vectorDifference(positionOf(layout, arena, block[i], t), mean), constantVector(reference+3*i));
        Alignment best = alignment(h);
        mixed squares = 0;
        for (int i = 0; i < B; i++) {
            Vector a = matrixTimesVector(best.rotation, vectorDifference(positionOf(layout, arena, block[i], t), mean));
            setVector(arena, layout->alignedRow+3*i, t, a);
            squares += vectorDot(a, a);
        }
        setAlignment(layout, arena, t, best);
        const int i = rangeOfAlignment(layout);
        Range range = rangeOf(layout, constants, i);
        mixed ratio = best.determinant*constants[layout->inverseReferenceDeterminantConstant], radius = SQRT(squares/B);
        Continued chi = chiOfLength(ratio, range->chiLow0, range->inverseChiLow);
        Continued w = wallOf(radius, range);
        AT(arena, layout->determinantRatioRow) = ratio;
        AT(arena, layout->radiusFactorRow) = w.d1/(B*(radius > 0 ? radius : one));
        AT(arena, layout->chiRow+i) = chi.value;
        AT(arena, layout->wallRow+i) = w.value;
        AT(arena, layout->outsideRow+i) = (ratio >= range->lower ? zero : one);
        AT(arena, layout->termRow+layout->numBonds+layout->numAngles) = (chi.value > 0 ? -LOG(best.determinant) : zero);
    }
}

// What the walls of the block's coordinates are multiplied with: where the alignment loses its meaning they do, too.
static DEVICE inline mixed chiOfAlignment(Layout layout, MixedArena arena, int t) {
    return layout->blockIsAligned ? AT(arena, layout->chiRow+rangeOfAlignment(layout)) : (mixed) 1;
}

// The block's coordinates, with the continuation of each.
static DEVICE void whitenBlock(Layout layout, Constants constants, MixedArena arena) {
    const int B = layout->numBlock, first = firstRangeOfBlock(layout);
    FOR_EACH(layout->blockDimensions) {
        int d = ITEM_ROW, t = ITEM_MOLECULE;
        Constants reference = constants+layout->referenceConstant, whitening = constants+layout->whiteningConstant+3*B*d;
        mixed x = 0;
        for (int i = 0; i < B; i++)
            x += vectorDot(constantVector(whitening+3*i),
                    vectorDifference(vectorAt(arena, layout->alignedRow+3*i, t), constantVector(reference+3*i)));
        Range range = rangeOf(layout, constants, first+d);
        AT(arena, layout->whitenedRow+d) = x;
        AT(arena, layout->coordinateRow+first+d) = saturate(x, range->lower, range->upper, range->margin).value;
        AT(arena, layout->chiRow+first+d) = 1;
        AT(arena, layout->wallRow+first+d) = chiOfAlignment(layout, arena, t)*wallOf(x, range).value;
        AT(arena, layout->outsideRow+first+d) = (x >= range->lower && x <= range->upper ? (mixed) 0 : (mixed) 1);
    }
}

// The gradient of lambda*flow + wall with respect to the block's coordinates, in the place of that of ln p.
static DEVICE void whitenBlockBackward(Layout layout, Constants constants, MixedArena arena, mixed lambda) {
    const int first = firstRangeOfBlock(layout);
    FOR_EACH(layout->blockDimensions) {
        int d = ITEM_ROW, t = ITEM_MOLECULE;
        Range range = rangeOf(layout, constants, first+d);
        mixed x = AT(arena, layout->whitenedRow+d), chi = AT(arena, layout->totalRow);
        Continued w = wallOf(x, range);
        mixed gradient = chiOfAlignment(layout, arena, t)*w.d1;
        // Where chi is 0, so are all its derivatives, exactly.
        if (chi > 0)
            gradient -= lambda*chi*saturate(x, range->lower, range->upper, range->margin).d1*AT(arena, layout->gradientRow+first+d);
        AT(arena, layout->gradientRow+first+d) = gradient;
        AT(arena, layout->whitenedRow+d) = w.value;
    }
}

// The same with respect to the block as it is whitened.
static DEVICE void blockGradient(Layout layout, Constants constants, MixedArena arena, mixed lambda) {
    const int B = layout->numBlock, D = layout->blockDimensions, first = firstRangeOfBlock(layout);
    FOR_EACH(B) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        Vector gradient = {(mixed) 0, (mixed) 0, (mixed) 0};
        mixed walls = 0;
        for (int d = 0; d < D; d++) {
            gradient = vectorCombination((mixed) 1, gradient, AT(arena, layout->gradientRow+first+d),
                    constantVector(constants+layout->whiteningConstant+3*(B*d+i)));
            walls += AT(arena, layout->whitenedRow+d);
        }
        if (layout->blockIsAligned) {
            Range range = rangeOf(layout, constants, rangeOfAlignment(layout));
            mixed chi = AT(arena, layout->totalRow), logProb = AT(arena, layout->totalRow+3), ratio = AT(arena, layout->determinantRatioRow);
            Continued c = chiOfLength(ratio, range->chiLow0, range->inverseChiLow);
            // With respect to ln det A, of which ln p has -1.
            mixed factor = c.d1*walls*ratio;
            if (chi > 0)
                factor += lambda*chi*((mixed) 1-(logProb+constants[layout->ceilingConstant])*c.d1/c.value*ratio);
            SymmetricMatrix3 volume = symmetricScaled(factor, traceMinus(inverseAt(layout, arena, t)));
            gradient = vectorCombination((mixed) 1, gradient, (mixed) 1,
                    symmetricTimesVector(volume, constantVector(constants+layout->referenceConstant+3*i)));
            gradient = vectorCombination((mixed) 1, gradient, AT(arena, layout->radiusFactorRow), vectorAt(arena, layout->alignedRow+3*i, t));
        }
        setVector(arena, layout->blockGradientRow+3*i, t, gradient);
    }
}

// How the rotation answers to that gradient.
static DEVICE void blockTurn(Layout layout, MixedArena arena) {
    FOR_EACH(1) {
        int t = ITEM_MOLECULE;
        Vector torque = {(mixed) 0, (mixed) 0, (mixed) 0};
        for (int i = 0; i < layout->numBlock; i++)
            torque = vectorCombination((mixed) 1, torque, (mixed) 1,
                    vectorCross(vectorAt(arena, layout->alignedRow+3*i, t), vectorAt(arena, layout->blockGradientRow+3*i, t)));
        setVector(arena, layout->turnRow, t, symmetricTimesVector(inverseAt(layout, arena, t), torque));
    }
}

static DEVICE void addBlockForces(Layout layout, Indices indices, Constants constants, MixedArena arena,
        GLOBAL const int* atoms, int firstMolecule, int numMolecules, int paddedNumAtoms,
        GLOBAL mm_ulong* forceBuffers) {
    FOR_EACH(layout->numBlock) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        if (firstMolecule+t >= numMolecules)
            continue;
        Vector gradient = vectorAt(arena, layout->blockGradientRow+3*i, t);
        if (layout->blockIsAligned) {
            Vector turn = vectorCross(constantVector(constants+layout->referenceConstant+3*i), vectorAt(arena, layout->turnRow, t));
            gradient = transposedTimesVector(rotationAt(layout, arena, t), vectorCombination((mixed) 1, gradient, (mixed) 1, turn));
        }
        addForce(forceBuffers, paddedNumAtoms, atoms[(firstMolecule+t)*layout->numParticles+indices[layout->blockIndex+i]],
                -constants[layout->thermalEnergyConstant], gradient);
    }
}
