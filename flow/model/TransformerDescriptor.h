// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_TRANSFORMERDESCRIPTOR_H_
#define OPENMMFLOW_TRANSFORMERDESCRIPTOR_H_

#include "model/Domain.h"

#include <string>
#include <utility>
#include <vector>

namespace OpenMMFlow {

/** How many continuous derivatives a map has. */
enum class Smoothness { C1, C2, Infinite };

const char* describe(Smoothness smoothness);

/**
 * What the software knows of a transformer beside its formulas (flow/formulas/Transformers.h): names and ranges of its settings, the
 * blocks of its raw parameters, and its properties. docs/model_format.md defines the meaning, docs/new_transformer.md tells how to add one.
 */
struct TransformerDescriptor {
    /** A number of the JSON object: more than `lower`, at most or less than upper(size). */
    struct Setting {
        const char* name;
        double lower;
        double (*upper)(int size);
        bool upperIncluded;
    };
    /** A block of raw parameters, (coordinates, rows): rows = rowsOfSize*size + moreRows. */
    struct Block {
        int rowsOfSize, moreRows;
        /** Whether only coordinates on intervals have it. */
        bool ofIntervals;
    };

    const char* name;
    /** Of the formula text: TRANSFORMER_... */
    int number;
    Smoothness smoothness;
    std::vector<Domain> domains;
    /** Key of the size, "bins" or "components" or so, and its range; null if there is none, and the size is 1. */
    const char* sizeName;
    int smallestSize, largestSize;
    /** At most MAX_SETTINGS. */
    std::vector<Setting> settings;
    std::vector<Block> blocks;
    /**
     * Bounds of ln F' from size, settings and a bound of |raw parameters|.
     */
    std::pair<double, double> (*logSlopeRange)(int size, const std::vector<double>& settings, double largestRaw);

    static const int MAX_SETTINGS = 4;

    int numRows(const Block& block, int size) const {
        return block.rowsOfSize*size+block.moreRows;
    }
};

/** All of them, in the order of their numbers. */
const std::vector<TransformerDescriptor>& transformerDescriptors();

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TRANSFORMERDESCRIPTOR_H_
