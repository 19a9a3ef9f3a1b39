// SPDX-License-Identifier: MIT
#include "model/SafetensorsFile.h"
#include "model/Failure.h"
#include "model/ForeignFile.h"
#include "model/StrictJson.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

using namespace OpenMMFlow;
using namespace std;
using nlohmann::json;

namespace {

// That of the format's own library.
constexpr uint64_t MAX_HEADER_SIZE = 100000000;
constexpr size_t LENGTH_SIZE = 8;
constexpr size_t ALIGNMENT = 8;
const char* const METADATA_KEY = "__metadata__";

uint64_t itemSize(TensorType type) {
    return type == TensorType::Float32 ? 4 : 8;
}

template <class Bits>
Bits readLittleEndian(const char* data) {
    Bits bits = 0;
    for (size_t i = 0; i < sizeof(Bits); i++)
        bits |= (Bits) (unsigned char) data[i] << 8*i;
    return bits;
}

template <class Bits>
void appendLittleEndian(string& data, Bits bits) {
    for (size_t i = 0; i < sizeof(Bits); i++)
        data.push_back((char) (unsigned char) (bits >> 8*i));
}

template <class Number, class Bits>
vector<double> decode(string_view data) {
    static_assert(sizeof(Number) == sizeof(Bits) && numeric_limits<Number>::is_iec559, "IEEE 754 numbers");
    vector<double> values(data.size()/sizeof(Bits));
    for (size_t i = 0; i < values.size(); i++) {
        Bits bits = readLittleEndian<Bits>(data.data()+i*sizeof(Bits));
        Number number;
        memcpy(&number, &bits, sizeof(Number));
        values[i] = number;
    }
    return values;
}

template <class Number, class Bits>
void encode(const vector<double>& values, string& data) {
    for (double value : values) {
        Number number = (Number) value;
        Bits bits;
        memcpy(&bits, &number, sizeof(Number));
        appendLittleEndian(data, bits);
    }
}

/** A non-negative integer of the header. */
uint64_t headerSize(const json& value, const string& tensor) {
    if (!value.is_number_unsigned())
        fail("tensor '", tensor, "': sizes and offsets in the header must be non-negative integers, got ", value.dump());
    return value.get<uint64_t>();
}

/** Bytes of a tensor of this shape, no more than limit. */
uint64_t dataSize(const vector<int64_t>& shape, uint64_t itemSize, uint64_t limit, const string& tensor) {
    uint64_t size = itemSize;
    for (int64_t dimension : shape)
        if (dimension == 0)
            return 0;
    for (int64_t dimension : shape) {
        if ((uint64_t) dimension > limit/size)
            fail("tensor '", tensor, "' of shape ", describeShape(shape), " needs more data than the file has");
        size *= dimension;
    }
    return size;
}

struct Entry {
    string name;
    Tensor tensor;
    uint64_t begin, end;
};

/** One tensor of the header, without its values. */
Entry readEntry(const string& name, const json& description, uint64_t totalSize) {
    if (!description.is_object() || description.size() != 3 || !description.contains("dtype") || !description.contains("shape")
            || !description.contains("data_offsets"))
        fail("tensor '", name, "' must have exactly dtype, shape and data_offsets in the header of the file");
    Entry entry;
    entry.name = name;
    const json& type = description["dtype"];
    if (type == "F32")
        entry.tensor.type = TensorType::Float32;
    else if (type == "F64")
        entry.tensor.type = TensorType::Float64;
    else
        fail("tensor '", name, "' has the type ", type.dump(),
                ", expected \"F32\" or \"F64\"; convert it before writing the file");
    const json& shape = description["shape"];
    const json& offsets = description["data_offsets"];
    if (!shape.is_array() || !offsets.is_array() || offsets.size() != 2)
        fail("tensor '", name, "': shape must be a list, data_offsets a list of two numbers");
    for (const json& dimension : shape) {
        uint64_t size = headerSize(dimension, name);
        if (size > (uint64_t) numeric_limits<int64_t>::max())
            fail("tensor '", name, "' has a dimension of ", size, ", which no file can hold");
        entry.tensor.shape.push_back(size);
    }
    entry.begin = headerSize(offsets[0], name);
    entry.end = headerSize(offsets[1], name);
    if (entry.begin > entry.end || entry.end > totalSize)
        fail("tensor '", name, "' lies at bytes ", entry.begin, " to ", entry.end, " of the data, but there are only ", totalSize,
                "; the file was cut short or is damaged");
    uint64_t expected = dataSize(entry.tensor.shape, itemSize(entry.tensor.type), totalSize, name);
    if (entry.end-entry.begin != expected)
        fail("tensor '", name, "' of shape ", describeShape(entry.tensor.shape), " needs ", expected, " bytes, but has ",
                entry.end-entry.begin);
    return entry;
}

} // namespace

