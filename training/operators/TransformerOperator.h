// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_TRANSFORMEROPERATOR_H_
#define OPENMMFLOW_TRANSFORMEROPERATOR_H_

#include "operators/Differentiable.h"
#include "operators/Lanes.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>

#include <limits>
#include <vector>

namespace OpenMMFlow {

/**
 * A transformer of D coordinates, in the direction of its formula F or in the other one. Inputs x (D, N) and raw (rows, N), of whatever
 * shape; outputs y and ln|dy/dx|, (D, N) each.
 *
 * Family::Kernel<Real> evaluates one coordinate: evaluate(x, raw, circular) leaves `y` and `density` = dy/dx, curvature() is d2y/dx2, and
 * gradient(x, vY, vL, circular, write) returns the gradient of vY y + vL ln(dy/dx) with respect to x. raw(block, k) reads a raw parameter,
 * write(block, k, g) receives its gradient. A family says where raw parameters stand, row(d, block, k), and configures kernels. If it
 * has a closed form of the inverse, closedInverse(), its kernels have inverse(y, raw, circular).
 *
 * Inverse: inputs y and raw, outputs x and ln|dx/dy| at the root F(x) = y. Nothing is differentiated through the iterations; by the
 * inverse function theorem, with q = (vX - vL F''/F')/F',
 *     dPhi/dy = q,   dPhi/draw = -q dF/draw - vL d(ln F')/draw,
 * the latter is the gradient of the closed form at the root with cotangents -q and -vL.
 */
template <class Family>
class TransformerOperator : public DifferentiableOperator {
public:
    TransformerOperator(Family family, std::vector<int64_t> circular, bool inverse) :
            family(std::move(family)), circular(std::move(circular)), inverse(inverse) {
    }

    int numInputs() const override {
        return 2;
    }
    int numOutputs() const override {
        return 2;
    }

    Pair value(const Pair& inputs) const override {
        Pair outputs = {at::empty_like(inputs.first), at::empty_like(inputs.first)};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "transformer", [&] {
            const int64_t coordinates = inputs.first.size(0), samples = inputs.first.size(1);
            const scalar_t* input = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            scalar_t* output = outputs.first.data_ptr<scalar_t>();
            scalar_t* logDensity = outputs.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(coordinates, samples, [&](auto lane, int64_t d, int64_t sample) {
                using Real = decltype(lane);
                auto& kernel = workspace<Real>();
                const int64_t at = d*samples+sample;
                const Real argument = firstTurn(loadLane<Real>(input+at), circular[d]);
                const auto rawAt = [&](int block, int64_t k) {
                    return loadLane<Real>(raw+family.row(d, block, k)*samples+sample);
                };
                if (inverse)
                    storeLane(output+at, firstTurn(evaluateAtRoot<scalar_t>(kernel, argument, rawAt, circular[d]), circular[d]));
                else {
                    kernel.evaluate(argument, rawAt, circular[d]);
                    storeLane(output+at, firstTurn(kernel.y, circular[d]));
                }
                const Real logSlope = log(kernel.density);
                storeLane(logDensity+at, inverse ? Real(-logSlope) : logSlope);
            });
        });
        return outputs;
    }

