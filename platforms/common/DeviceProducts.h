// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DEVICEPRODUCTS_H_
#define OPENMMFLOW_DEVICEPRODUCTS_H_

#include "DevicePlan.h"
#include "model/Architecture.h"

#include <functional>
#include <vector>

namespace OpenMMFlow {

/** The products of networks: where their matrices lie, and which work-items multiply them. Of DevicePlan, whose weights and quads it fills. */
class DeviceProducts {
public:
    /** Elements of a matrix, by input and output. */
    using Matrix = std::function<double(int, int)>;

    /** A product whose matrix has no place yet, as that depends on the others of its step. */
    struct Product {
        FlowProduct product;
        Matrix matrix;
    };

    /**
     * @param plan          what the weights and quads go to; has none yet
     * @param shape         how work is shared out; where work-items of a warp add up sums of 0 slices, as many as are best for
     * @param architecture  whose networks they are
     */
    DeviceProducts(DevicePlan& plan, const DevicePlan::Shape& shape, const Architecture& architecture);

    /**
     * The products of networks, in one direction.
     *
     * @param depths      those of each depth, which are done side by side
     * @param activation  what outputs pass through
     * @param operations  what the operations go to
     */
    void add(std::vector<std::vector<Product>>& depths, ActivationType activation, std::vector<FlowOperation>& operations);

    /** When all are added. */
    void finish();

    const std::vector<FlowStep>& getSteps() const {
        return steps;
    }

    const std::vector<FlowProduct>& getProducts() const {
        return products;
    }

    const std::vector<FlowRound>& getRounds() const {
        return rounds;
    }

    /** Of slices, where their sums go through an arena. */
    int getMostPartialSums() const {
        return mostPartialSums;
    }

private:
    struct Depth;

    int bestSlices(const Architecture& architecture) const;
    std::vector<Depth> depthsOf(const Conditioner& conditioner, bool forward) const;
    int log2Slices(int numQuads, int shortest) const;
    int numQuads(int outputs) const;
    std::size_t quadsOfRound(int slices) const;
    int addMatrix(int inputs, int outputs, int quads, int slices, const Matrix& value);
    void addStep(int activation, std::vector<Product>& items, std::vector<FlowOperation>& operations);
    void addRounds(int activation, const std::vector<Product>& items);
    FlowQuad quadOf(const FlowProduct& product, int output);

    DevicePlan& plan;
    const DevicePlan::Shape shape;
    std::vector<FlowStep> steps;
    std::vector<FlowProduct> products;
    std::vector<FlowRound> rounds;
    int mostPartialSums = 0;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DEVICEPRODUCTS_H_
