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

// Of a bond, an angle or the angle jkl of a torsion, which have numbers in this order: its factor and term of the continuation.
static DEVICE inline void setContinuation(Layout layout, MixedArena arena, int i, int t, mixed chi, mixed wallValue, bool inside) {
    AT(arena, layout->chiRow+i) = chi;
    AT(arena, layout->wallRow+i) = wallValue;
    AT(arena, layout->outsideRow+i) = (inside ? (mixed) 0 : (mixed) 1);
}

static DEVICE inline void setBond(Layout layout, Indices indices, Constants constants, MixedArena arena, int i, int t) {
    Range range = rangeOf(layout, constants, i);
    mixed b = bondOf(layout, indices, arena, i, t).length;
    Continued s = saturate(b, range->lower, range->upper, range->margin);
    AT(arena, layout->coordinateRow+i) = s.value;
    AT(arena, layout->termRow+i) = -range->volumePower*log(s.value);
    setContinuation(layout, arena, i, t, chiOfLength(b, range->chiLow0, range->inverseChiLow).value, wallOf(b, range).value,
            b >= range->lower && b <= range->upper);
}

static DEVICE inline void setAngle(Layout layout, Indices indices, Constants constants, MixedArena arena, int j, int t) {
    const int i = layout->numBonds+j;
    Range range = rangeOf(layout, constants, i);
    Angle angle = angleOf(layout, arena, indices+layout->angleIndex+3*j, t);
    mixed theta = atan2(angle.sine, angle.cosine);
    Continued s = saturate(theta, range->lower, range->upper, range->margin);
    AT(arena, layout->coordinateRow+i) = s.value*(mixed) (1/PI);
    AT(arena, layout->termRow+i) = -range->volumePower*log(sin(s.value));
    setContinuation(layout, arena, i, t, chiOf(angle.cosine, range).value, wallOf(angle.cosine, range).value,
            theta >= range->lower && theta <= range->upper);
}

static DEVICE inline void setTorsionAngle(Layout layout, Indices indices, Constants constants, MixedArena arena, int j, int t) {
    const int i = layout->numBonds+layout->numAngles+j;
    Range range = rangeOf(layout, constants, i);
    mixed cosine = angleOf(layout, arena, indices+layout->torsionIndex+4*j+1, t).cosine;
    setContinuation(layout, arena, i, t, chiOf(cosine, range).value, wallOf(cosine, range).value,
            cosine >= range->wallLower && cosine <= range->wallUpper);
}

