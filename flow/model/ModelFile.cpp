// SPDX-License-Identifier: MIT
#include "model/ModelFile.h"
#include "model/ArchitectureJson.h"
#include "model/ArchitectureTensors.h"
#include "model/ArchitectureValidation.h"
#include "model/Failure.h"
#include "model/SafetensorsFile.h"

#include <zlib.h>

using namespace OpenMMFlow;
using namespace std;

namespace {

const char* const ARCHITECTURE_KEY = "openmmflow";
const char* const CHECKSUM_KEY = "crc32";

class Checksum {
public:
    void add(const string& data) {
        value = crc32_z(value, (const Bytef*) data.data(), data.size());
    }

    string hexadecimal() const {
        char text[9];
        snprintf(text, sizeof(text), "%08lx", value);
        return text;
    }

private:
    uLong value = crc32_z(0, nullptr, 0);
};

string checksumOf(const string& json, const map<string, const Tensor*>& tensors) {
    Checksum checksum;
    checksum.add(json);
    for (const auto& [name, tensor] : tensors) {
        checksum.add(name);
        checksum.add(rawData(*tensor));
    }
    return checksum.hexadecimal();
}

map<string, const Tensor*> pointersTo(const map<string, Tensor>& tensors) {
    map<string, const Tensor*> pointers;
    for (const auto& [name, tensor] : tensors)
        pointers[name] = &tensor;
    return pointers;
}

} // namespace

ModelContents OpenMMFlow::readModelFile(string_view bytes) {
    SafetensorsFile file = readSafetensors(bytes);
    auto json = file.metadata.find(ARCHITECTURE_KEY);
    if (json == file.metadata.end())
        fail("this safetensors file is no model file: its metadata has no '", ARCHITECTURE_KEY,
                "' with an architecture. Expected a file that openmmflow wrote; docs/model_format.md says how others can write one");
    ModelContents contents;
    contents.json = json->second;
    contents.checksum = checksumOf(contents.json, pointersTo(file.tensors));
    auto stored = file.metadata.find(CHECKSUM_KEY);
    if (stored != file.metadata.end() && stored->second != contents.checksum)
        fail("the model file is damaged: its checksum is ", stored->second, ", but its contents have ", contents.checksum,
                ". Get it again from where it came from; if it was edited on purpose, write it with openmmflow.model_file");

    contents.architecture = readArchitecture(contents.json);
    validateStructure(contents.architecture);
    attachTensors(contents.architecture, move(file.tensors));
    validateWeights(contents.architecture);
    return contents;
}

string OpenMMFlow::writeModelFile(const string& json, const map<string, const Tensor*>& tensors) {
    return writeSafetensors({{ARCHITECTURE_KEY, json}, {CHECKSUM_KEY, checksumOf(json, tensors)}}, tensors);
}
