// SPDX-License-Identifier: MIT
#include "module/DenseConditioner.h"

#include <ATen/Dispatch.h>
#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>

namespace OpenMMFlow {

using at::Tensor;

namespace {

constexpr double TWO_PI = 6.28318530717958648;

Tensor directionOf(const TensorList& direction, size_t index) {
    return direction.empty() ? Tensor() : direction[index];
}

} // namespace

DenseConditioner::DenseConditioner(std::vector<int> plain, std::vector<int> circular, c10::intrusive_ptr<DifferentiableOperator> activation,
        std::vector<Network> networks) :
        plain(std::move(plain)), circular(std::move(circular)), activation(std::move(activation)), networks(std::move(networks)) {
}

Tensor DenseConditioner::emptyRaw(const TensorList& tensors, std::int64_t samples) const {
    std::int64_t rows = 0;
    for (const Network& network : networks)
        rows += tensors[network.back().weight].size(0);
    return at::empty({rows, samples}, tensors[networks.front().front().weight].options().requires_grad(false));
}

Tensor DenseConditioner::value(const Tensor& y, const TensorList& tensors, Values& values) const {
    const std::int64_t samples = y.size(1);
    values.features = at::empty({numFeatures(), samples}, y.options());
    AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "conditioner", [&] {
        const scalar_t* from = y.const_data_ptr<scalar_t>();
        scalar_t* to = values.features.mutable_data_ptr<scalar_t>();
        for (int coordinate : plain)
            to = std::copy_n(from+coordinate*samples, samples, to);
        for (int coordinate : circular) {
            const scalar_t* angle = from+coordinate*samples;
            scalar_t* sine = to+circular.size()*samples;
            for (std::int64_t i = 0; i < samples; i++) {
                to[i] = std::cos((scalar_t) TWO_PI*angle[i]);
                sine[i] = std::sin((scalar_t) TWO_PI*angle[i]);
            }
            to += samples;
        }
    });
    const Tensor raw = emptyRaw(tensors, samples);
    std::int64_t row = 0;
    for (const Network& network : networks) {
        TensorList h = {values.features}, preactivation;
        for (const Layer& layer : network) {
            const Tensor& weight = tensors[layer.weight];
            const Tensor bias = tensors[layer.bias].unsqueeze(1);
            if (&layer == &network.back()) {
                Tensor out = raw.narrow(0, row, weight.size(0));
                at::addmm_out(out, bias, weight, h.back());
                row += weight.size(0);
            }
            else {
                preactivation.push_back(at::addmm(bias, weight, h.back()));
                h.push_back(activation->value({preactivation.back(), Tensor()}).first);
            }
        }
        values.h.push_back(std::move(h));
        values.preactivation.push_back(std::move(preactivation));
    }
    return raw;
}

void DenseConditioner::gradient(const Tensor& vRaw, Tensor& vY, const TensorList& tensors, const Values& values, Cotangents& cotangents,
        TensorList* gradients) const {
    std::int64_t row = 0;
    for (size_t n = 0; n < networks.size(); n++) {
        const Network& network = networks[n];
        const std::int64_t rows = tensors[network.back().weight].size(0);
        TensorList outputs(network.size()), h(network.size());
        Tensor v = vRaw.narrow(0, row, rows);
        row += rows;
        for (size_t m = network.size(); m-- > 0;) {
            outputs[m] = v;
            if (gradients) {
                (*gradients)[network[m].weight] = v.mm(values.h[n][m].t());
                (*gradients)[network[m].bias] = v.sum(1);
            }
            if (m > 0) {
                h[m] = tensors[network[m].weight].t().mm(v);
                v = activation->gradient({values.preactivation[n][m-1], Tensor()}, {h[m], Tensor()}).first;
            }
            else if (!cotangents.features.defined())
                cotangents.features = tensors[network[m].weight].t().mm(v);
            else
                cotangents.features.addmm_(tensors[network[m].weight].t(), v);
        }
        cotangents.outputs.push_back(std::move(outputs));
        cotangents.h.push_back(std::move(h));
    }
    const std::int64_t samples = vY.size(1), turns = circular.size()*samples;
    AT_DISPATCH_FLOATING_TYPES(vY.scalar_type(), "conditioner", [&] {
        scalar_t* to = vY.mutable_data_ptr<scalar_t>();
        const scalar_t* v = cotangents.features.const_data_ptr<scalar_t>();
        const scalar_t* f = values.features.const_data_ptr<scalar_t>();
        for (int coordinate : plain)
            for (std::int64_t i = 0; i < samples; i++, v++, f++)
                to[coordinate*samples+i] += *v;
        for (int coordinate : circular)
            for (std::int64_t i = 0; i < samples; i++, v++, f++)
                to[coordinate*samples+i] += (scalar_t) TWO_PI*(f[0]*v[turns]-f[turns]*v[0]);
    });
}

