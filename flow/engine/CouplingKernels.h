// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_COUPLINGKERNELS_H_
#define OPENMMFLOW_COUPLINGKERNELS_H_

#include "engine/CouplingPlan.h"
#include "formulas/Formulas.h"
#include "model/Architecture.h"

#include <limits>
#include <xsimd/xsimd.hpp>

/**
 * The kernels of a coupling, written once for vectors of any instruction set and precision. Everything here is a template over the
 * vector type V, so that code compiled for different instruction sets never meets under one name.
 */
namespace OpenMMFlow {

template <class V>
struct TransformerKernels;

template <class V>
struct Kernels {
    using Real = typename V::value_type;
    using F = Formulas<V>;
    using Plan = CouplingPlan<Real>;
    static constexpr int L = static_cast<int>(V::size);
    /** Columns or rows of a matrix that a block of molecules is multiplied with at once: what fits into registers. */
    static constexpr int BLOCK = (L*sizeof(Real) >= 64 ? 8 : 4);
    /** Of the mixture for a root. Bisection alone needs fewer. */
    static constexpr int MAX_EVALUATIONS = 150;

    struct Component {
        V weight, mu, sigma, alpha, floor;
        V dMu, dSigma, dAlpha, dFloor;          // derivatives with respect to the raw parameters
        typename F::MixtureComponentEnds ends;
        typename F::MixtureComponent value;     // F_k at the argument
    };

    static V load(const Real* p) {
        return V::load_unaligned(p);
    }

    static void store(Real* p, V v) {
        v.store_unaligned(p);
    }

    static int padded(int length) {
        return (length+L-1)/L*L;
    }

    // ---- dense products with a matrix A (rows, columns): Y = bias + A^T X and X += A Y, X [rows][M], Y [columns][M] ----

    /** The widths of tiles: 4 vectors, and what is left in whole vectors. */
    static int tileWidth(int columnsLeft) {
        return columnsLeft > 3*L ? 4*L : padded(columnsLeft);
    }

    /** N vectors of columns, M = 1, y = start + tile^T x. Two sets of accumulators hide the latency of the multiply-adds. */
    template <int N>
    static void multiplyTile(int rows, const Real* tile, const Real* x, Real* y, const Real* start) {
        V even[N], odd[N];
        for (int n = 0; n < N; n++) {
            even[n] = load(start+n*L);
            odd[n] = V(Real(0));
        }
        int row = 0;
        for (; row+2 <= rows; row += 2) {
            const V x0(x[row]), x1(x[row+1]);
            for (int n = 0; n < N; n++) {
                even[n] = xsimd::fma(x0, load(tile+n*L), even[n]);
                odd[n] = xsimd::fma(x1, load(tile+(N+n)*L), odd[n]);
            }
            tile += 2*N*L;
        }
        if (row < rows) {
            const V x0(x[row]);
            for (int n = 0; n < N; n++)
                even[n] = xsimd::fma(x0, load(tile+n*L), even[n]);
        }
        for (int n = 0; n < N; n++)
            store(y+n*L, even[n]+odd[n]);
    }

    /** C columns, from `column` on, for B vectors of molecules. */
    template <int C, int B>
    static void multiplyColumns(const PackedMatrix<Real>& matrix, int tile, int width, int column, const Real* x, Real* y,
            const Real* bias) {
        const int M = B*L;
        V sum[C][B];
        for (int c = 0; c < C; c++)
            for (int b = 0; b < B; b++)
                sum[c][b] = V(bias[column+c]);
        const std::size_t stride = padded(matrix.columns);
        for (int group = 0; group < matrix.rows; group += L) {
            const int rows = rowsOfGroup(matrix, group);
            const Real* a = matrix.values+group*stride+rows*static_cast<std::size_t>(tile)+(column-tile);
            for (int row = 0; row < rows; row++) {
                V v[B];
                for (int b = 0; b < B; b++)
                    v[b] = load(x+b*L);
                for (int c = 0; c < C; c++) {
                    const V weight(a[c]);
                    for (int b = 0; b < B; b++)
                        sum[c][b] = xsimd::fma(weight, v[b], sum[c][b]);
                }
                a += width;
                x += M;
            }
        }
        for (int c = 0; c < C; c++)
            for (int b = 0; b < B; b++)
                store(y+(column+c)*static_cast<std::size_t>(M)+b*L, sum[c][b]);
    }

    static int rowsOfGroup(const PackedMatrix<Real>& matrix, int group) {
        return matrix.rows-group < L ? matrix.rows-group : L;
    }

    static void multiplySingle(const PackedMatrix<Real>& matrix, const Real* x, Real* y, const Real* bias) {
        const Real* tile = matrix.values;
        const Real* start = bias;
        for (int group = 0; group < matrix.rows; group += L) {
            const int rows = rowsOfGroup(matrix, group);
            for (int column = 0, width; column < matrix.columns; column += width) {
                width = tileWidth(matrix.columns-column);
                switch (width/L) {
                    case 1: multiplyTile<1>(rows, tile, x+group, y+column, start+column); break;
                    case 2: multiplyTile<2>(rows, tile, x+group, y+column, start+column); break;
                    case 3: multiplyTile<3>(rows, tile, x+group, y+column, start+column); break;
                    default: multiplyTile<4>(rows, tile, x+group, y+column, start+column); break;
                }
                tile += rows*static_cast<std::size_t>(width);
            }
            start = y;
        }
        if (matrix.rows == 0)
            for (int column = 0; column < matrix.columns; column++)
                y[column] = bias[column];
    }

