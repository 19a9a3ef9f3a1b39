// SPDX-License-Identifier: MIT
// From positions to the flow's coordinates, with the continuation outside of the inner support in between, and back to forces.
// Everything is recomputed on the way back, which is cheaper than to keep it.

static DEVICE inline Range rangeOf(Layout layout, Constants constants, int coordinate) {
    return ((Range) (constants+layout->rangeConstant))+coordinate;
}

static DEVICE inline Continued chiOf(mixed cosine, Range range) {
    return chiOfCosine(cosine, range->chiLow0, range->inverseChiLow, range->chiHigh0, range->inverseChiHigh);
}

static DEVICE inline Continued wallOf(mixed x, Range range) {
    return wall(x, range->wallLower, range->wallUpper, range->inverseWallWidth);
}

static DEVICE inline Vector vectorAt(MixedArena arena, int row, int t) {
    Vector r;
    r.x = AT(arena, row);
    r.y = AT(arena, row+1);
    r.z = AT(arena, row+2);
    return r;
}

static DEVICE inline void setVector(MixedArena arena, int row, int t, Vector r) {
    AT(arena, row) = r.x;
    AT(arena, row+1) = r.y;
    AT(arena, row+2) = r.z;
}

static DEVICE inline Vector positionOf(Layout layout, MixedArena arena, int atom, int t) {
    return vectorAt(arena, layout->positionRow+3*atom, t);
}

static DEVICE inline Vector loadPosition(GLOBAL const real4* posq, GLOBAL const real4* posqCorrection, int atom) {
    real4 p = posq[atom];
    Vector r;
    r.x = (mixed) p.x;
    r.y = (mixed) p.y;
    r.z = (mixed) p.z;
#ifdef USE_MIXED_PRECISION
    real4 correction = posqCorrection[atom];
    r.x += (mixed) correction.x;
    r.y += (mixed) correction.y;
    r.z += (mixed) correction.z;
#endif
    return r;
}

// The positions of a tile, relative to the first atom of each molecule, so that nothing is lost far from the origin.
static DEVICE void gatherPositions(Layout layout, MixedArena arena, GLOBAL const int* atoms,
        GLOBAL const real4* posq, GLOBAL const real4* posqCorrection, int firstMolecule, int numMolecules) {
    const int P = layout->numParticles;
    FOR_EACH(P) {
        int atom = ITEM_ROW, t = ITEM_MOLECULE;
        // What is missing in the last tile is filled with its last molecule.
        int molecule = min(firstMolecule+t, numMolecules-1);
        Vector origin = loadPosition(posq, posqCorrection, atoms[molecule*P]);
        setVector(arena, layout->positionRow+3*atom, t,
                vectorDifference(loadPosition(posq, posqCorrection, atoms[molecule*P+atom]), origin));
        if (atom == 0)
            setVector(arena, layout->originRow, t, origin);
    }
}

// Makes molecules whole along their bonds, as MoleculeGatherer does.
static DEVICE void unwrap(Layout layout, Indices indices, MixedArena arena, mixed4 boxA, mixed4 boxB, mixed4 boxC) {
    FOR_EACH(1) {
        int t = ITEM_MOLECULE;
        for (int bond = 0; bond < layout->numParticles-1; bond++) {
            int parent = indices[layout->treeIndex+2*bond], child = indices[layout->treeIndex+2*bond+1];
            Vector r = positionOf(layout, arena, child, t);
            Vector d = vectorDifference(r, positionOf(layout, arena, parent, t));
            // In reduced form each vector is the only one left with a component along its axis, when taken from c to a.
            mixed nc = floor(d.z/boxC.z+(mixed) 0.5);
            mixed nb = floor((d.y-nc*boxC.y)/boxB.y+(mixed) 0.5);
            mixed na = floor((d.x-nc*boxC.x-nb*boxB.x)/boxA.x+(mixed) 0.5);
            int row = layout->positionRow+3*child;
            AT(arena, row) = r.x-(nc*boxC.x+nb*boxB.x+na*boxA.x);
            AT(arena, row+1) = r.y-(nc*boxC.y+nb*boxB.y);
            AT(arena, row+2) = r.z-nc*boxC.z;
        }
    }
}

static DEVICE inline Bond bondOf(Layout layout, Indices indices, MixedArena arena, int bond, int t) {
    Indices atoms = indices+layout->bondIndex+2*bond;
    return bondLength(positionOf(layout, arena, atoms[0], t), positionOf(layout, arena, atoms[1], t));
}

