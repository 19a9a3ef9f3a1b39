// SPDX-License-Identifier: MIT
// CUDA compiles with fast math, whether one wants it or not. Here its errors are emulated at their documented bounds: for each formula,
// and for the forces that the whole device kernel computes with trained models.
#include "EmulatedKernel.h"
#include "FastFloat.h"
#include "FlowForceTesting.h"
#include "formulas/Formulas.h"

#include <cmath>

using OpenMM::Vec3;

namespace OpenMMFlow {

namespace {

/** A formula as a function of some arguments, for double and for FastFloat. */
struct Formula {
    std::string name;
    std::vector<std::pair<double, double>> ranges;    // of the arguments
    std::function<std::vector<double>(const std::vector<double>&)> exact;
    std::function<std::vector<FastFloat>(const std::vector<FastFloat>&)> fast;
};

/** @param function  of any scalar: a null pointer that tells the type, and the arguments, to values */
template <class Function>
Formula formula(const std::string& name, const std::vector<std::pair<double, double>>& ranges, Function function) {
    return {name, ranges, [=](const std::vector<double>& x) { return function(static_cast<Formulas<double>*>(nullptr), x); },
            [=](const std::vector<FastFloat>& x) { return function(static_cast<Formulas<FastFloat>*>(nullptr), x); }};
}

template <class F>
using Values = std::vector<typename F::real>;

template <class F, class T>
typename F::Vector vectorAt(const T& x, int i) {
    return {x[3*i], x[3*i+1], x[3*i+2]};
}

/** Arguments are where trained flows have them: alpha from its least value to 10, steepness from 1/e to e, raw parameters up to 6. */
std::vector<Formula> formulas() {
    const std::pair<double, double> raw(-6, 6), alpha(0.87, 10), unit(0, 1), steepness(0.37, 2.7), place(0.05, 0.95);
    std::vector<Formula> all;
    for (int exponent : {1, 2})
        all.push_back(formula("smoothSigmoid, exponent "+std::to_string(exponent), {unit, alpha}, [=](auto* f, const auto& x) {
            using F = std::remove_pointer_t<decltype(f)>;
            const auto s = F::smoothSigmoid(x[0], x[1], exponent);
            return Values<F>{s.value, s.d1, s.d2, s.dAlpha, s.d1Alpha};
        }));
    for (bool circular : {false, true})
        all.push_back(formula(circular ? "mixtureComponent, circle" : "mixtureComponent, interval",
                {unit, unit, circular ? std::make_pair(1.0, 2.7) : steepness, {0.87, 3}, place}, [=](auto* f, const auto& x) {
            using F = std::remove_pointer_t<decltype(f)>;
            const auto ends = F::mixtureComponentEnds(x[1], x[2], x[3], 1, circular);
            const auto s = F::smoothSigmoid(F::mixtureComponentArgument(x[0], x[1], x[2], circular), x[3], 1);
            const auto c = F::mixtureComponent(x[0], x[2], x[4], s, ends, F::mixtureComponentWinding(x[0], x[1], x[2], circular));
            return Values<F>{c.value, c.d1, c.d2};
        }));
    all.push_back(formula("headLogistic", {raw}, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto p = F::headLogistic(x[0], 0.87, 9);
        return Values<F>{p.value, p.d1};
    }));
    all.push_back(formula("headSteepnessOnInterval", {raw}, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto p = F::headSteepnessOnInterval(x[0], 1, 1);
        return Values<F>{p.value, p.d1};
    }));
    all.push_back(formula("headSteepnessOnCircle", {raw}, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto p = F::headSteepnessOnCircle(x[0], 1);
        return Values<F>{p.value, p.d1};
    }));
    all.push_back(formula("headCentreOnInterval", {raw, place}, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto p = F::headCentreOnInterval(x[0], x[1]);
        return Values<F>{p.value, p.d1};
    }));
    const auto activation = [&](const std::string& name, std::pair<double, double> range, auto function) {
        all.push_back(formula(name, {range}, [=](auto* f, const auto& x) {
            using F = std::remove_pointer_t<decltype(f)>;
            const auto a = function(f, x[0]);
            return Values<F>{a.value, a.d1};
        }));
    };
    const std::pair<double, double> input(-12, 12);
    activation("activationSiLU", input, [](auto* f, auto x) { return std::remove_pointer_t<decltype(f)>::activationSiLU(x); });
    activation("activationTanh", input, [](auto* f, auto x) { return std::remove_pointer_t<decltype(f)>::activationTanh(x); });
    activation("activationSin", input, [](auto* f, auto x) { return std::remove_pointer_t<decltype(f)>::activationSin(x); });
    activation("activationGELU", input, [](auto* f, auto x) { return std::remove_pointer_t<decltype(f)>::activationGELU(x); });
    activation("activationSoftplus", input, [](auto* f, auto x) { return std::remove_pointer_t<decltype(f)>::activationSoftplus(x); });
    all.push_back(formula("uniformMarginal", {place}, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto m = F::uniformMarginal(x[0], 0.03, 1.1, std::log(1.1));
        return Values<F>{m.value, m.logDensity, m.dLogDensity};
    }));
    all.push_back(formula("normalMarginal", {{-4, 4}}, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto m = F::normalMarginal(x[0], 0.1, 1, 0, 1, -0.918938533204672742);
        return Values<F>{m.value, m.logDensity, m.dLogDensity};
    }));
    // Particles in boxes apart from each other, so that no two of them and no three in a line meet.
    const std::vector<std::pair<double, double>> four = {{0, 0.03}, {0, 0.03}, {0, 0.03}, {0.12, 0.15}, {0, 0.03}, {0, 0.03}, {0.15, 0.18},
            {0.12, 0.15}, {0, 0.03}, {0.27, 0.3}, {0.12, 0.15}, {0.1, 0.13}};
    all.push_back(formula("bondLength", four, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto b = F::bondLength(vectorAt<F>(x, 0), vectorAt<F>(x, 1));
        return Values<F>{b.length, b.dI.x};
    }));
    all.push_back(formula("bondAngle", four, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto a = F::bondAngle(vectorAt<F>(x, 0), vectorAt<F>(x, 1), vectorAt<F>(x, 2));
        return Values<F>{a.cosine, a.sine, a.dI.x, a.dK.y};
    }));
    all.push_back(formula("torsion", four, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto t = F::torsion(vectorAt<F>(x, 0), vectorAt<F>(x, 1), vectorAt<F>(x, 2), vectorAt<F>(x, 3));
        return Values<F>{t.scaledSine, t.scaledCosine, t.dI.x, t.dJ.y, t.dK.z, t.dL.x};
    }));
    // Of a block that is about as large as a ring, turned by up to some tenths of a radian from its reference.
    const std::pair<double, double> diagonal(0.03, 0.06), other(-0.015, 0.015);
    all.push_back(formula("alignment", {diagonal, other, other, other, diagonal, other, other, other, diagonal}, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto a = F::alignment({x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], x[8]});
        return Values<F>{a.rotation.xx, a.rotation.xy, a.rotation.yz, a.rotation.zx, a.inverse.xx, a.inverse.yz, a.determinant};
    }));
    all.push_back(formula("saturate, chi and wall", {{0.05, 0.2}}, [](auto* f, const auto& x) {
        using F = std::remove_pointer_t<decltype(f)>;
        const auto s = F::saturate(x[0], 0.1, 0.15, 0.004), chi = F::chiOfLength(x[0], 0.06, 50), w = F::wall(x[0], 0.1, 0.15, 200);
        return Values<F>{s.value, s.d1, chi.value, chi.d1, w.value, w.d1};
    }));
    return all;
}

} // namespace