    template <int B>
    static void multiplyBlock(const PackedMatrix<Real>& matrix, const Real* x, Real* y, const Real* bias) {
        for (int tile = 0, width; tile < matrix.columns; tile += width) {
            width = tileWidth(matrix.columns-tile);
            const int end = (matrix.columns < tile+width ? matrix.columns : tile+width);
            int column = tile;
            for (; column+BLOCK <= end; column += BLOCK)
                multiplyColumns<BLOCK, B>(matrix, tile, width, column, x, y, bias);
            for (; column+2 <= end; column += 2)
                multiplyColumns<2, B>(matrix, tile, width, column, x, y, bias);
            if (column < end)
                multiplyColumns<1, B>(matrix, tile, width, column, x, y, bias);
        }
    }

    /** Y = bias + A^T X. For M = 1, X and Y have room for whole vectors. Otherwise M is L or 2 L. */
    static void multiply(const PackedMatrix<Real>& matrix, int M, const Real* x, Real* y, const Real* bias) {
        if (M == 1)
            multiplySingle(matrix, x, y, bias);
        else if (M == L)
            multiplyBlock<1>(matrix, x, y, bias);
        else
            multiplyBlock<2>(matrix, x, y, bias);
    }

    static Real sumOfLanes(V v) {
#if XSIMD_VERSION_MAJOR < 9
        return xsimd::hadd(v);
#else
        return xsimd::reduce_add(v);
#endif
    }

    /** The sum of the lanes of each of L vectors. */
    static V sumsOfLanes(const V* rows) {
        if constexpr (L == 16) {
            // haddp of 16 floats gives its sums in a wrong order in xsimd 8.
            using Half = xsimd::batch<Real, xsimd::avx>;
            Real lanes[2*L];
            Real sums[L];
            for (int first : {0, 8}) {
                Half folded[8];
                for (int r = 0; r < 8; r++) {
                    Real* row = lanes+(r%2)*L;
                    store(row, rows[first+r]);
                    folded[r] = Half::load_unaligned(row)+Half::load_unaligned(row+8);
                }
                xsimd::haddp(folded).store_unaligned(sums+first);
            }
            return load(sums);
        }
        else
            return xsimd::haddp(rows);
    }

    /** sum[r] += row r times y, element by element, for R rows from `row` on of the group that begins at `values`. */
    template <int R>
    static void multiplyRows(const PackedMatrix<Real>& matrix, const Real* values, int rowsOfGroup, int row, const Real* y, V* sums) {
        V sum[R];
        for (int r = 0; r < R; r++)
            sum[r] = V(Real(0));
        for (int column = 0, width; column < matrix.columns; column += width) {
            width = tileWidth(matrix.columns-column);
            const Real* a = values+row*width;
            for (int i = 0; i < width; i += L) {
                const V v = load(y+column+i);
                for (int r = 0; r < R; r++)
                    sum[r] = xsimd::fma(load(a+r*width+i), v, sum[r]);
            }
            values += rowsOfGroup*static_cast<std::size_t>(width);
        }
        for (int r = 0; r < R; r++)
            sums[r] = sum[r];
    }

    static void multiplyTransposedSingle(const PackedMatrix<Real>& matrix, const Real* y, Real* x) {
        const std::size_t stride = padded(matrix.columns);
        V sums[L];
        for (int group = 0; group < matrix.rows; group += L) {
            const int rows = rowsOfGroup(matrix, group);
            const Real* values = matrix.values+group*stride;
            if (rows == L) {
                multiplyRows<L>(matrix, values, rows, 0, y, sums);
                store(x+group, load(x+group)+sumsOfLanes(sums));
                continue;
            }
            int row = 0;
            for (; row+4 <= rows; row += 4)
                multiplyRows<4>(matrix, values, rows, row, y, sums+row);
            for (; row < rows; row++)
                multiplyRows<1>(matrix, values, rows, row, y, sums+row);
            for (row = 0; row < rows; row++)
                x[group+row] += sumOfLanes(sums[row]);
        }
    }

    /** The same for B vectors of molecules. */
    template <int R, int B>
    static void multiplyRowsOfBlock(const PackedMatrix<Real>& matrix, const Real* values, int rowsOfGroup, int row, const Real* y, Real* x) {
        const int M = B*L;
        V sum[R][B];
        for (int r = 0; r < R; r++)
            for (int b = 0; b < B; b++)
                sum[r][b] = load(x+(row+r)*M+b*L);
        for (int tile = 0, width; tile < matrix.columns; tile += width) {
            width = tileWidth(matrix.columns-tile);
            const int used = (matrix.columns-tile < width ? matrix.columns-tile : width);
            const Real* a = values+row*width;
            for (int c = 0; c < used; c++) {
                V v[B];
                for (int b = 0; b < B; b++)
                    v[b] = load(y+b*L);
                for (int r = 0; r < R; r++) {
                    const V weight(a[r*width+c]);
                    for (int b = 0; b < B; b++)
                        sum[r][b] = xsimd::fma(weight, v[b], sum[r][b]);
                }
                y += M;
            }
            values += rowsOfGroup*static_cast<std::size_t>(width);
        }
        for (int r = 0; r < R; r++)
            for (int b = 0; b < B; b++)
                store(x+(row+r)*M+b*L, sum[r][b]);
    }

