// SPDX-License-Identifier: MIT
// Roots x of F(x) = y in [0,1], of monotone F, by Newton's method within a bracket, bisecting wherever a step leaves the bracket or does not
// halve the residual.

#ifdef USE_DOUBLE_PRECISION
#define REAL_EPSILON 2.220446049250313e-16
#else
#define REAL_EPSILON 1.1920929e-7f
#endif

// Of evaluations of F. Bisections alone need fewer.
#define MOST_ROOT_STEPS 150

typedef struct {
    real x;                 // where F is wanted next; once it is found, the root
    real low, high, last;   // the bracket, and the size of the residual before
    bool found;
} Root;

static DEVICE inline Root beginRoot(real y) {
    Root root;
    root.x = y;
    root.low = 0;
    root.high = 1;
    root.last = 2;
    root.found = false;
    return root;
}

// From F(x)-y and F'(x). Not a number is never found.
static DEVICE inline void stepRoot(Root* root, real residual, real d1) {
    if (residual > 0)
        root->high = root->x;
    else
        root->low = root->x;
    real newton = root->x-residual/d1, size = fabs(residual), tolerance = (real) REAL_EPSILON*(fabs(root->x)+(real) 0.01);
    // Where the residual is not a number the bracket shrinks to nothing, too.
    root->found = (residual == residual && (fabs(newton-root->x) <= tolerance || root->high-root->low <= tolerance));
    if (root->found)
        return;
    bool safe = (newton >= root->low && newton <= root->high && size <= (real) 0.5*root->last);
    root->x = (safe ? newton : (real) 0.5*(root->low+root->high));
    root->last = size;
}
