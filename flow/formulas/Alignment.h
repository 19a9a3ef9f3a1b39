// SPDX-License-Identifier: MIT
// The rotation of a centred block of particles onto a reference, with what its derivative needs: docs/theory.md, "Mixed coordinates".
// Formula text: see Formulas.h for what is allowed here.

typedef struct {
    real xx, xy, xz, yx, yy, yz, zx, zy, zz;
} Matrix3;

typedef struct {
    real xx, xy, xz, yy, yz, zz;
} SymmetricMatrix3;

typedef struct {
    real w, x, y, z;
} Quaternion;

// Lower triangle, by rows.
typedef struct {
    real a, b, c, d, e, f, g, h, i, j;
} SymmetricMatrix4;

FORMULA Vector matrixTimesVector(Matrix3 m, Vector v) {
    Vector c;
    c.x = m.xx*v.x+m.xy*v.y+m.xz*v.z;
    c.y = m.yx*v.x+m.yy*v.y+m.yz*v.z;
    c.z = m.zx*v.x+m.zy*v.y+m.zz*v.z;
    return c;
}

FORMULA Vector transposedTimesVector(Matrix3 m, Vector v) {
    Vector c;
    c.x = m.xx*v.x+m.yx*v.y+m.zx*v.z;
    c.y = m.xy*v.x+m.yy*v.y+m.zy*v.z;
    c.z = m.xz*v.x+m.yz*v.y+m.zz*v.z;
    return c;
}

FORMULA Vector symmetricTimesVector(SymmetricMatrix3 m, Vector v) {
    Vector c;
    c.x = m.xx*v.x+m.xy*v.y+m.xz*v.z;
    c.y = m.xy*v.x+m.yy*v.y+m.yz*v.z;
    c.z = m.xz*v.x+m.yz*v.y+m.zz*v.z;
    return c;
}

FORMULA Matrix3 matrixProduct(Matrix3 m, Matrix3 n) {
    Matrix3 p;
    p.xx = m.xx*n.xx+m.xy*n.yx+m.xz*n.zx;
    p.xy = m.xx*n.xy+m.xy*n.yy+m.xz*n.zy;
    p.xz = m.xx*n.xz+m.xy*n.yz+m.xz*n.zz;
    p.yx = m.yx*n.xx+m.yy*n.yx+m.yz*n.zx;
    p.yy = m.yx*n.xy+m.yy*n.yy+m.yz*n.zy;
    p.yz = m.yx*n.xz+m.yy*n.yz+m.yz*n.zz;
    p.zx = m.zx*n.xx+m.zy*n.yx+m.zz*n.zx;
    p.zy = m.zx*n.xy+m.zy*n.yy+m.zz*n.zy;
    p.zz = m.zx*n.xz+m.zy*n.yz+m.zz*n.zz;
    return p;
}

// m + a b^T
FORMULA Matrix3 matrixAddProduct(Matrix3 m, Vector a, Vector b) {
    m.xx = m.xx+a.x*b.x;
    m.xy = m.xy+a.x*b.y;
    m.xz = m.xz+a.x*b.z;
    m.yx = m.yx+a.y*b.x;
    m.yy = m.yy+a.y*b.y;
    m.yz = m.yz+a.y*b.z;
    m.zx = m.zx+a.z*b.x;
    m.zy = m.zy+a.z*b.y;
    m.zz = m.zz+a.z*b.z;
    return m;
}

// tr(c) 1 - (c + c^T)/2
FORMULA SymmetricMatrix3 torqueMatrix(Matrix3 c) {
    SymmetricMatrix3 m;
    m.xx = c.yy+c.zz;
    m.yy = c.xx+c.zz;
    m.zz = c.xx+c.yy;
    m.xy = (real) -0.5*(c.xy+c.yx);
    m.xz = (real) -0.5*(c.xz+c.zx);
    m.yz = (real) -0.5*(c.yz+c.zy);
    return m;
}

FORMULA SymmetricMatrix3 symmetricAdjugate(SymmetricMatrix3 m) {
    SymmetricMatrix3 n;
    n.xx = m.yy*m.zz-m.yz*m.yz;
    n.xy = m.xz*m.yz-m.xy*m.zz;
    n.xz = m.xy*m.yz-m.xz*m.yy;
    n.yy = m.xx*m.zz-m.xz*m.xz;
    n.yz = m.xy*m.xz-m.xx*m.yz;
    n.zz = m.xx*m.yy-m.xy*m.xy;
    return n;
}