    template <int B>
    static void multiplyTransposedBlock(const PackedMatrix<Real>& matrix, const Real* y, Real* x) {
        const std::size_t stride = padded(matrix.columns);
        for (int group = 0; group < matrix.rows; group += L) {
            const int rows = rowsOfGroup(matrix, group);
            const Real* values = matrix.values+group*stride;
            Real* target = x+group*static_cast<std::size_t>(B*L);
            int row = 0;
            for (; row+BLOCK <= rows; row += BLOCK)
                multiplyRowsOfBlock<BLOCK, B>(matrix, values, rows, row, y, target);
            for (; row+2 <= rows; row += 2)
                multiplyRowsOfBlock<2, B>(matrix, values, rows, row, y, target);
            if (row < rows)
                multiplyRowsOfBlock<1, B>(matrix, values, rows, row, y, target);
        }
    }

    /** X += A Y. For M = 1, Y is finite up to whole vectors. Otherwise M is L or 2 L. */
    static void multiplyTransposed(const PackedMatrix<Real>& matrix, int M, const Real* y, Real* x) {
        if (M == 1)
            multiplyTransposedSingle(matrix, y, x);
        else if (M == L)
            multiplyTransposedBlock<1>(matrix, y, x);
        else
            multiplyTransposedBlock<2>(matrix, y, x);
    }

    // ---- conditioner ----

    template <typename F::Activation (*function)(V)>
    static void activate(int length, Real* values, Real* slopes) {
        for (int i = 0; i < length; i += L) {
            typename F::Activation a = function(load(values+i));
            store(values+i, a.value);
            store(slopes+i, a.d1);
        }
    }

    /** F::activationSin by the library's joint function, which is faster than one call for each. */
    static typename F::Activation sine(V x) {
        const auto both = xsimd::sincos(x);
        return {both.first, both.second};
    }

    static void applyActivation(ActivationType type, int length, Real* values, Real* slopes) {
        switch (type) {
            case ActivationType::SiLU: return activate<F::activationSiLU>(length, values, slopes);
            case ActivationType::Tanh: return activate<F::activationTanh>(length, values, slopes);
            case ActivationType::Sin: return activate<sine>(length, values, slopes);
            case ActivationType::GELU: return activate<F::activationGELU>(length, values, slopes);
            case ActivationType::Softplus: return activate<F::activationSoftplus>(length, values, slopes);
        }
    }

    static void computeFeatures(const Plan& plan, int M, const double* coordinates, Real* features) {
        for (int i = 0; i < plan.numPlain; i++)
            for (int m = 0; m < M; m++)
                features[i*M+m] = static_cast<Real>(coordinates[plan.plain[i]*M+m]);
        const int C = plan.numCircularFeatures;
        Real* cosines = features+plan.numPlain*M;
        Real* sines = cosines+C*M;
        // The angles start out where the cosines will be. The cosines' padding runs into the sines, which are stored after them.
        for (int i = 0; i < C; i++)
            for (int m = 0; m < M; m++)
                cosines[i*M+m] = static_cast<Real>(coordinates[plan.circularFeatures[i]*M+m]);
        for (int start = (C*M-1)/L*L; C > 0 && start >= 0; start -= L) {
            typename F::Activation a = F::activationSin(V(Real(6.283185307179586476925))*load(cosines+start));
            Real sine[L], cosine[L];
            store(sine, a.value);
            store(cosine, a.d1);
            const int length = (C*M-start < L ? C*M-start : L);
            for (int i = 0; i < length; i++) {
                cosines[start+i] = cosine[i];
                sines[start+i] = sine[i];
            }
        }
    }

    static void featuresBackward(const Plan& plan, int M, const Real* features, const Real* featureGradient, double* gradient) {
        for (int i = 0; i < plan.numPlain; i++)
            for (int m = 0; m < M; m++)
                gradient[plan.plain[i]*M+m] += featureGradient[i*M+m];
        const int C = plan.numCircularFeatures;
        const int cosines = plan.numPlain*M, sines = cosines+C*M;
        for (int i = 0; i < C; i++)
            for (int m = 0; m < M; m++) {
                const int c = cosines+i*M+m, s = sines+i*M+m;
                gradient[plan.circularFeatures[i]*M+m] += 6.283185307179586476925*
                        (static_cast<double>(features[c])*featureGradient[s]-static_cast<double>(features[s])*featureGradient[c]);
            }
    }

    static void networksForward(const Plan& plan, int M, Real* arena) {
        for (int n = 0; n < plan.numNetworks; n++) {
            const PackedNetwork<Real>& network = plan.networks[n];
            const Real* input = arena+plan.features;
            for (int i = 0; i < network.numLayers; i++) {
                const PackedLayer<Real>& layer = network.layers[i];
                const bool last = (i == network.numLayers-1);
                Real* output = (last ? arena+plan.raw+network.firstRawRow*static_cast<std::size_t>(M) : arena+layer.values);
                multiply(layer.matrix, M, input, output, layer.bias);
                if (!last)
                    applyActivation(plan.activation, layer.matrix.columns*M, output, arena+layer.slopes);
                input = output;
            }
        }
    }

