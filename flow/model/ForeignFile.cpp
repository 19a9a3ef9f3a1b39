// SPDX-License-Identifier: MIT
#include "model/ForeignFile.h"

using namespace OpenMMFlow;
using namespace std;

namespace {

struct Signature {
    string_view bytes;
    const char* description;
};

constexpr const char* CHECKPOINT = "a PyTorch checkpoint; `openmmflow import` turns checkpoints of bgflow into model files";

const Signature SIGNATURES[] = {
    {"PK\x03\x04", CHECKPOINT},
    {"\x80\x02", CHECKPOINT},
    {"\x80\x03", CHECKPOINT},
    {"\x80\x04", CHECKPOINT},
    {"\x80\x05", CHECKPOINT},
    {"\x89HDF\r\n\x1a\n", "an HDF5 file, perhaps a data set or a trajectory"},
    {"\x93NUMPY", "a NumPy array"},
    {"\x1f\x8b", "a gzip archive; unpack it first"},
    {"version https://git-lfs", "a Git LFS pointer; fetch the file it stands for with `git lfs pull`"},
    {"<?xml", "an XML file; a serialized System or Force is read by openmm.XmlSerializer"},
    {"{", "a JSON file, perhaps the spec of an import"},
    {"ATOM  ", "a PDB file"},
    {"HEADER", "a PDB file"},
    {"REMARK", "a PDB file"},
    {"CRYST1", "a PDB file"},
};

/** Eight bytes of length, less than 4 GiB in little-endian order, and the opening brace of the header. */
bool beginsLikeSafetensors(string_view beginning) {
    return beginning.size() > 8 && beginning.substr(4, 5) == string_view("\0\0\0\0{", 5);
}

} // namespace

string OpenMMFlow::describeForeignFile(string_view beginning) {
    if (beginning.empty())
        return "an empty file";
    if (beginsLikeSafetensors(beginning))
        return "";
    for (const Signature& signature : SIGNATURES)
        if (beginning.substr(0, signature.bytes.size()) == signature.bytes)
            return signature.description;
    return "";
}
