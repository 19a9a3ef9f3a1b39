// SPDX-License-Identifier: MIT
#include "DevicePrologue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <sstream>

namespace OpenMMFlow {

DevicePrologue::DevicePrologue(const std::string& path) : path(path) {
    std::ifstream file(path, std::ios::binary);
    library.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

std::string DevicePrologue::constantWith(const std::string& text) const {
    const std::size_t place = library.find(text);
    if (place == std::string::npos) {
        ADD_FAILURE() << "'" << text << "' is not in " << path;
        return "";
    }
    const std::size_t begin = library.rfind('\0', place)+1;
    return library.substr(begin, library.find('\0', place)-begin);
}

std::string DevicePrologue::operator()(const std::string& precision, const std::string& first,
        const std::map<std::string, std::string>& functions, const std::string& common,
        const std::map<std::string, std::string>& definitions) const {
    const bool isDouble = precision == "double", mixedIsDouble = precision != "single";
    const std::string real = isDouble ? "double" : "float", mixed = mixedIsDouble ? "double" : "float";
    std::ostringstream text;
    text << first;
    if (isDouble)
        text << "#define USE_DOUBLE_PRECISION 1\n";
    else if (mixedIsDouble)
        text << "#define USE_MIXED_PRECISION 1\n";
    for (const std::string function : {"sqrt", "rsqrt", "exp", "log", "pow", "cos", "sin", "tan", "acos", "asin", "atan", "erf", "erfc",
            "fma", "fabs"}) {
        std::string name = function;
        std::transform(name.begin(), name.end(), name.begin(), ::toupper);
        const auto own = functions.find(function);
        text << "#define " << name << " " << (isDouble ? function : own == functions.end() ? function+"f" : own->second) << "\n";
    }
    for (const std::string size : {"2", "3", "4"})
        text << "#define make_real" << size << " make_" << real << size << "\n#define make_mixed" << size << " make_" << mixed << size << "\n";
    for (const std::string size : {"", "2", "3", "4"})
        text << "typedef " << real << size << " real" << size << ";\ntypedef " << mixed << size << " mixed" << size << ";\n";
    text << "typedef unsigned int tileflags;\n" << constantWith(common) << "\n";
    for (const auto& [name, value] : definitions)
        text << "#define " << name << " " << value << "\n";
    return text.str();
}

} // namespace OpenMMFlow