    static void networksBackward(const Plan& plan, int M, Real* arena) {
        Real* featureGradient = arena+plan.featureGradient;
        const int numFeatures = (plan.numPlain+2*plan.numCircularFeatures)*M;
        for (int i = 0; i < numFeatures; i++)
            featureGradient[i] = 0;
        for (int n = 0; n < plan.numNetworks; n++) {
            const PackedNetwork<Real>& network = plan.networks[n];
            const Real* gradient = arena+plan.rawGradient+network.firstRawRow*static_cast<std::size_t>(M);
            Real* next = arena+plan.hidden;
            Real* afterNext = arena+plan.nextHidden;
            for (int i = network.numLayers-1; i > 0; i--) {
                const PackedLayer<Real>& layer = network.layers[i];
                const int length = layer.matrix.rows*M;
                for (int j = 0; j < length; j += L)
                    store(next+j, V(Real(0)));
                multiplyTransposed(layer.matrix, M, gradient, next);
                const Real* slopes = arena+network.layers[i-1].slopes;
                for (int j = 0; j < length; j += L)
                    store(next+j, load(next+j)*load(slopes+j));
                gradient = next;
                next = afterNext;
                afterNext = const_cast<Real*>(gradient);
            }
            multiplyTransposed(network.layers[0].matrix, M, gradient, featureGradient);
        }
    }

    // ---- smooth mixture transformer ----

    /** A segment of the flat axis: its first element in compact rows and in padded arrays. */
    struct Segment {
        bool circular;
        int compact, padded, length;
    };

    static void segments(const Plan& plan, int M, Segment* s) {
        s[0] = {false, 0, 0, plan.numIntervals*M};
        s[1] = {true, s[0].length, padded(s[0].length), plan.numCircles*M};
    }

    /** Parameters of all components from raw rows, for the elements from `compact` on. */
    static void evaluateHead(const Plan& plan, int M, bool circular, const Real* raw, int compact, Real* shares,
            Component* components) {
        const int K = plan.components;
        auto row = [&](int k, int p) {
            return load(raw+plan.rawRows[5*k+p]*static_cast<std::size_t>(M)+compact);
        };
        auto softmax = [&](int p, auto write) {
            V largest = row(0, p);
            for (int k = 1; k < K; k++)
                largest = xsimd::max(largest, row(k, p));
            V sum(Real(0));
            for (int k = 0; k < K; k++) {
                components[k].weight = xsimd::exp(row(k, p)-largest);
                sum += components[k].weight;
            }
            const V inverse = V(Real(1))/sum;
            for (int k = 0; k < K; k++)
                write(k, components[k].weight*inverse);
        };
        if (plan.published)
            softmax(2, [&](int k, V share) { store(shares+k*static_cast<std::size_t>(plan.paddedLength), share); });
        softmax(0, [&](int k, V share) { components[k].weight = share; });
        V centre(Real(0));
        for (int k = 0; k < K; k++) {
            Component& c = components[k];
            if (plan.published)
                centre += load(shares+k*static_cast<std::size_t>(plan.paddedLength));
            const V steepness = (plan.rawRows[5*k+3] < 0 ? V(Real(0)) : row(k, 3));
            evaluateComponent(plan, circular, row(k, 1), plan.published ? centre : row(k, 2), steepness, row(k, 4),
                    V(static_cast<Real>((k+0.5)/K)), c);
        }
        // A loop of its own: operations of a component wait for each other, and a processor sees only so many ahead.
        for (int k = 0; k < K; k++) {
            Component& c = components[k];
            c.ends = F::mixtureComponentEnds(c.mu, c.sigma, c.alpha, plan.exponent, circular);
        }
    }

    /** All but the weight and the ends of a component from its raw parameters; `centre` is the centre itself if the head is the published one. */
    static void evaluateComponent(const Plan& plan, bool circular, V alpha, V centre, V steepness, V floor, V prior, Component& c) {
        const V bound(plan.logSteepnessBound), floor0(plan.minimumFloor);
        const typename F::HeadParameter a = F::headLogistic(alpha, V(plan.alphaOffset), V(plan.alphaRange));
        const typename F::HeadParameter m = F::headLogistic(floor, floor0, V(Real(1))-floor0);
        typename F::HeadParameter mu = {centre, V(Real(1))}, sigma;
        if (plan.published)
            sigma = (circular ? typename F::HeadParameter{V(plan.circleSteepness), V(Real(0))} :
                    F::headSteepnessOnInterval(steepness, bound, V(Real(1))));
        else if (circular) {
            mu = F::headCentreOnCircle(centre, prior);
            sigma = F::headSteepnessOnCircle(steepness, bound);
        }
        else {
            mu = F::headCentreOnInterval(centre, prior);
            sigma = F::headSteepnessOnInterval(steepness, bound, V(Real(1)/plan.logSteepnessBound));
        }
        c.mu = mu.value;
        c.dMu = mu.d1;
        c.alpha = a.value;
        c.dAlpha = a.d1;
        c.sigma = sigma.value;
        c.dSigma = sigma.d1;
        c.floor = m.value;
        c.dFloor = m.d1;
    }

