// SPDX-License-Identifier: MIT
#include "model/BlockWhitening.h"
#include "model/Failure.h"

#include <array>
#include <cmath>

using namespace OpenMMFlow;
using namespace std;

namespace {

const double PI = 3.14159265358979323846;
// Of det A against the cube of the mean square size, and of a pivot against its diagonal element: below, rounding decides.
const double SMALLEST_DETERMINANT = 1e-9, SMALLEST_PIVOT = 1e-12;

double dot(const double* a, const double* b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i]*b[i];
    return sum;
}

void subtractMean(vector<double>& points) {
    const size_t count = points.size()/3;
    for (int k = 0; k < 3; k++) {
        double mean = 0;
        for (size_t i = 0; i < count; i++)
            mean += points[3*i+k]/count;
        for (size_t i = 0; i < count; i++)
            points[3*i+k] -= mean;
    }
}

/** det(tr(S) 1 - S) with S the sum of r r^T. */
double inertiaDeterminant(const vector<double>& points) {
    double s[3][3] = {};
    for (size_t i = 0; i < points.size(); i += 3)
        for (int k = 0; k < 3; k++)
            for (int l = 0; l < 3; l++)
                s[k][l] += points[i+k]*points[i+l];
    const double trace = s[0][0]+s[1][1]+s[2][2];
    const double a = trace-s[0][0], b = trace-s[1][1], c = trace-s[2][2];
    const double d = -s[0][1], e = -s[0][2], f = -s[1][2];
    return a*(b*c-f*f)-d*(d*c-f*e)+e*(d*f-b*e);
}

/** Orthonormal vectors (6, 3B): translations, and rotations of the reference. */
vector<vector<double>> rigidMotions(const vector<double>& reference) {
    const size_t size = reference.size();
    vector<vector<double>> motions;
    for (int k = 0; k < 6; k++) {
        vector<double> motion(size, 0.0);
        for (size_t i = 0; i < size; i += 3)
            if (k < 3)
                motion[i+k] = 1;
            else {
                // e_k x r
                motion[i+(k+1)%3] = -reference[i+(k+2)%3];
                motion[i+(k+2)%3] = reference[i+(k+1)%3];
            }
        // Twice, so that nothing is lost to rounding.
        for (int repeat = 0; repeat < 2; repeat++)
            for (const vector<double>& other : motions) {
                const double overlap = dot(other.data(), motion.data(), size);
                for (size_t i = 0; i < size; i++)
                    motion[i] -= overlap*other[i];
            }
        const double length = sqrt(dot(motion.data(), motion.data(), size));
        for (double& x : motion)
            x /= length;
        motions.push_back(motion);
    }
    return motions;
}

/** Lower triangle L of a symmetric matrix (n, n) = L L^T, in its place; false if it is not positive definite. */
bool factorize(vector<double>& matrix, size_t n) {
    for (size_t j = 0; j < n; j++) {
        const double diagonal = matrix[j*n+j];
        const double pivot = diagonal-dot(&matrix[j*n], &matrix[j*n], j);
        if (!(pivot > SMALLEST_PIVOT*diagonal))
            return false;
        matrix[j*n+j] = sqrt(pivot);
        for (size_t i = j+1; i < n; i++)
            matrix[i*n+j] = (matrix[i*n+j]-dot(&matrix[i*n], &matrix[j*n], j))/matrix[j*n+j];
    }
    return true;
}

/** x with L L^T x = b, in the place of b. */
void solve(const vector<double>& factor, size_t n, double* b) {
    for (size_t i = 0; i < n; i++)
        b[i] = (b[i]-dot(&factor[i*n], b, i))/factor[i*n+i];
    for (size_t i = n; i-- > 0; ) {
        for (size_t j = i+1; j < n; j++)
            b[i] -= factor[j*n+i]*b[j];
        b[i] /= factor[i*n+i];
    }
}

} // namespace

BlockWhitening::BlockWhitening(const MixedCoordinatesLayer& layer, Measure measure, const string& name) :
        numBlock(static_cast<int>(layer.block.size())), dimensions(layer.blockDimensions), aligned(measure == Measure::Cartesian),
        reference(layer.reference.values), whitening(layer.whitening.values), referenceDeterminant(0), logDet(0) {
    const size_t n = dimensions, size = 3*layer.block.size();
    if (aligned) {
        subtractMean(reference);
        referenceDeterminant = inertiaDeterminant(reference);
        const double squares = dot(reference.data(), reference.data(), size);
        if (!(referenceDeterminant > SMALLEST_DETERMINANT*squares*squares*squares))
            fail(name, ".reference: the particles of the block lie on a line or in a point, to which nothing can be aligned; take others "
                    "into the block");
        for (const vector<double>& motion : rigidMotions(reference))
            for (size_t i = 0; i < n; i++) {
                const double overlap = dot(&whitening[i*size], motion.data(), size);
                for (size_t j = 0; j < size; j++)
                    whitening[i*size+j] -= overlap*motion[j];
            }
        logDet = 0.5*log(referenceDeterminant)-1.5*log(numBlock)-log(8*PI*PI);
    }
    vector<double> gram(n*n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            gram[i*n+j] = dot(&whitening[i*size], &whitening[j*size], size);
    if (!factorize(gram, n))
        fail(name, ".whitening has no inverse: its rows must be linearly independent", aligned ?
                " on conformations that are aligned to the reference" : "");
    for (size_t i = 0; i < n; i++)
        logDet += log(gram[i*n+i]);
    unwhitening.resize(size*n);
    for (size_t j = 0; j < size; j++) {
        for (size_t i = 0; i < n; i++)
            unwhitening[j*n+i] = whitening[i*size+j];
        solve(gram, n, &unwhitening[j*n]);
    }
}