Tensor DenseConditioner::tangent(const Tensor& yTangent, const TensorList& tensors, const TensorList& direction, const Values& values,
        const Cotangents& cotangents, Tangents& tangents) const {
    const std::int64_t samples = yTangent.size(1), turns = circular.size()*samples;
    tangents.features = at::empty_like(values.features);
    AT_DISPATCH_FLOATING_TYPES(yTangent.scalar_type(), "conditioner", [&] {
        const scalar_t* from = yTangent.const_data_ptr<scalar_t>();
        const scalar_t* f = values.features.const_data_ptr<scalar_t>()+plain.size()*samples;
        scalar_t* to = tangents.features.mutable_data_ptr<scalar_t>();
        for (int coordinate : plain)
            to = std::copy_n(from+coordinate*samples, samples, to);
        for (int coordinate : circular)
            for (std::int64_t i = 0; i < samples; i++, to++, f++) {
                const scalar_t rate = (scalar_t) TWO_PI*from[coordinate*samples+i];
                to[0] = -rate*f[turns];
                to[turns] = rate*f[0];
            }
    });
    const Tensor raw = emptyRaw(tensors, samples);
    std::int64_t row = 0;
    for (size_t n = 0; n < networks.size(); n++) {
        const Network& network = networks[n];
        TensorList h = {tangents.features}, curvature;
        for (size_t m = 0; m < network.size(); m++) {
            const Tensor& weight = tensors[network[m].weight];
            const Tensor weightTangent = directionOf(direction, network[m].weight), biasTangent = directionOf(direction, network[m].bias);
            const bool last = m+1 == network.size();
            Tensor out = last ? raw.narrow(0, row, weight.size(0)) : at::empty({weight.size(0), samples}, raw.options());
            at::mm_out(out, weight, h.back());
            if (weightTangent.defined())
                out.addmm_(weightTangent, values.h[n][m]);
            if (biasTangent.defined())
                out.add_(biasTangent.unsqueeze(1));
            if (last)
                row += weight.size(0);
            else {
                const auto second = activation->secondOrder({values.preactivation[n][m], Tensor()}, {cotangents.h[n][m+1], Tensor()},
                        {out, Tensor()});
                h.push_back(second.outputTangents.first);
                curvature.push_back(second.gradientTangents.first);
            }
        }
        tangents.h.push_back(std::move(h));
        tangents.curvature.push_back(std::move(curvature));
    }
    return raw;
}

void DenseConditioner::gradientTangent(const Tensor& vRawTangent, Tensor& vYTangent, const TensorList& tensors, const TensorList& direction,
        const Values& values, const Cotangents& cotangents, const Tangents& tangents, TensorList* gradients) const {
    std::int64_t row = 0;
    Tensor vFeatures;
    for (size_t n = 0; n < networks.size(); n++) {
        const Network& network = networks[n];
        const std::int64_t rows = tensors[network.back().weight].size(0);
        Tensor v = vRawTangent.narrow(0, row, rows);
        row += rows;
        for (size_t m = network.size(); m-- > 0;) {
            const Layer& layer = network[m];
            if (gradients) {
                (*gradients)[layer.weight] = v.mm(values.h[n][m].t()).addmm_(cotangents.outputs[n][m], tangents.h[n][m].t());
                (*gradients)[layer.bias] = v.sum(1);
            }
            Tensor vH = tensors[layer.weight].t().mm(v);
            const Tensor weightTangent = directionOf(direction, layer.weight);
            if (weightTangent.defined())
                vH.addmm_(weightTangent.t(), cotangents.outputs[n][m]);
            if (m > 0)
                v = activation->gradient({values.preactivation[n][m-1], Tensor()}, {vH, Tensor()}).first.add_(tangents.curvature[n][m-1]);
            else
                vFeatures = vFeatures.defined() ? vFeatures.add_(vH) : vH;
        }
    }
    const std::int64_t samples = vYTangent.size(1), turns = circular.size()*samples;
    AT_DISPATCH_FLOATING_TYPES(vYTangent.scalar_type(), "conditioner", [&] {
        scalar_t* to = vYTangent.mutable_data_ptr<scalar_t>();
        const scalar_t* vTangent = vFeatures.const_data_ptr<scalar_t>();
        const scalar_t* v = cotangents.features.const_data_ptr<scalar_t>();
        const scalar_t* f = values.features.const_data_ptr<scalar_t>();
        const scalar_t* fTangent = tangents.features.const_data_ptr<scalar_t>();
        for (int coordinate : plain)
            for (std::int64_t i = 0; i < samples; i++, vTangent++, v++, f++, fTangent++)
                to[coordinate*samples+i] += *vTangent;
        for (int coordinate : circular)
            for (std::int64_t i = 0; i < samples; i++, vTangent++, v++, f++, fTangent++)
                to[coordinate*samples+i] += (scalar_t) TWO_PI*(f[0]*vTangent[turns]-f[turns]*vTangent[0]
                        +fTangent[0]*v[turns]-fTangent[turns]*v[0]);
    });
}

} // namespace OpenMMFlow