    static typename F::MixtureComponent evaluateMixture(const Plan& plan, bool circular, V x, const Component* components) {
        typename F::MixtureComponent sum = {V(Real(0)), V(Real(0)), V(Real(0))};
        for (int k = 0; k < plan.components; k++) {
            const Component& c = components[k];
            const V u = F::mixtureComponentArgument(x, c.mu, c.sigma, circular);
            typename F::MixtureComponent value = F::mixtureComponent(x, c.sigma, c.floor, F::smoothSigmoid(u, c.alpha, plan.exponent),
                    c.ends, F::mixtureComponentWinding(x, c.mu, c.sigma, circular));
            sum.value += c.weight*value.value;
            sum.d1 += c.weight*value.d1;
        }
        return sum;
    }

    /**
     * The root x of F(x) = y in [0,1], evaluate(x) with F as `value` and F' as `d1`, by Newton's method within a bracket, bisecting wherever a step leaves the bracket or does not
     * halve the residual. F is strictly increasing with F(0) = 0 and F(1) = 1, so the bracket always holds the root. A lane is done when
     * its residual is within the rounding of F and x, |F(x)-y| <= eps (1+F'), or when its bracket holds no further number.
     */
    template <class Evaluate>
    static V solve(const Evaluate& evaluate, V y, RootFinding& roots) {
        const V epsilon(std::numeric_limits<Real>::epsilon()), half(Real(0.5)), one(Real(1));
        V low(Real(0)), high(one), x = y, last(Real(2));
        V root = y, rootError(std::numeric_limits<Real>::max());
        auto done = (y != y);
        roots.vectors++;
        for (int iteration = 0; iteration < MAX_EVALUATIONS; iteration++) {
            roots.evaluations++;
            const auto at = evaluate(x);
            const V residual = at.value-y;
            const V error = xsimd::abs(residual)/(one+at.d1);
            const auto better = (error < rootError);
            root = xsimd::select(better, x, root);
            rootError = xsimd::select(better, error, rootError);
            const auto above = (residual > V(Real(0)));
            high = xsimd::select(above, x, high);
            low = xsimd::select(above, low, x);
            const V newton = x-residual/at.d1;
            const V middle = half*(low+high);
            const auto safe = (newton > low) & (newton < high) & (xsimd::abs(residual) <= half*last);
            last = xsimd::abs(residual);
            // Where the residual is not a number the bracket shrinks to nothing, too.
            const auto narrow = (middle <= low) | (middle >= high) | (high-low <= V(Real(0.01))*epsilon);
            done = done | (rootError <= epsilon) | (narrow & (residual == residual));
            if (xsimd::all(done))
                return root;
            // Lanes that are done stay where they are.
            x = xsimd::select(done, root, xsimd::select(safe, newton, middle));
        }
        const V missed = xsimd::select(done, V(Real(0)), one);
        for (int lane = 0; lane < L; lane++)
            roots.notConverged += (missed.get(lane) != 0);
        return root;
    }

    /**
     * F_k of a component at x, and with gradient the derivatives of weight F and weight F' with respect to its raw parameters but the weight's:
     * one after the other at multiples of `stride`.
     */
    static void evaluateAt(const Plan& plan, bool circular, V x, bool withGradient, Component& c, Real* valueJacobian,
            Real* slopeJacobian, std::size_t stride) {
        const V u = F::mixtureComponentArgument(x, c.mu, c.sigma, circular);
        const V winding = F::mixtureComponentWinding(x, c.mu, c.sigma, circular);
        const typename F::SmoothSigmoid s = F::smoothSigmoid(u, c.alpha, plan.exponent);
        c.value = F::mixtureComponent(x, c.sigma, c.floor, s, c.ends, winding);
        if (!withGradient)
            return;
        const V one(Real(1)), zero(Real(0));
        const typename F::MixtureComponentGradient v =
                F::mixtureComponentGradient(x, u, c.sigma, c.floor, s, c.ends, winding, circular, one, zero);
        const typename F::MixtureComponentGradient d =
                F::mixtureComponentGradient(x, u, c.sigma, c.floor, s, c.ends, winding, circular, zero, one);
        const V wAlpha = c.weight*c.dAlpha, wMu = c.weight*c.dMu, wSigma = c.weight*c.dSigma, wFloor = c.weight*c.dFloor;
        store(valueJacobian+stride, wAlpha*v.alpha);
        store(slopeJacobian+stride, wAlpha*d.alpha);
        store(valueJacobian+2*stride, wMu*v.mu);
        store(slopeJacobian+2*stride, wMu*d.mu);
        store(valueJacobian+3*stride, wSigma*v.sigma);
        store(slopeJacobian+3*stride, wSigma*d.sigma);
        store(valueJacobian+4*stride, wFloor*v.floor);
        store(slopeJacobian+4*stride, wFloor*d.floor);
    }

