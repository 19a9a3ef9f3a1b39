// SPDX-License-Identifier: MIT
#include "model/StrictJson.h"
#include "model/Failure.h"

#include <set>
#include <vector>

using namespace OpenMMFlow;
using namespace std;
using nlohmann::json;

static const int MAX_DEPTH = 32;

json OpenMMFlow::parseStrictJson(string_view text, const string& what) {
    vector<set<string>> openObjects;
    auto check = [&](int depth, json::parse_event_t event, json& parsed) {
        if (depth > MAX_DEPTH)
            fail(what, " is nested more than ", MAX_DEPTH, " levels deep");
        if (event == json::parse_event_t::object_start)
            openObjects.emplace_back();
        else if (event == json::parse_event_t::object_end)
            openObjects.pop_back();
        else if (event == json::parse_event_t::key && !openObjects.back().insert(parsed.get<string>()).second)
            fail(what, " has the key \"", parsed.get<string>(), "\" twice in one object; remove one of them");
        return true;
    };
    try {
        return json::parse(text, check);
    }
    catch (const json::exception& error) {
        // The library's messages start with an identifier of its own in brackets.
        string reason = error.what();
        if (size_t end = reason.find("] "); end != string::npos)
            reason = reason.substr(end+2);
        fail(what, " is not a valid JSON document: ", reason);
    }
}