FORMULA SymmetricMatrix3 symmetricScaled(real factor, SymmetricMatrix3 m) {
    m.xx = factor*m.xx;
    m.xy = factor*m.xy;
    m.xz = factor*m.xz;
    m.yy = factor*m.yy;
    m.yz = factor*m.yz;
    m.zz = factor*m.zz;
    return m;
}

// tr(m) 1 - m
FORMULA SymmetricMatrix3 traceMinus(SymmetricMatrix3 m) {
    SymmetricMatrix3 n;
    n.xx = m.yy+m.zz;
    n.yy = m.xx+m.zz;
    n.zz = m.xx+m.yy;
    n.xy = -m.xy;
    n.xz = -m.xz;
    n.yz = -m.yz;
    return n;
}

FORMULA Quaternion quaternionNormalized(Quaternion q) {
    real inverse = (real) 1/SQRT(q.w*q.w+q.x*q.x+q.y*q.y+q.z*q.z);
    q.w = q.w*inverse;
    q.x = q.x*inverse;
    q.y = q.y*inverse;
    q.z = q.z*inverse;
    return q;
}

FORMULA Matrix3 rotationOf(Quaternion q) {
    Matrix3 r;
    r.xx = q.w*q.w+q.x*q.x-q.y*q.y-q.z*q.z;
    r.yy = q.w*q.w-q.x*q.x+q.y*q.y-q.z*q.z;
    r.zz = q.w*q.w-q.x*q.x-q.y*q.y+q.z*q.z;
    r.xy = (real) 2*(q.x*q.y-q.w*q.z);
    r.yx = (real) 2*(q.x*q.y+q.w*q.z);
    r.xz = (real) 2*(q.x*q.z+q.w*q.y);
    r.zx = (real) 2*(q.x*q.z-q.w*q.y);
    r.yz = (real) 2*(q.y*q.z-q.w*q.x);
    r.zy = (real) 2*(q.y*q.z+q.w*q.x);
    return r;
}

// q after a turn by the small vector d, to second order in d.
FORMULA Quaternion quaternionTurned(Quaternion q, Vector d) {
    real x = (real) 0.5*d.x, y = (real) 0.5*d.y, z = (real) 0.5*d.z;
    Quaternion p;
    p.w = q.w-x*q.x-y*q.y-z*q.z;
    p.x = q.x+x*q.w+y*q.z-z*q.y;
    p.y = q.y-x*q.z+y*q.w+z*q.x;
    p.z = q.z+x*q.y-y*q.x+z*q.w;
    return quaternionNormalized(p);
}

// m^2 over its trace.
FORMULA SymmetricMatrix4 squaredOverTrace(SymmetricMatrix4 m) {
    SymmetricMatrix4 s;
    s.a = m.a*m.a+m.b*m.b+m.d*m.d+m.g*m.g;
    s.b = m.a*m.b+m.b*m.c+m.d*m.e+m.g*m.h;
    s.c = m.b*m.b+m.c*m.c+m.e*m.e+m.h*m.h;
    s.d = m.a*m.d+m.b*m.e+m.d*m.f+m.g*m.i;
    s.e = m.b*m.d+m.c*m.e+m.e*m.f+m.h*m.i;
    s.f = m.d*m.d+m.e*m.e+m.f*m.f+m.i*m.i;
    s.g = m.a*m.g+m.b*m.h+m.d*m.i+m.g*m.j;
    s.h = m.b*m.g+m.c*m.h+m.e*m.i+m.h*m.j;
    s.i = m.d*m.g+m.e*m.h+m.f*m.i+m.i*m.j;
    s.j = m.g*m.g+m.h*m.h+m.i*m.i+m.j*m.j;
    real inverse = (real) 1/(s.a+s.c+s.f+s.j);
    s.a = s.a*inverse;
    s.b = s.b*inverse;
    s.c = s.c*inverse;
    s.d = s.d*inverse;
    s.e = s.e*inverse;
    s.f = s.f*inverse;
    s.g = s.g*inverse;
    s.h = s.h*inverse;
    s.i = s.i*inverse;
    s.j = s.j*inverse;
    return s;
}