    static void mixtureForward(const Plan& plan, int M, bool withGradient, Real* arena, RootFinding& roots) {
        const int K = plan.components;
        const std::size_t E = plan.paddedLength;
        const Real* raw = arena+plan.raw;
        Component* components = reinterpret_cast<Component*>(arena+plan.scratch);
        Segment both[2];
        segments(plan, M, both);
        for (const Segment& segment : both)
            for (int start = 0; start < segment.length; start += L) {
                const int e = segment.padded+start;
                const bool circular = segment.circular;
                evaluateHead(plan, M, circular, raw, segment.compact+start, arena+plan.centreShares+e, components);
                const V input = load(arena+plan.x+e);
                V x = input;
                V turns(Real(0));
                if (plan.inverse) {
                    if (circular)
                        turns = xsimd::floor(input);
                    // What is no number stays none; the padding of a row may hold anything.
                    const V y = input-turns;
                    const auto isRoot = (y >= V(Real(0))) & (y <= V(Real(1)));
                    x = solve([&](V at) { return evaluateMixture(plan, circular, at, components); },
                            xsimd::select(isRoot, y, V(Real(0.5))), roots);
                    x = xsimd::select(isRoot, x, V(std::numeric_limits<Real>::quiet_NaN()));
                }
                V value(Real(0)), d1(Real(0)), d2(Real(0));
                for (int k = 0; k < K; k++) {
                    Component& c = components[k];
                    evaluateAt(plan, circular, x, withGradient, c, arena+plan.valueJacobian+5*k*E+e, arena+plan.slopeJacobian+5*k*E+e, E);
                    value += c.weight*c.value.value;
                    d1 += c.weight*c.value.d1;
                    d2 += c.weight*c.value.d2;
                }
                const V logSlope = xsimd::log(d1);
                store(arena+plan.y+e, plan.inverse ? x+turns : value);
                store(arena+plan.logDerivative+e, plan.inverse ? -logSlope : logSlope);
                store(arena+plan.slope+e, d1);
                store(arena+plan.curvature+e, d2);
                if (withGradient)
                    for (int k = 0; k < K; k++) {
                        const Component& c = components[k];
                        store(arena+plan.valueJacobian+5*k*E+e, c.weight*(c.value.value-value));
                        store(arena+plan.slopeJacobian+5*k*E+e, c.weight*(c.value.d1-d1));
                    }
            }
    }

    // ---- the same for one molecule: vectors along all components of all coordinates, (K, D), which wastes few lanes ----

    /** If all coordinates are of one kind, and F has its closed form in this direction. */
    static bool isFlat(const Plan& plan, int M) {
        return M == 1 && !plan.inverse && (plan.numIntervals == 0 || plan.numCircles == 0);
    }

    /** Copy a row of D numbers to every component. In ascending order, so that the padding of a row is overwritten by the next. */
    static void spread(const Plan& plan, const Real* row, Real* flat) {
        const int D = plan.numIntervals+plan.numCircles;
        for (int k = 0; k < plan.components; k++)
            for (int e = 0; e < plan.paddedLength; e += L)
                store(flat+k*D+e, load(row+e));
    }

    static V sumOverComponents(const Plan& plan, const Real* flat, int e) {
        const int D = plan.numIntervals+plan.numCircles;
        V sum = load(flat+e);
        for (int k = 1; k < plan.components; k++)
            sum += load(flat+k*D+e);
        return sum;
    }

    static void flatSoftmax(const Plan& plan, const Real* raw, Real* result, Real* row, Real* flat) {
        const int D = plan.numIntervals+plan.numCircles, length = plan.components*D;
        for (int e = 0; e < plan.paddedLength; e += L) {
            V largest = load(raw+e);
            for (int k = 1; k < plan.components; k++)
                largest = xsimd::max(largest, load(raw+k*D+e));
            store(row+e, largest);
        }
        spread(plan, row, flat);
        for (int f = 0; f < length; f += L)
            store(result+f, xsimd::exp(load(raw+f)-load(flat+f)));
        for (int e = 0; e < plan.paddedLength; e += L)
            store(row+e, V(Real(1))/sumOverComponents(plan, result, e));
        spread(plan, row, flat);
        for (int f = 0; f < length; f += L)
            store(result+f, load(result+f)*load(flat+f));
    }