    Pair gradient(const Pair& inputs, const Pair& cotangents) const override {
        Pair gradients = {at::empty_like(inputs.first), at::empty_like(inputs.second)};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "transformer", [&] {
            const int64_t coordinates = inputs.first.size(0), samples = inputs.first.size(1);
            const scalar_t* input = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            const scalar_t* vOutput = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vLog = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* gInput = gradients.first.data_ptr<scalar_t>();
            scalar_t* gRaw = gradients.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(coordinates, samples, [&](auto lane, int64_t d, int64_t sample) {
                using Real = decltype(lane);
                auto& kernel = workspace<Real>();
                const int64_t at = d*samples+sample;
                const Real argument = firstTurn(loadLane<Real>(input+at), circular[d]);
                const auto rawAt = [&](int block, int64_t k) {
                    return loadLane<Real>(raw+family.row(d, block, k)*samples+sample);
                };
                Real x = argument;
                if (inverse)
                    x = evaluateAtRoot<scalar_t>(kernel, argument, rawAt, circular[d]);
                else
                    kernel.evaluate(x, rawAt, circular[d]);
                storeLane(gInput+at, gradientAt(kernel, x, loadLane<Real>(vOutput+at), loadLane<Real>(vLog+at), circular[d],
                        [&](int block, int64_t k, const Real& g) {
                    storeLane(gRaw+family.row(d, block, k)*samples+sample, g);
                }));
            });
        });
        return gradients;
    }

    SecondOrder secondOrder(const Pair& inputs, const Pair& cotangents, const Pair& direction) const override {
        SecondOrder result = {{at::empty_like(inputs.first), at::empty_like(inputs.second)},
                              {at::empty_like(inputs.first), at::empty_like(inputs.first)}};
        AT_DISPATCH_FLOATING_TYPES(inputs.first.scalar_type(), "transformer", [&] {
            const int64_t coordinates = inputs.first.size(0), samples = inputs.first.size(1);
            const scalar_t* input = inputs.first.const_data_ptr<scalar_t>();
            const scalar_t* raw = inputs.second.const_data_ptr<scalar_t>();
            const scalar_t* inputTangent = direction.first.const_data_ptr<scalar_t>();
            const scalar_t* rawTangent = direction.second.const_data_ptr<scalar_t>();
            const scalar_t* vOutput = cotangents.first.const_data_ptr<scalar_t>();
            const scalar_t* vLog = cotangents.second.const_data_ptr<scalar_t>();
            scalar_t* gInput = result.gradientTangents.first.data_ptr<scalar_t>();
            scalar_t* gRaw = result.gradientTangents.second.data_ptr<scalar_t>();
            scalar_t* output = result.outputTangents.first.data_ptr<scalar_t>();
            scalar_t* logDensity = result.outputTangents.second.data_ptr<scalar_t>();
            forEachLane<scalar_t>(coordinates, samples, [&](auto lane, int64_t d, int64_t sample) {
                using T = decltype(lane);
                using Real = Dual<T>;
                auto& kernel = workspace<Real>();
                const int64_t at = d*samples+sample;
                const Real argument = firstTurn(loadLane<Real>(input, inputTangent, at), circular[d]);
                const auto rawAt = [&](int block, int64_t k) {
                    return loadLane<Real>(raw, rawTangent, family.row(d, block, k)*samples+sample);
                };
                Real x = argument;
                if (inverse) {
                    const T root = evaluateAtRoot<scalar_t>(workspace<T>(), argument.value, [&](int block, int64_t k) {
                        return loadLane<T>(raw+family.row(d, block, k)*samples+sample);
                    }, circular[d]);
                    // dx = (dy - dF at fixed x)/F'
                    kernel.evaluate(Real(root, (T) 0), rawAt, circular[d]);
                    x = Real(root, (argument.tangent-kernel.y.tangent)/kernel.density.value);
                }
                kernel.evaluate(x, rawAt, circular[d]);
                const Real vOutputConstant(loadLane<T>(vOutput+at), (T) 0), vLogConstant(loadLane<T>(vLog+at), (T) 0);
                storeLane(gInput+at, gradientAt(kernel, x, vOutputConstant, vLogConstant, circular[d],
                        [&](int block, int64_t k, const Real& g) {
                    storeLane(gRaw+family.row(d, block, k)*samples+sample, g.tangent);
                }).tangent);
                const T logSlope = kernel.density.tangent/kernel.density.value;
                storeLane(output+at, inverse ? x.tangent : kernel.y.tangent);
                storeLane(logDensity+at, inverse ? T(-logSlope) : logSlope);
            });
        });
        return result;
    }

private:
    template <class Real>
    using Kernel = typename Family::template Kernel<Real>;

    /** Coordinates on the circle are taken and returned modulo 1. */
    template <class Real>
    static Real firstTurn(const Real& x, bool isCircle) {
        return isCircle ? Real(x-floor(x)) : x;
    }

    /**
     * The root x of F(x) = y, and the kernel evaluated there: Newton's method in a bracket that starts as [0,1], bisection where it
     * leaves the bracket and, after a while, every other step, which bounds the number of steps. Or the closed form, where there is one.
     */
    template <class Scalar, class Real, class Raw>
    Real evaluateAtRoot(Kernel<Real>& kernel, const Real& y, const Raw& raw, bool isCircle) const {
        if (family.closedInverse()) {
            const Real x = kernel.inverse(y, raw, isCircle);
            kernel.evaluate(x, raw, isCircle);
            return x;
        }
        const int newtonSteps = 30, maxSteps = newtonSteps+2*std::numeric_limits<Scalar>::digits;
        const Real tolerance = (Real) std::numeric_limits<Scalar>::epsilon();
        Real low = (Real) 0, high = (Real) 1, x = y;
        for (int step = 0; step < maxSteps; step++) {
            kernel.evaluate(x, raw, isCircle);
            const Real residual = kernel.y-y;
            low = select(residual < (Real) 0, x, low);
            high = select(residual < (Real) 0, high, x);
            const Real middle = (Real) 0.5*(low+high);
            Real next = x-residual/kernel.density;
            next = select(next < low, middle, next);
            next = select(next > high, middle, next);
            if (step > newtonSteps && step%2 == 0)
                next = middle;
            const Real change = abs(next-x);
            x = next;
            if (!anyLane(change > tolerance))
                break;
        }
        kernel.evaluate(x, raw, isCircle);
        return x;
    }

    /** With the kernel evaluated at x: the gradient of Phi with respect to the input; write receives that for the raw parameters. */
    template <class Real, class Write>
    Real gradientAt(Kernel<Real>& kernel, const Real& x, const Real& vOutput, const Real& vLog, bool isCircle,
            const Write& write) const {
        if (!inverse)
            return kernel.gradient(x, vOutput, vLog, isCircle, write);
        const Real q = (vOutput-vLog*kernel.curvature()/kernel.density)/kernel.density;
        kernel.gradient(x, Real(-q), Real(-vLog), isCircle, write);
        return q;
    }

    /** Room for the components of one lane, kept by each thread. */
    template <class Real>
    Kernel<Real>& workspace() const {
        thread_local Kernel<Real> kernel;
        family.configure(kernel);
        return kernel;
    }

    Family family;
    std::vector<int64_t> circular;
    bool inverse;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TRANSFORMEROPERATOR_H_