string OpenMMFlow::describeShape(const vector<int64_t>& shape) {
    string text = "(";
    for (size_t i = 0; i < shape.size(); i++)
        text += (i > 0 ? ", " : "")+(shape[i] < 0 ? string("any") : to_string(shape[i]));
    return text+(shape.size() == 1 ? ",)" : ")");
}

void OpenMMFlow::checkSafetensorsBeginning(string_view beginning, uint64_t size) {
    string foreign = describeForeignFile(beginning);
    if (!foreign.empty())
        fail("expected a model file, which is a safetensors file, but this seems to be ", foreign);
    uint64_t headerLength = (size < LENGTH_SIZE ? 0 : readLittleEndian<uint64_t>(beginning.data()));
    if (headerLength < 2 || headerLength > MAX_HEADER_SIZE || (beginning.size() > LENGTH_SIZE && beginning[LENGTH_SIZE] != '{'))
        fail("this is no safetensors file, as model files are: it does not begin with the length of a header and the header. "
                "Write model files with openmmflow.model_file, or convert checkpoints with `openmmflow import`");
    if (headerLength > size-LENGTH_SIZE)
        fail("the file was cut short: its header has ", headerLength, " bytes, the whole file ", size,
                ". Get it again from where it came from");
}

SafetensorsFile OpenMMFlow::readSafetensors(string_view bytes) {
    checkSafetensorsBeginning(bytes.substr(0, 64), bytes.size());
    uint64_t headerLength = readLittleEndian<uint64_t>(bytes.data());
    string_view data = bytes.substr(LENGTH_SIZE+headerLength);
    const json header = parseStrictJson(bytes.substr(LENGTH_SIZE, headerLength), "the header of the file");

    SafetensorsFile file;
    vector<Entry> entries;
    for (const auto& [name, description] : header.items()) {
        if (name != METADATA_KEY) {
            entries.push_back(readEntry(name, description, data.size()));
            continue;
        }
        if (!description.is_object())
            fail("the metadata of the file must be an object");
        for (const auto& [key, value] : description.items()) {
            if (!value.is_string())
                fail("'", key, "' in the metadata of the file must be a string");
            file.metadata[key] = value.get<string>();
        }
    }

    // No byte is unaccounted for or used twice.
    sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return make_pair(a.begin, a.end) < make_pair(b.begin, b.end);
    });
    uint64_t end = 0;
    for (const Entry& entry : entries) {
        if (entry.begin != end)
            fail("tensor '", entry.name, "' begins at byte ", entry.begin, " of the data, expected ", end,
                    ": tensors must follow each other without gaps or overlap");
        end = entry.end;
    }
    if (end != data.size())
        fail("the file has ", data.size(), " bytes of data, but its tensors take ", end, "; it is damaged or was appended to");

    for (Entry& entry : entries) {
        string_view raw = data.substr(entry.begin, entry.end-entry.begin);
        const bool isFloat = (entry.tensor.type == TensorType::Float32);
        entry.tensor.values = (isFloat ? decode<float, uint32_t>(raw) : decode<double, uint64_t>(raw));
        file.tensors.emplace(move(entry.name), move(entry.tensor));
    }
    return file;
}

string OpenMMFlow::rawData(const Tensor& tensor) {
    string data;
    data.reserve(tensor.values.size()*itemSize(tensor.type));
    if (tensor.type == TensorType::Float32)
        encode<float, uint32_t>(tensor.values, data);
    else
        encode<double, uint64_t>(tensor.values, data);
    return data;
}

string OpenMMFlow::writeSafetensors(const map<string, string>& metadata, const map<string, const Tensor*>& tensors) {
    json header = {{METADATA_KEY, metadata}};
    string data;
    // The larger type first keeps all data aligned.
    for (TensorType type : {TensorType::Float64, TensorType::Float32})
        for (const auto& [name, tensor] : tensors)
            if (tensor->type == type) {
                size_t begin = data.size();
                data += rawData(*tensor);
                header[name] = {{"dtype", type == TensorType::Float32 ? "F32" : "F64"}, {"shape", tensor->shape},
                        {"data_offsets", {begin, data.size()}}};
            }
    string text = header.dump();
    text.append((ALIGNMENT-text.size()%ALIGNMENT)%ALIGNMENT, ' ');
    string bytes;
    appendLittleEndian(bytes, (uint64_t) text.size());
    return bytes+text+data;
}