    static void flatForward(const Plan& plan, bool withGradient, Real* arena) {
        const int D = plan.numIntervals+plan.numCircles, length = plan.components*D;
        const std::size_t stride = plan.components*static_cast<std::size_t>(plan.paddedLength);
        const bool circular = (plan.numIntervals == 0);
        const auto rawOf = [&](int p) { return arena+plan.raw+plan.rawRows[p]; };
        Real *weights = arena+plan.flat[0], *centres = arena+plan.flat[1], *x = arena+plan.flat[2], *temporary = arena+plan.flat[3],
                *values = arena+plan.flat[4], *slopes = arena+plan.flat[5], *curvatures = arena+plan.flat[6];
        Real* row = arena+plan.y;
        flatSoftmax(plan, rawOf(0), weights, row, temporary);
        if (plan.published) {
            Real* shares = arena+plan.centreShares;
            flatSoftmax(plan, rawOf(2), shares, row, temporary);
            for (int e = 0; e < plan.paddedLength; e += L)
                store(row+e, V(Real(0)));
            for (int k = 0; k < plan.components; k++)
                for (int e = 0; e < plan.paddedLength; e += L) {
                    const V sum = load(row+e)+load(shares+k*D+e);
                    store(row+e, sum);
                    store(centres+k*D+e, sum);
                }
        }
        spread(plan, arena+plan.x, x);
        const Real *alphas = rawOf(1), *centresOrRaw = (plan.published ? centres : rawOf(2)), *floors = rawOf(4);
        const Real* steepnesses = (plan.rawRows[3] < 0 ? alphas : rawOf(3));
        Real *valueJacobian = arena+plan.valueJacobian, *slopeJacobian = arena+plan.slopeJacobian;
        for (int f = 0; f < length; f += L) {
            Component c;
            c.weight = load(weights+f);
            evaluateComponent(plan, circular, load(alphas+f), load(centresOrRaw+f), load(steepnesses+f), load(floors+f),
                    load(plan.priors+f), c);
            c.ends = F::mixtureComponentEnds(c.mu, c.sigma, c.alpha, plan.exponent, circular);
            evaluateAt(plan, circular, load(x+f), withGradient, c, valueJacobian+f, slopeJacobian+f, stride);
            store(valueJacobian+f, c.weight*c.value.value);
            store(slopeJacobian+f, c.weight*c.value.d1);
            store(curvatures+f, c.weight*c.value.d2);
            store(values+f, c.value.value);
            store(slopes+f, c.value.d1);
        }
        for (int e = 0; e < plan.paddedLength; e += L) {
            const V d1 = sumOverComponents(plan, slopeJacobian, e);
            store(arena+plan.y+e, sumOverComponents(plan, valueJacobian, e));
            store(arena+plan.slope+e, d1);
            store(arena+plan.curvature+e, sumOverComponents(plan, curvatures, e));
            store(arena+plan.logDerivative+e, xsimd::log(d1));
        }
        if (!withGradient)
            return;
        // With respect to the raw weights: w_k (F_k - F)
        spread(plan, arena+plan.y, x);
        spread(plan, arena+plan.slope, temporary);
        for (int f = 0; f < length; f += L) {
            store(valueJacobian+f, load(weights+f)*(load(values+f)-load(x+f)));
            store(slopeJacobian+f, load(weights+f)*(load(slopes+f)-load(temporary+f)));
        }
    }

    static void flatBackward(const Plan& plan, Real* arena) {
        const int D = plan.numIntervals+plan.numCircles, K = plan.components, length = K*D;
        const std::size_t stride = K*static_cast<std::size_t>(plan.paddedLength);
        const Real *valueJacobian = arena+plan.valueJacobian, *slopeJacobian = arena+plan.slopeJacobian;
        for (int e = 0; e < plan.paddedLength; e += L) {
            const V yGradient = load(arena+plan.y+e), d1 = load(arena+plan.slope+e), d2 = load(arena+plan.curvature+e);
            const V inverse = V(Real(1))/d1;
            store(arena+plan.x+e, yGradient*d1+d2*inverse);
            store(arena+plan.logDerivative+e, inverse);
        }
        Real *vF = arena+plan.flat[2], *vD = arena+plan.flat[3];
        spread(plan, arena+plan.y, vF);
        spread(plan, arena+plan.logDerivative, vD);
        // Blocks in ascending order, so that the padding of one is overwritten by the next.
        for (int i = 0; i < plan.numRawRows; i += K) {
            const int p = plan.rawOrder[i] % 5;
            Real* target = arena+plan.rawGradient+plan.rawRows[p];
            for (int f = 0; f < length; f += L)
                store(target+f, load(vF+f)*load(valueJacobian+p*stride+f)+load(vD+f)*load(slopeJacobian+p*stride+f));
            if (plan.published && p == 2)
                centresBackward(plan, arena+plan.centreShares, target, arena+plan.flat[4], arena+plan.flat[5]);
        }
        // What follows the last row meets weights that are 0, and must be finite for it.
        store(arena+plan.rawGradient+plan.numRawRows*static_cast<std::size_t>(D), V(Real(0)));
    }

    /** mu_k = share_0+...+share_k, share = softmax(raw): from the gradient of the centres, (K, D), to that of the raw parameters, in place. */
    static void centresBackward(const Plan& plan, const Real* shares, Real* gradient, Real* sums, Real* means) {
        const int D = plan.numIntervals+plan.numCircles, K = plan.components;
        for (int d = 0; d < D; d++)
            sums[d] = means[d] = 0;
        // Number by number: a row ends within a vector, and the next one is done already.
        for (int k = K-1; k >= 0; k--)
            for (int d = 0; d < D; d++) {
                sums[d] += gradient[k*D+d];
                gradient[k*D+d] = sums[d];
                means[d] += sums[d]*shares[k*D+d];
            }
        for (int k = 0; k < K; k++)
            for (int d = 0; d < D; d++)
                gradient[k*D+d] = shares[k*D+d]*(gradient[k*D+d]-means[d]);
    }

    /** Derivatives of L, which has ln|dy/dx| as a term, with respect to F and F' at fixed argument, and to the input. */
    struct Cotangents {
        V value, slope, x;
    };

    static Cotangents cotangents(const Plan& plan, V yGradient, V d1, V d2) {
        const V inverse = V(Real(1))/d1;
        if (plan.inverse) {
            // Inverse function theorem at the root: dy/dx = 1/F', dy/dtheta = -F_theta/F', ln|dy/dx| = -ln F'.
            const V xGradient = (yGradient-d2*inverse)*inverse;
            return {-xGradient, -inverse, xGradient};
        }
        return {yGradient, inverse, yGradient*d1+d2*inverse};
    }

