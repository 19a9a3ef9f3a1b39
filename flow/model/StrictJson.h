// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_STRICTJSON_H_
#define OPENMMFLOW_STRICTJSON_H_

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace OpenMMFlow {

/**
 * Parse a JSON document (RFC 8259) from a file that nobody vouches for: keys must not repeat, and nesting is bounded, so that no
 * document exhausts the stack.
 *
 * @param text  the document, UTF-8
 * @param what  what it is, for messages: "the architecture"
 * @throws FlowModelError  the text is not such a document
 */
nlohmann::json parseStrictJson(std::string_view text, const std::string& what);

} // namespace OpenMMFlow

#endif // OPENMMFLOW_STRICTJSON_H_