// The eigenvector of the largest eigenvalue of Horn's matrix of h, whose elements are of order one, as far as repeated squaring
// separates it from the next.
FORMULA Quaternion hornQuaternion(Matrix3 h) {
    SymmetricMatrix4 m;
    // No eigenvalue is below -sqrt(3) |h|.
    real shift = (real) 1.7320508075688773;
    m.a = shift+h.xx+h.yy+h.zz;
    m.b = h.yz-h.zy;
    m.c = shift+h.xx-h.yy-h.zz;
    m.d = h.zx-h.xz;
    m.e = h.xy+h.yx;
    m.f = shift-h.xx+h.yy-h.zz;
    m.g = h.xy-h.yx;
    m.h = h.zx+h.xz;
    m.i = h.yz+h.zy;
    m.j = shift-h.xx-h.yy+h.zz;
    for (int step = 0; step < 14; step++)
        m = squaredOverTrace(m);
    // m = q q^T: the column with the largest element of q.
    Quaternion q;
    real largest = m.a;
    q.w = m.a;
    q.x = m.b;
    q.y = m.d;
    q.z = m.g;
    q.w = SELECT(m.c > largest, m.b, q.w);
    q.x = SELECT(m.c > largest, m.c, q.x);
    q.y = SELECT(m.c > largest, m.e, q.y);
    q.z = SELECT(m.c > largest, m.h, q.z);
    largest = SELECT(m.c > largest, m.c, largest);
    q.w = SELECT(m.f > largest, m.d, q.w);
    q.x = SELECT(m.f > largest, m.e, q.x);
    q.y = SELECT(m.f > largest, m.f, q.y);
    q.z = SELECT(m.f > largest, m.i, q.z);
    largest = SELECT(m.f > largest, m.f, largest);
    q.w = SELECT(m.j > largest, m.g, q.w);
    q.x = SELECT(m.j > largest, m.h, q.x);
    q.y = SELECT(m.j > largest, m.i, q.y);
    q.z = SELECT(m.j > largest, m.j, q.z);
    return quaternionNormalized(q);
}

typedef struct {
    Matrix3 rotation;             // R
    SymmetricMatrix3 inverse;     // A^-1, of which nothing is left where the determinant vanishes
    real determinant;             // det A
} Alignment;

// R of the largest tr(R h), h = sum of y r^T. The polish makes R precise to the last digit, and its tangents, if `real` has any: a
// Newton step from a root has the root's derivative.
FORMULA Alignment alignment(Matrix3 h) {
    real square = h.xx*h.xx+h.xy*h.xy+h.xz*h.xz+h.yx*h.yx+h.yy*h.yy+h.yz*h.yz+h.zx*h.zx+h.zy*h.zy+h.zz*h.zz;
    real size = SQRT(SELECT(square > (real) 0, square, (real) 1));
    real inverseSize = (real) 1/size;
    Matrix3 n;
    n.xx = h.xx*inverseSize;
    n.xy = h.xy*inverseSize;
    n.xz = h.xz*inverseSize;
    n.yx = h.yx*inverseSize;
    n.yy = h.yy*inverseSize;
    n.yz = h.yz*inverseSize;
    n.zx = h.zx*inverseSize;
    n.zy = h.zy*inverseSize;
    n.zz = h.zz*inverseSize;
    Quaternion q = hornQuaternion(n);
    Alignment result;
    for (int step = 0; step < 5; step++) {
        result.rotation = rotationOf(q);
        Matrix3 c = matrixProduct(result.rotation, n);
        SymmetricMatrix3 a = torqueMatrix(c), adjugate = symmetricAdjugate(a);
        real determinant = a.xx*adjugate.xx+a.xy*adjugate.xy+a.xz*adjugate.xz;
        real inverseDeterminant = (real) 1/SELECT(determinant > (real) 1e-6, determinant, (real) 1);
        inverseDeterminant = SELECT(determinant > (real) 1e-6, inverseDeterminant, (real) 0);
        adjugate = symmetricScaled(inverseDeterminant, adjugate);
        Vector torque;
        torque.x = c.yz-c.zy;
        torque.y = c.zx-c.xz;
        torque.z = c.xy-c.yx;
        q = quaternionTurned(q, symmetricTimesVector(adjugate, torque));
        result.inverse = symmetricScaled(inverseSize, adjugate);
        result.determinant = determinant*size*size*size;
    }
    return result;
}