static DEVICE inline Angle angleOf(Layout layout, MixedArena arena, Indices atoms, int t) {
    return bondAngle(positionOf(layout, arena, atoms[0], t), positionOf(layout, arena, atoms[1], t),
            positionOf(layout, arena, atoms[2], t));
}

static DEVICE inline Torsion torsionOf(Layout layout, Indices indices, MixedArena arena, int i, int t) {
    Indices atoms = indices+layout->torsionIndex+4*i;
    return torsion(positionOf(layout, arena, atoms[0], t), positionOf(layout, arena, atoms[1], t),
            positionOf(layout, arena, atoms[2], t), positionOf(layout, arena, atoms[3], t));
}

// Bonds and angles as coordinates of the flow, with their part of ln p, and all factors and terms of the continuation.
static DEVICE void bondsAndAngles(Layout layout, Indices indices, Constants constants, MixedArena arena) {
    const int numBonds = layout->numBonds, numAngles = layout->numAngles;
    FOR_EACH(numBonds+numAngles+layout->numTorsions) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        Range range = rangeOf(layout, constants, i);
        Continued chi;
        mixed wallValue = 0;
        bool inside;
        if (i < numBonds) {
            mixed b = bondOf(layout, indices, arena, i, t).length;
            Continued s = saturate(b, range->lower, range->upper, range->margin);
            inside = (b >= range->lower && b <= range->upper);
            chi = chiOfLength(b, range->chiLow0, range->inverseChiLow);
            wallValue = wallOf(b, range).value;
            AT(arena, layout->coordinateRow+i) = s.value;
            AT(arena, layout->termRow+i) = -range->volumePower*log(s.value);
        }
        else if (i < numBonds+numAngles) {
            Angle angle = angleOf(layout, arena, indices+layout->angleIndex+3*(i-numBonds), t);
            mixed theta = atan2(angle.sine, angle.cosine);
            Continued s = saturate(theta, range->lower, range->upper, range->margin);
            inside = (theta >= range->lower && theta <= range->upper);
            chi = chiOf(angle.cosine, range);
            wallValue = wallOf(angle.cosine, range).value;
            AT(arena, layout->coordinateRow+i) = s.value*(mixed) (1/PI);
            AT(arena, layout->termRow+i) = -range->volumePower*log(sin(s.value));
        }
        else {
            Angle angle = angleOf(layout, arena, indices+layout->torsionIndex+4*(i-numBonds-numAngles)+1, t);
            inside = (angle.cosine >= range->wallLower && angle.cosine <= range->wallUpper);
            chi = chiOf(angle.cosine, range);
            wallValue = wallOf(angle.cosine, range).value;
        }
        AT(arena, layout->chiRow+i) = chi.value;
        AT(arena, layout->wallRow+i) = wallValue;
        AT(arena, layout->outsideRow+i) = (inside ? (mixed) 0 : (mixed) 1);
    }
}

// Torsions as coordinates of the flow. Where chi is 0 they may not exist, and nothing depends on them.
static DEVICE void torsions(Layout layout, Indices indices, MixedArena arena) {
    const int first = layout->numBonds+layout->numAngles;
    FOR_EACH(layout->numTorsions) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        mixed value = (mixed) 0.5;
        if (AT(arena, layout->totalRow) > 0) {
            Torsion phi = torsionOf(layout, indices, arena, i, t);
            value += atan2(phi.scaledSine, phi.scaledCosine)*(mixed) (0.5/PI);
        }
        AT(arena, layout->coordinateRow+first+i) = value;
    }
}

// Forces are sums of integers, so that they do not depend on the order.
static DEVICE inline void addForce(GLOBAL mm_ulong* forceBuffers, int paddedNumAtoms, int atom, mixed factor, Vector direction) {
    ATOMIC_ADD(&forceBuffers[atom], (mm_ulong) ((mm_long) (factor*direction.x*0x100000000)));
    ATOMIC_ADD(&forceBuffers[atom+paddedNumAtoms], (mm_ulong) ((mm_long) (factor*direction.y*0x100000000)));
    ATOMIC_ADD(&forceBuffers[atom+2*paddedNumAtoms], (mm_ulong) ((mm_long) (factor*direction.z*0x100000000)));
}