TEST(FastMath, ErrorsOfFormulas) {
    std::mt19937 random(1);
    FastFloat::seed(1);
    double worstOfAll = 0;
    for (const Formula& formula : formulas()) {
        // The error of each value relative to the largest that it has: what it adds to a sum of such values.
        std::vector<double> errors, magnitudes;
        for (int n = 0; n < 20000; n++) {
            std::vector<FastFloat> x;
            std::vector<double> exactX;
            for (const auto& [low, high] : formula.ranges) {
                x.push_back(std::uniform_real_distribution<double>(low, high)(random));
                exactX.push_back(x.back());
            }
            const std::vector<double> exact = formula.exact(exactX);
            const std::vector<FastFloat> fast = formula.fast(x);
            errors.resize(exact.size());
            magnitudes.resize(exact.size());
            for (std::size_t i = 0; i < exact.size(); i++) {
                const double error = std::abs(fast[i]-exact[i]);
                errors[i] = error <= errors[i] ? errors[i] : std::isnan(error) ? HUGE_VAL : error;
                magnitudes[i] = std::max(magnitudes[i], std::abs(exact[i]));
            }
        }
        double worst = 0;
        for (std::size_t i = 0; i < errors.size(); i++)
            if (magnitudes[i] > 0)
                worst = std::max(worst, errors[i]/magnitudes[i]);
        report("worst error of "+formula.name, worst);
        EXPECT_LE(worst, 2e-5) << formula.name;
        worstOfAll = std::max(worstOfAll, worst);
    }
    report("worst error of all formulas, of the largest value of each", worstOfAll);
}

