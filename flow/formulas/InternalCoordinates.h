// SPDX-License-Identifier: MIT
// Bonds, angles and torsions with their derivatives with respect to Cartesian coordinates.
// Formula text: see Formulas.h for what is allowed here.

typedef struct {
    real x, y, z;
} Vector;

FORMULA Vector vectorDifference(Vector a, Vector b) {
    Vector c;
    c.x = a.x-b.x;
    c.y = a.y-b.y;
    c.z = a.z-b.z;
    return c;
}

FORMULA Vector vectorCross(Vector a, Vector b) {
    Vector c;
    c.x = a.y*b.z-a.z*b.y;
    c.y = a.z*b.x-a.x*b.z;
    c.z = a.x*b.y-a.y*b.x;
    return c;
}

FORMULA real vectorDot(Vector a, Vector b) {
    return a.x*b.x+a.y*b.y+a.z*b.z;
}

// a*u + b*v
FORMULA Vector vectorCombination(real a, Vector u, real b, Vector v) {
    Vector c;
    c.x = a*u.x+b*v.x;
    c.y = a*u.y+b*v.y;
    c.z = a*u.z+b*v.z;
    return c;
}

typedef struct {
    real length;
    Vector dI;        // d length/d x_i = -d length/d x_j
} Bond;

FORMULA Bond bondLength(Vector i, Vector j) {
    Vector d = vectorDifference(i, j);
    Bond bond;
    bond.length = SQRT(vectorDot(d, d));
    bond.dI = vectorCombination((real) 1/bond.length, d, (real) 0, d);
    return bond;
}

// The angle at j. Its own gradient is singular where the sine vanishes, that of its cosine is not: d theta = -d cos/sin.
typedef struct {
    real cosine, sine;
    Vector dI, dK;    // of the cosine; the derivative for x_j is -dI-dK
} Angle;

FORMULA Angle bondAngle(Vector i, Vector j, Vector k) {
    Vector u = vectorDifference(i, j);
    Vector v = vectorDifference(k, j);
    Vector n = vectorCross(u, v);
    real inverseU = (real) 1/SQRT(vectorDot(u, u));
    real inverseV = (real) 1/SQRT(vectorDot(v, v));
    real inverseUV = inverseU*inverseV;
    Angle angle;
    angle.cosine = vectorDot(u, v)*inverseUV;
    angle.sine = SQRT(vectorDot(n, n))*inverseUV;
    angle.dI = vectorCombination(inverseUV, v, -angle.cosine*inverseU*inverseU, u);
    angle.dK = vectorCombination(inverseUV, u, -angle.cosine*inverseV*inverseV, v);
    return angle;
}

// The torsion i-j-k-l with the IUPAC sign, as sine and cosine each times the same positive number, for ATAN2.
// Derivatives: Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27.
typedef struct {
    real scaledSine, scaledCosine;
    Vector dI, dJ, dK, dL;    // of the torsion, radian per length
} Torsion;

FORMULA Torsion torsion(Vector i, Vector j, Vector k, Vector l) {
    Vector f = vectorDifference(i, j);
    Vector g = vectorDifference(j, k);
    Vector h = vectorDifference(l, k);
    Vector a = vectorCross(f, g);
    Vector b = vectorCross(h, g);
    real lengthG = SQRT(vectorDot(g, g));
    real inverseG = (real) 1/lengthG;
    real inverseA2 = (real) 1/vectorDot(a, a);
    real inverseB2 = (real) 1/vectorDot(b, b);
    Torsion t;
    t.scaledCosine = vectorDot(a, b);
    t.scaledSine = vectorDot(vectorCross(b, a), g)*inverseG;
    t.dI = vectorCombination(-lengthG*inverseA2, a, (real) 0, a);
    t.dL = vectorCombination(lengthG*inverseB2, b, (real) 0, b);
    real fg = vectorDot(f, g)*inverseG*inverseA2;
    real hg = vectorDot(h, g)*inverseG*inverseB2;
    Vector s = vectorCombination(fg, a, -hg, b);
    t.dJ = vectorCombination((real) -1, t.dI, (real) 1, s);
    t.dK = vectorCombination((real) -1, t.dL, (real) -1, s);
    return t;
}

FORMULA Vector vectorNormalized(Vector a) {
    return vectorCombination((real) 1/SQRT(vectorDot(a, a)), a, (real) 0, a);
}

// Where atom i lies, with bond length |ij|, the angle ijk and the torsion ijkl (IUPAC sign): the inverse of the three above.
FORMULA Vector placeAtom(Vector j, Vector k, Vector l, real length, real angle, real torsion) {
    Vector axis = vectorNormalized(vectorDifference(k, j));
    Vector normal = vectorNormalized(vectorCross(axis, vectorDifference(l, k)));
    Vector inPlane = vectorCross(normal, axis);
    real sine = SIN(angle);
    Vector across = vectorCombination(sine*COS(torsion), inPlane, -sine*SIN(torsion), normal);
    Vector step = vectorCombination(length*COS(angle), axis, length, across);
    return vectorCombination((real) 1, j, (real) 1, step);
}