// The gradient of a cosine, spread over the atoms of its angle.
static DEVICE inline void addAngleForce(GLOBAL mm_ulong* forceBuffers, int paddedNumAtoms, GLOBAL const int* molecule, Indices atoms, mixed factor,
        Angle angle) {
    addForce(forceBuffers, paddedNumAtoms, molecule[atoms[0]], factor, angle.dI);
    addForce(forceBuffers, paddedNumAtoms, molecule[atoms[2]], factor, angle.dK);
    addForce(forceBuffers, paddedNumAtoms, molecule[atoms[1]], -factor, vectorCombination((mixed) 1, angle.dI, (mixed) 1, angle.dK));
}

// The gradient of lambda*flow + wall, in which `gradientRow` has that of ln p without the volume element, turned into forces.
static DEVICE void addForces(Layout layout, Indices indices, Constants constants, MixedArena arena, mixed lambda,
        GLOBAL const int* atoms, int firstMolecule, int numMolecules, int paddedNumAtoms,
        GLOBAL mm_ulong* forceBuffers) {
    const int numBonds = layout->numBonds, numAngles = layout->numAngles;
    const mixed thermalEnergy = constants[layout->thermalEnergyConstant], ceiling = constants[layout->ceilingConstant];
    FOR_EACH(numBonds+numAngles+layout->numTorsions) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        if (firstMolecule+t >= numMolecules)
            continue;
        GLOBAL const int* molecule = atoms+(firstMolecule+t)*layout->numParticles;
        Range range = rangeOf(layout, constants, i);
        mixed chi = AT(arena, layout->totalRow), logProb = AT(arena, layout->totalRow+3);
        // Where chi is 0, so are all its derivatives, exactly.
        bool flow = (chi > 0);
        mixed flowFactor = -lambda*chi, chiFactor = 0;
        if (flow)
            chiFactor = -lambda*chi*(logProb+ceiling)/AT(arena, layout->chiRow+i);
        if (i < numBonds) {
            Bond bond = bondOf(layout, indices, arena, i, t);
            mixed b = bond.length;
            mixed g = wallOf(b, range).d1;
            if (flow) {
                Continued s = saturate(b, range->lower, range->upper, range->margin);
                g += flowFactor*s.d1*(AT(arena, layout->gradientRow+i)-range->volumePower/s.value)
                        +chiFactor*chiOfLength(b, range->chiLow0, range->inverseChiLow).d1;
            }
            Indices ij = indices+layout->bondIndex+2*i;
            addForce(forceBuffers, paddedNumAtoms, molecule[ij[0]], -thermalEnergy*g, bond.dI);
            addForce(forceBuffers, paddedNumAtoms, molecule[ij[1]], thermalEnergy*g, bond.dI);
        }
        else if (i < numBonds+numAngles) {
            Indices ijk = indices+layout->angleIndex+3*(i-numBonds);
            Angle angle = angleOf(layout, arena, ijk, t);
            // of the cosine: d angle = -d cosine/sine
            mixed g = wallOf(angle.cosine, range).d1;
            if (flow) {
                mixed theta = atan2(angle.sine, angle.cosine);
                Continued s = saturate(theta, range->lower, range->upper, range->margin);
                g += chiFactor*chiOf(angle.cosine, range).d1;
                if (s.d1 != 0)
                    g -= flowFactor*s.d1*(AT(arena, layout->gradientRow+i)*(mixed) (1/PI)
                            -range->volumePower*cos(s.value)/sin(s.value))/angle.sine;
            }
            addAngleForce(forceBuffers, paddedNumAtoms, molecule, ijk, -thermalEnergy*g, angle);
        }
        else {
            Indices ijkl = indices+layout->torsionIndex+4*(i-numBonds-numAngles);
            Angle angle = angleOf(layout, arena, ijkl+1, t);
            mixed g = wallOf(angle.cosine, range).d1;
            if (flow)
                g += chiFactor*chiOf(angle.cosine, range).d1;
            if (g != 0)
                addAngleForce(forceBuffers, paddedNumAtoms, molecule, ijkl+1, -thermalEnergy*g, angle);
            if (!flow)
                continue;
            Torsion phi = torsionOf(layout, indices, arena, i-numBonds-numAngles, t);
            mixed f = -thermalEnergy*flowFactor*AT(arena, layout->gradientRow+i)*(mixed) (0.5/PI);
            addForce(forceBuffers, paddedNumAtoms, molecule[ijkl[0]], f, phi.dI);
            addForce(forceBuffers, paddedNumAtoms, molecule[ijkl[1]], f, phi.dJ);
            addForce(forceBuffers, paddedNumAtoms, molecule[ijkl[2]], f, phi.dK);
            addForce(forceBuffers, paddedNumAtoms, molecule[ijkl[3]], f, phi.dL);
        }
    }
}
