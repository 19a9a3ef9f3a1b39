// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_BASE64_H_
#define OPENMMFLOW_BASE64_H_

#include <string>

namespace OpenMMFlow {

/** RFC 4648, section 4, with padding and without line breaks. */
std::string encodeBase64(const std::string& bytes);

/** The bytes of a base64 text; white space is skipped. OpenMMException if it is no such text. */
std::string decodeBase64(const std::string& text);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_BASE64_H_
