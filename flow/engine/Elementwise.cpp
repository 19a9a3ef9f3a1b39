// SPDX-License-Identifier: MIT
#include "engine/Elementwise.h"
#include "formulas/Formulas.h"

#include <cmath>

using namespace OpenMMFlow;
using namespace std;

using F = Formulas<double>;

namespace {

MarginalPlan::Map mapOf(ElementwiseMap map) {
    switch (map) {
        case ElementwiseMap::AffineNormalization: return MarginalPlan::Map::AffineNormalization;
        case ElementwiseMap::Logit: return MarginalPlan::Map::Logit;
        case ElementwiseMap::Logistic: return MarginalPlan::Map::Logistic;
        default: return MarginalPlan::Map::CircularShift;
    }
}

} // namespace

Elementwise::Elementwise(const ElementwiseLayer& layer) : map(mapOf(layer.map)), coordinates(layer.coordinates) {
    for (size_t i = 0; i < coordinates.size(); i++) {
        MarginalPlan::Parameters p = {};
        if (!layer.shift.values.empty())
            p.lower = layer.shift.values[i];
        if (!layer.scale.values.empty()) {
            p.inverseWidth = 1/layer.scale.values[i];
            p.logInverseWidth = -log(layer.scale.values[i]);
        }
        parameters.push_back(p);
    }
}

MarginalPlan Elementwise::plan() const {
    return {map, static_cast<int>(coordinates.size()), coordinates.data(), parameters.data()};
}

void Elementwise::sample(int M, double* x, double* logDet) const {
    for (size_t i = 0; i < coordinates.size(); i++) {
        const MarginalPlan::Parameters& p = parameters[i];
        for (int m = 0; m < M; m++) {
            double& value = x[coordinates[i]*static_cast<size_t>(M)+m];
            switch (map) {
                case MarginalPlan::Map::AffineNormalization:
                    value = p.lower+value/p.inverseWidth;
                    logDet[m] += p.logInverseWidth;
                    break;
                case MarginalPlan::Map::CircularShift:
                    value = F::circularShiftMap(value, -p.lower).value;
                    break;
                default: {
                    // Each of the two is the other one's inverse.
                    const F::MarginalValue inverse = (map == MarginalPlan::Map::Logit ? F::logisticMap(value) : F::logitMap(value));
                    value = inverse.value;
                    logDet[m] -= inverse.logDensity;
                }
            }
        }
    }
}