    /** dL/dy in `y`; leaves dL/dx in `x` and the raw parameters' gradient in compact rows. L has ln|dy/dx| as a term. */
    static void mixtureBackward(const Plan& plan, int M, Real* arena) {
        const int K = plan.components;
        const std::size_t E = plan.paddedLength;
        Segment both[2];
        segments(plan, M, both);
        // vF and vD, the derivatives of L with respect to F and F' at fixed argument, replace dL/dy and ln|dy/dx|.
        for (int e = 0; e < plan.paddedLength; e += L) {
            const V yGradient = load(arena+plan.y+e), d1 = load(arena+plan.slope+e), d2 = load(arena+plan.curvature+e);
            const Cotangents v = cotangents(plan, yGradient, d1, d2);
            const V vF = v.value, vD = v.slope;
            store(arena+plan.x+e, v.x);
            store(arena+plan.y+e, vF);
            store(arena+plan.logDerivative+e, vD);
            if (plan.published) {
                // mu_k = share_0+...+share_k, share = softmax(raw): turn the centres' rows into gradients.
                V sum(Real(0)), mean(Real(0));
                for (int k = K-1; k >= 0; k--) {
                    Real* value = arena+plan.valueJacobian+(5*k+2)*E+e;
                    sum += vF*load(value)+vD*load(arena+plan.slopeJacobian+(5*k+2)*E+e);
                    store(value, sum);
                    mean += sum*load(arena+plan.centreShares+k*E+e);
                }
                for (int k = 0; k < K; k++) {
                    Real* value = arena+plan.valueJacobian+(5*k+2)*E+e;
                    store(value, load(arena+plan.centreShares+k*E+e)*(load(value)-mean));
                }
            }
        }
        // In ascending order, so that the padding of a row is overwritten by the next row.
        for (int i = 0; i < plan.numRawRows; i++) {
            const int row = plan.rawOrder[i];
            Real* target = arena+plan.rawGradient+plan.rawRows[row]*static_cast<std::size_t>(M);
            const Real* valueJacobian = arena+plan.valueJacobian+row*E;
            const Real* slopeJacobian = arena+plan.slopeJacobian+row*E;
            const bool done = (plan.published && row%5 == 2);
            for (const Segment& segment : both)
                for (int start = 0; start < segment.length; start += L) {
                    const int e = segment.padded+start;
                    V gradient = load(valueJacobian+e);
                    if (!done)
                        gradient = load(arena+plan.y+e)*gradient+load(arena+plan.logDerivative+e)*load(slopeJacobian+e);
                    store(target+segment.compact+start, gradient);
                }
        }
        // What follows the last row meets weights that are 0, and must be finite for it.
        store(arena+plan.rawGradient+plan.numRawRows*(plan.numIntervals+plan.numCircles)*static_cast<std::size_t>(M), V(Real(0)));
    }

    // ---- the coupling ----

    /** Copy rows of `source` [n][M] into the padded flat axis, or back. */
    template <class Copy>
    static void forEachTransformed(const Plan& plan, int M, Copy copy) {
        const int shift = padded(plan.numIntervals*M)-plan.numIntervals*M;
        for (int d = 0; d < plan.numIntervals+plan.numCircles; d++) {
            const int e = d*M+(d < plan.numIntervals ? 0 : shift);
            for (int m = 0; m < M; m++)
                copy(plan.transformed[d]*M+m, e+m, m);
        }
    }

    static void forward(const Plan& plan, int M, bool withGradient, double* coordinates, double* logDet, Real* arena,
            RootFinding& roots) {
        computeFeatures(plan, M, coordinates, arena+plan.features);
        networksForward(plan, M, arena);
        forEachTransformed(plan, M, [&](int i, int e, int) { arena[plan.x+e] = static_cast<Real>(coordinates[i]); });
        if (plan.transformer.type >= 0)
            TransformerKernels<V>::forward(plan, M, withGradient, arena, roots);
        else if (isFlat(plan, M))
            flatForward(plan, withGradient, arena);
        else
            mixtureForward(plan, M, withGradient, arena, roots);
        forEachTransformed(plan, M, [&](int i, int e, int m) {
            coordinates[i] = arena[plan.y+e];
            logDet[m] += arena[plan.logDerivative+e];
        });
    }

    static void backward(const Plan& plan, int M, double* gradient, Real* arena) {
        forEachTransformed(plan, M, [&](int i, int e, int) { arena[plan.y+e] = static_cast<Real>(gradient[i]); });
        if (plan.transformer.type >= 0)
            TransformerKernels<V>::backward(plan, M, arena);
        else if (isFlat(plan, M))
            flatBackward(plan, arena);
        else
            mixtureBackward(plan, M, arena);
        networksBackward(plan, M, arena);
        forEachTransformed(plan, M, [&](int i, int e, int) { gradient[i] = arena[plan.x+e]; });
        featuresBackward(plan, M, arena+plan.features, arena+plan.featureGradient, gradient);
    }
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_COUPLINGKERNELS_H_
