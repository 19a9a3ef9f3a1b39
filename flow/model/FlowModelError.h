// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FLOWMODELERROR_H_
#define OPENMMFLOW_FLOWMODELERROR_H_

#include <stdexcept>

namespace OpenMMFlow {

/**
 * A model, a model file or an input array that cannot be used. The message says what is wrong, what was expected and what to do.
 * Python sees it as `openmmflow.FlowModelError`, a ValueError. Classes that are part of OpenMM's world rethrow it as
 * OpenMM::OpenMMException.
 */
class FlowModelError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FLOWMODELERROR_H_
