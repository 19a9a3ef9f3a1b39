// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_BENCHMARKS_MODELS_H_
#define OPENMMFLOW_BENCHMARKS_MODELS_H_

#include "model/FlowModel.h"

#include <string>
#include <vector>

namespace OpenMMFlow {

/** A model that is measured, under the name of its file. */
struct NamedModel {
    std::string name;
    FlowModel model;
    /** One conformation (numParticles, 3), nm. */
    std::vector<double> conformation;
};

/**
 * @param modelPath  a model file
 * @param pdbPath    a PDB file of one molecule, its atoms in the model's order
 * @throws FlowModelError  a file cannot be read, or the two do not belong together
 */
NamedModel loadNamedModel(const std::string& modelPath, const std::string& pdbPath);

/** Many conformations (count, numParticles, 3): the one of the model with a small random shift (0.0005 nm) of every coordinate. */
std::vector<double> conformations(const NamedModel& model, int count);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_BENCHMARKS_MODELS_H_
