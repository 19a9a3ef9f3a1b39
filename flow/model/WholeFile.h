// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_WHOLEFILE_H_
#define OPENMMFLOW_WHOLEFILE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace OpenMMFlow {

/**
 * The contents of a file.
 *
 * @param path            the file
 * @param checkBeginning  called with the first bytes (64 where there are as many) and the size of the file, before the rest is
 *                        read; may throw
 * @throws FlowModelError  there is no such file, or it cannot be read; the message leaves it to the caller to name the path
 */
std::string readWholeFile(const std::string& path, const std::function<void(std::string_view, std::uint64_t)>& checkBeginning);

/**
 * Write a file that appears complete or not at all; one that was there before survives a failure.
 *
 * @throws FlowModelError  the file cannot be written
 */
void writeWholeFile(const std::string& path, const std::string& contents);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_WHOLEFILE_H_