TEST(FastMath, SineOfLargeArguments) {
    // The hardware's sine alone would be off by more than a thousandth where networks that are not well-behaved have their sums.
    std::mt19937 random(2);
    FastFloat::seed(2);
    double reduced = 0, bare = 0;
    for (int n = 0; n < 100000; n++) {
        const FastFloat x = std::uniform_real_distribution<double>(-1e4, 1e4)(random);
        const Formulas<FastFloat>::Activation fast = Formulas<FastFloat>::activationSin(x);
        const double exact = std::sin(static_cast<double>(x));
        reduced = std::max({reduced, std::abs(fast.value-exact), std::abs(fast.d1-std::cos(static_cast<double>(x)))});
        bare = std::max(bare, std::abs(sin(x)-exact));
    }
    report("error of the range-reduced sine and cosine", reduced);
    report("of the hardware's", bare);
    EXPECT_LE(reduced, 2e-6);
    EXPECT_GT(bare, 1e-4);
}

struct NamedModel {
    const char* name;
    FlowModel (*make)();
};

/** What GoogleTest prints of one. */
void PrintTo(const NamedModel& model, std::ostream* out) {
    *out << model.name;
}

/** Parameterised over trained models, and one with mixed coordinates, which has random weights. */
class FastMathForces : public testing::TestWithParam<NamedModel> {
protected:
    const FlowModel model = GetParam().make();
    const FlowForce force{model};
    const int size = model.getNumParticles();
    std::mt19937 random{3};

    /** Samples of the model, each moved by a normal deviate, nm, in numbers that single precision holds. */
    std::vector<std::vector<Vec3>> frames(int count, double deviation) {
        std::vector<double> x(3*size*count), logProb(count);
        model.sample(count, 1, x.data(), logProb.data());
        std::normal_distribution<double> normal(0, deviation);
        std::vector<std::vector<Vec3>> frames(count, std::vector<Vec3>(size));
        for (int n = 0; n < count; n++)
            for (int i = 0; i < size; i++)
                for (int k = 0; k < 3; k++)
                    frames[n][i][k] = static_cast<float>(x[3*(n*size+i)+k]+(deviation > 0 ? normal(random) : 0));
        return frames;
    }

    /** Root mean square error of the forces of some frames over the root mean square force; the worst of some seeds. */
    double error(const std::vector<std::vector<Vec3>>& frames, KernelPrecision precision, int numSeeds) {
        Simulation reference(testPlatform("Reference"), new FlowForce(model), frames.front());
        std::vector<std::vector<Vec3>> exact;
        double square = 0;
        for (const std::vector<Vec3>& frame : frames) {
            reference.context->setPositions(frame);
            exact.push_back(reference.forces());
            square += std::pow(rootMeanSquare(exact.back()), 2);
        }
        double worst = 0;
        for (int seed = 0; seed < numSeeds; seed++) {
            double errorSquare = 0;
            for (std::size_t n = 0; n < frames.size(); n++) {
                std::vector<Vec3> difference = emulatedKernel(force, frames[n], precision, seed*frames.size()+n).forces;
                for (int i = 0; i < size; i++)
                    difference[i] -= exact[n][i];
                errorSquare += std::pow(rootMeanSquare(difference), 2);
            }
            const double error = std::sqrt(errorSquare/square);
            worst = error <= worst ? worst : std::isnan(error) ? HUGE_VAL : error;
        }
        return worst;
    }
};

INSTANTIATE_TEST_SUITE_P(Models, FastMathForces, testing::Values(
        NamedModel{"Shipped", [] { return FlowModel::load("python/openmmflow/data/alanine_dipeptide.safetensors"); }},
        NamedModel{"Small", [] { return FlowModel::load("tests/data/alanine_dipeptide_small.safetensors"); }},
        NamedModel{"MixedCoordinates", [] { return testModel(mixedTestModel); }}), [](const auto& info) { return info.param.name; });

TEST_P(FastMathForces, StayWithinTheBoundsOfEachPrecision) {
    const struct {
        const char* name;
        KernelPrecision precision;
        int numSeeds;
        double bound;
    } cases[] = {{"single", KernelPrecision::Single, 4, 1e-4}, {"mixed", KernelPrecision::Mixed, 4, 2e-5},
            {"double, which has no fast math", KernelPrecision::Double, 1, 1e-9}};
    const struct {
        const char* name;
        double deviation;
    } kinds[] = {{"samples", 0}, {"samples moved towards the edges", 0.004}};
    for (const auto& [kind, deviation] : kinds) {
        const std::vector<std::vector<Vec3>> positions = frames(8, deviation);
        for (const auto& [name, precision, numSeeds, bound] : cases) {
            const double found = error(positions, precision, numSeeds);
            report(std::string("force error, ")+name+", "+kind, found);
            EXPECT_LE(found, bound);
        }
    }
}

} // namespace OpenMMFlow