// Bonds and angles as coordinates of the flow, with their part of ln p, and all factors and terms of the continuation.
static DEVICE void bondsAndAngles(Layout layout, Indices indices, Constants constants, MixedArena arena) {
    const int numBonds = layout->numBonds, numAngles = layout->numAngles, numTorsions = layout->numTorsions;
    const int firstAngle = ROWS_OF_A_KIND(numBonds), firstTorsion = firstAngle+ROWS_OF_A_KIND(numAngles);
    FOR_EACH(firstTorsion+numTorsions) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        if (i < firstAngle) {
            if (i < numBonds)
                setBond(layout, indices, constants, arena, i, t);
        }
        else if (i < firstTorsion) {
            if (i-firstAngle < numAngles)
                setAngle(layout, indices, constants, arena, i-firstAngle, t);
        }
        else
            setTorsionAngle(layout, indices, constants, arena, i-firstTorsion, t);
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

// What the forces of a molecule come from: the gradient of lambda*flow + wall, in which `gradientRow` has that of ln p without the volume element.
typedef struct {
    GLOBAL mm_ulong* buffers;
    GLOBAL const int* molecule;
    int paddedNumAtoms;
    mixed thermalEnergy;
    mixed flowFactor;       // of ln p
    mixed chiFactor;        // of the logarithm of chi
    bool flow;              // where chi is 0, so are all its derivatives, exactly
} FlowForces;

static DEVICE inline mixed chiFactorOf(Layout layout, MixedArena arena, FlowForces forces, int i, int t) {
    return forces.flow ? forces.chiFactor/AT(arena, layout->chiRow+i) : (mixed) 0;
}

static DEVICE inline void addBondForces(Layout layout, Indices indices, Constants constants, MixedArena arena, FlowForces forces, int i, int t) {
    Range range = rangeOf(layout, constants, i);
    Bond bond = bondOf(layout, indices, arena, i, t);
    mixed b = bond.length;
    mixed g = wallOf(b, range).d1;
    if (forces.flow) {
        Continued s = saturate(b, range->lower, range->upper, range->margin);
        g += forces.flowFactor*s.d1*(AT(arena, layout->gradientRow+i)-range->volumePower/s.value)
                +chiFactorOf(layout, arena, forces, i, t)*chiOfLength(b, range->chiLow0, range->inverseChiLow).d1;
    }
    Indices ij = indices+layout->bondIndex+2*i;
    addForce(forces.buffers, forces.paddedNumAtoms, forces.molecule[ij[0]], -forces.thermalEnergy*g, bond.dI);
    addForce(forces.buffers, forces.paddedNumAtoms, forces.molecule[ij[1]], forces.thermalEnergy*g, bond.dI);
}

// Of an angle, or of the angle jkl of a torsion, which is no coordinate of the flow; g is with respect to the cosine: d angle = -d cosine/sine.
static DEVICE inline void addAngleForces(Layout layout, Indices indices, Constants constants, MixedArena arena, FlowForces forces, int j, int t) {
    const int i = layout->numBonds+j;
    const bool isCoordinate = (j < layout->numAngles);
    Range range = rangeOf(layout, constants, i);
    Indices ijk = indices+(isCoordinate ? layout->angleIndex+3*j : layout->torsionIndex+4*(j-layout->numAngles)+1);
    Angle angle = angleOf(layout, arena, ijk, t);
    mixed g = wallOf(angle.cosine, range).d1;
    if (forces.flow) {
        g += chiFactorOf(layout, arena, forces, i, t)*chiOf(angle.cosine, range).d1;
        if (isCoordinate) {
            mixed theta = atan2(angle.sine, angle.cosine);
            Continued s = saturate(theta, range->lower, range->upper, range->margin);
            if (s.d1 != 0)
                g -= forces.flowFactor*s.d1*(AT(arena, layout->gradientRow+i)*(mixed) (1/PI)
                        -range->volumePower*cos(s.value)/sin(s.value))/angle.sine;
        }
    }
    if (g != 0)
        addAngleForce(forces.buffers, forces.paddedNumAtoms, forces.molecule, ijk, -forces.thermalEnergy*g, angle);
}

static DEVICE inline void addTorsionForces(Layout layout, Indices indices, MixedArena arena, FlowForces forces, int j, int t) {
    if (!forces.flow)
        return;
    Indices ijkl = indices+layout->torsionIndex+4*j;
    Torsion phi = torsionOf(layout, indices, arena, j, t);
    mixed f = -forces.thermalEnergy*forces.flowFactor*AT(arena, layout->gradientRow+layout->numBonds+layout->numAngles+j)*(mixed) (0.5/PI);
    addForce(forces.buffers, forces.paddedNumAtoms, forces.molecule[ijkl[0]], f, phi.dI);
    addForce(forces.buffers, forces.paddedNumAtoms, forces.molecule[ijkl[1]], f, phi.dJ);
    addForce(forces.buffers, forces.paddedNumAtoms, forces.molecule[ijkl[2]], f, phi.dK);
    addForce(forces.buffers, forces.paddedNumAtoms, forces.molecule[ijkl[3]], f, phi.dL);
}

static DEVICE void addForces(Layout layout, Indices indices, Constants constants, MixedArena arena, mixed lambda,
        GLOBAL const int* atoms, int firstMolecule, int numMolecules, int paddedNumAtoms,
        GLOBAL mm_ulong* forceBuffers) {
    const int numBonds = layout->numBonds, numAngles = layout->numAngles, numTorsions = layout->numTorsions;
    const int firstAngle = ROWS_OF_A_KIND(numBonds), firstTorsion = firstAngle+ROWS_OF_A_KIND(numAngles+numTorsions);
    FOR_EACH(firstTorsion+numTorsions) {
        int i = ITEM_ROW, t = ITEM_MOLECULE;
        if (firstMolecule+t >= numMolecules)
            continue;
        const mixed chi = AT(arena, layout->totalRow);
        FlowForces forces;
        forces.buffers = forceBuffers;
        forces.molecule = atoms+(firstMolecule+t)*layout->numParticles;
        forces.paddedNumAtoms = paddedNumAtoms;
        forces.thermalEnergy = constants[layout->thermalEnergyConstant];
        forces.flowFactor = -lambda*chi;
        forces.chiFactor = forces.flowFactor*(AT(arena, layout->totalRow+3)+constants[layout->ceilingConstant]);
        forces.flow = (chi > 0);
        if (i < firstAngle) {
            if (i < numBonds)
                addBondForces(layout, indices, constants, arena, forces, i, t);
        }
        else if (i < firstTorsion) {
            if (i-firstAngle < numAngles+numTorsions)
                addAngleForces(layout, indices, constants, arena, forces, i-firstAngle, t);
        }
        else
            addTorsionForces(layout, indices, arena, forces, i-firstTorsion, t);
    }
}
