// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FAILURE_H_
#define OPENMMFLOW_FAILURE_H_

#include "model/FlowModelError.h"

#include <sstream>

namespace OpenMMFlow {

/** Throw a FlowModelError whose message is the arguments one after the other, written as to a stream. */
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw FlowModelError(message.str());
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FAILURE_H_
