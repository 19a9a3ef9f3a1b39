// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_BENCHMARKS_BENCHMARKS_H_
#define OPENMMFLOW_BENCHMARKS_BENCHMARKS_H_

#include "Models.h"

#include <string>

/** Each registers what it measures with Google Benchmark. Models must live until the benchmarks have run. */
namespace OpenMMFlow {

/** Dense/{single,block}/ROWS/COLUMNS: a product with one matrix, for one molecule and for a block. */
void registerDense();

/** Mixture/{closed,roots}/... and Coupling/{closed,roots}/...: the transformers alone, and all couplings of a model, in either direction. */
void registerCouplings(const NamedModel& model);

/** Evaluator/{single,double}/MODEL/COUNT: the potential with its gradient; Energy/...: without. */
void registerEvaluator(const NamedModel& model);

/** Floor/MODEL: see WeightStream. */
void registerFloor(const NamedModel& model);

/** Roof/{read,multiply}/MODEL: the weights read, and multiplied and added with, at the speed of the processor; of one molecule. */
void registerRoof(const NamedModel& model);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_BENCHMARKS_BENCHMARKS_H_
