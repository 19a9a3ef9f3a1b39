// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_DOMAIN_H_
#define OPENMMFLOW_DOMAIN_H_

namespace OpenMMFlow {

/** Of one coordinate: the real line, [0,1], or the circle of period 1. */
enum class Domain { Real, Interval, Circle };

inline const char* describe(Domain domain) {
    return domain == Domain::Real ? "real" : domain == Domain::Interval ? "interval" : "circle";
}

} // namespace OpenMMFlow

#endif // OPENMMFLOW_DOMAIN_H_
