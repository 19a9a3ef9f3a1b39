# SPDX-License-Identifier: MIT
# Writes a C++ source that defines a string: the texts of some files, one after the other.
#
#   cmake -DOUTPUT=file.cpp -DNAME=Namespace::variable -DINPUTS=file;file... -P EmbedText.cmake

set(content "// Made by cmake/EmbedText.cmake\n#include <string>\n\n")
string(REGEX MATCH "^(.*)::([^:]*)$" matched "${NAME}")
string(APPEND content "namespace ${CMAKE_MATCH_1} {\n\nextern const std::string ${CMAKE_MATCH_2};\nconst std::string ${CMAKE_MATCH_2} =\n")
foreach(input IN LISTS INPUTS)
    # A literal for each file: compilers limit the length of one.
    file(READ "${input}" text)
    string(APPEND content "R\"__text__(${text})__text__\"\n")
endforeach()
string(APPEND content ";\n\n} // namespace ${CMAKE_MATCH_1}\n")
file(WRITE "${OUTPUT}" "${content}")
