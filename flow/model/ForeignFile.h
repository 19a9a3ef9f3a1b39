// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_FOREIGNFILE_H_
#define OPENMMFLOW_FOREIGNFILE_H_

#include <string>
#include <string_view>

namespace OpenMMFlow {

/**
 * What a file that is no safetensors file seems to be, judged by its beginning, and what to do with it. Empty if nothing speaks
 * against safetensors.
 *
 * @param beginning  the first bytes of the file, at least 64 where it has as many
 */
std::string describeForeignFile(std::string_view beginning);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_FOREIGNFILE_H_
