// SPDX-License-Identifier: MIT
// Files that are no model files, or no longer: every one is refused with a message that says what it is or what is wrong.
#include "RandomModels.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <random>

using namespace OpenMMFlow;
using namespace std;
using nlohmann::json;

namespace {

/** The message of the error that reading raises; empty if there is none. */
string messageOf(const string& bytes) {
    try {
        FlowModel::fromBytes(bytes);
        return "";
    }
    catch (const FlowModelError& error) {
        return error.what();
    }
}

string lengthOf(uint64_t length) {
    string bytes;
    for (int i = 0; i < 8; i++)
        bytes.push_back((char) (length >> 8*i));
    return bytes;
}

string container(const string& header, const string& data) {
    return lengthOf(header.size())+header+data;
}

/** A valid file's header and data, to be spoiled. */
struct Container {
    json header;
    string data;

    Container() {
        RandomModelOptions options;
        options.mixedCoordinates = options.elementwise = false;    // with tensors of marginals first
        string bytes = randomModelParts(options, 1).toBytes();
        uint64_t length;
        memcpy(&length, bytes.data(), 8);
        header = json::parse(bytes.substr(8, length));
        data = bytes.substr(8+length);
    }
    json& anyTensor() {
        return header.begin().key() == "__metadata__" ? (++header.begin()).value() : header.begin().value();
    }
    string toBytes() const {
        return container(header.dump(), data);
    }
};

struct SpoiledContainer {
    string name;
    function<string()> make;
    string message;
};

void PrintTo(const SpoiledContainer& spoiled, ostream* stream) {
    *stream << spoiled.name;
}

SpoiledContainer edited(const string& name, const function<void(Container&)>& edit, const string& message) {
    return {name, [edit] {
        Container container;
        edit(container);
        return container.toBytes();
    }, message};
}

class SpoiledContainers : public testing::TestWithParam<SpoiledContainer> {
};

} // namespace

TEST_P(SpoiledContainers, AreRefused) {
    EXPECT_EQ(messageOf(Container().toBytes()), "");
    string message = messageOf(GetParam().make());
    EXPECT_NE(message.find(GetParam().message), string::npos) << "got: " << message;
}

INSTANTIATE_TEST_SUITE_P(Foreign, SpoiledContainers, testing::Values(
    SpoiledContainer{"Empty", [] { return string(); }, "an empty file"},
    SpoiledContainer{"Zip", [] { return string("PK\x03\x04")+string(100, 'x'); }, "openmmflow import"},
    SpoiledContainer{"Pickle", [] { return string("\x80\x02}q\x01")+string(100, 'x'); }, "openmmflow import"},
    SpoiledContainer{"Hdf5", [] { return string("\x89HDF\r\n\x1a\n")+string(100, '\0'); }, "HDF5"},
    SpoiledContainer{"NumPy", [] { return string("\x93NUMPY")+string(100, '\0'); }, "NumPy"},
    SpoiledContainer{"Gzip", [] { return string("\x1f\x8b\x08")+string(100, '\0'); }, "unpack"},
    SpoiledContainer{"Xml", [] { return "<?xml version=\"1.0\" ?>\n<System/>\n"; }, "XmlSerializer"},
    SpoiledContainer{"Json", [] { return "{\"format\": \"openmm-flow\"}"; }, "JSON"},
    SpoiledContainer{"Pdb", [] { return "ATOM      1  N   ALA A   1"; }, "PDB"},
    SpoiledContainer{"LfsPointer", [] { return "version https://git-lfs.github.com/spec/v1\n"; }, "git lfs pull"},
    SpoiledContainer{"Text", [] { return "Lorem ipsum dolor sit amet"; }, "no safetensors file"},
    SpoiledContainer{"Short", [] { return "abc"; }, "no safetensors file"},
    SpoiledContainer{"OtherProgram", [] { return container(R"({"__metadata__":{"format":"pt"}})", ""); }, "no model file"},
    SpoiledContainer{"NoMetadata", [] { return container("{}", ""); }, "no model file"}
), [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(Header, SpoiledContainers, testing::Values(
    SpoiledContainer{"LengthBeyondFile", [] { return lengthOf(1000)+"{\"a\":1}"; }, "cut short"},
    SpoiledContainer{"LengthOverflow", [] { return lengthOf(~0ull)+"{}"; }, "no safetensors file"},
    SpoiledContainer{"LengthHuge", [] { return lengthOf(1ull << 40)+"{}"; }, "no safetensors file"},
    SpoiledContainer{"NotJson", [] { return container("{\"a\":", ""); }, "not a valid JSON document"},
    SpoiledContainer{"Array", [] { return container("[]", ""); }, "no safetensors file"},
    SpoiledContainer{"NotUtf8", [] { return container("{\"\xff\":{}}", ""); }, "not a valid JSON document"},
    SpoiledContainer{"TrailingText", [] { return container("{} {}", ""); }, "not a valid JSON document"},
    SpoiledContainer{"KeyTwice", [] { return container("{\"a\":{},\"a\":{}}", ""); }, "twice"},
    SpoiledContainer{"DeeplyNested", [] { return container("{\"a\":"+string(100000, '['), ""); }, "nested"},
    SpoiledContainer{"TensorIsNumber", [] { return container("{\"a\":1}", ""); }, "dtype, shape and data_offsets"},
    edited("MetadataIsList", [](Container& c) { c.header["__metadata__"] = json::array(); }, "must be an object"),
    edited("MetadataNumber", [](Container& c) { c.header["__metadata__"]["n"] = 1; }, "must be a string"),
    edited("UnknownKey", [](Container& c) { c.anyTensor()["more"] = 1; }, "dtype, shape and data_offsets"),
    edited("HalfPrecision", [](Container& c) { c.anyTensor()["dtype"] = "F16"; }, "expected \"F32\" or \"F64\""),
    edited("DtypeIsNumber", [](Container& c) { c.anyTensor()["dtype"] = 4; }, "expected \"F32\" or \"F64\""),
    edited("ShapeIsNumber", [](Container& c) { c.anyTensor()["shape"] = 4; }, "shape must be a list"),
    edited("NegativeDimension", [](Container& c) { c.anyTensor()["shape"][0] = -1; }, "non-negative"),
    edited("FractionalDimension", [](Container& c) { c.anyTensor()["shape"][0] = 1.5; }, "non-negative"),
    edited("HugeDimension", [](Container& c) { c.anyTensor()["shape"] = {1ull << 63}; }, "no file can hold"),
    edited("OverflowingShape", [](Container& c) { c.anyTensor()["shape"] = {1ull << 32, 1ull << 32}; },
            "more data than the file has"),
    edited("WrappingShape", [](Container& c) { c.anyTensor()["shape"] = {1ull << 62, 4}; }, "more data than the file has"),
    edited("ThreeOffsets", [](Container& c) { c.anyTensor()["data_offsets"].push_back(0); }, "two numbers"),
    edited("NegativeOffset", [](Container& c) { c.anyTensor()["data_offsets"][0] = -8; }, "non-negative"),
    edited("OffsetBeyondFile", [](Container& c) { c.anyTensor()["data_offsets"][1] = ~0ull; }, "cut short or is damaged"),
    edited("OffsetsBackwards", [](Container& c) { c.anyTensor()["data_offsets"] = {8, 0}; }, "cut short or is damaged"),
    edited("WrongSize", [](Container& c) { c.anyTensor()["shape"].push_back(3); }, " bytes, but has "),
    edited("Overlap", [](Container& c) {
        json copy = c.anyTensor();
        c.header["another"] = copy;
    }, "without gaps or overlap"),
    edited("Gap", [](Container& c) {
        c.header.erase("layers.1.lower");
        c.header.erase("layers.1.mean");
    }, "without gaps or overlap"),
    edited("Appended", [](Container& c) { c.data += "x"; }, "appended to"),
    edited("DataCutShort", [](Container& c) { c.data.pop_back(); }, "cut short or is damaged")
), [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(Checksum, SpoiledContainers, testing::Values(
    edited("DataBit", [](Container& c) { c.data[c.data.size()/2] ^= 1; }, "damaged: its checksum"),
    edited("Architecture", [](Container& c) {
        string& text = c.header["__metadata__"]["openmmflow"].get_ref<string&>();
        text += " ";
    }, "damaged: its checksum"),
    edited("Value", [](Container& c) { c.header["__metadata__"]["crc32"] = "00000000"; }, "damaged: its checksum is 00000000"),
    edited("Text", [](Container& c) { c.header["__metadata__"]["crc32"] = ""; }, "damaged")
), [](const auto& info) { return info.param.name; });

TEST(ModelFileContainer, IsReadWithoutAChecksum) {
    Container container;
    container.header["__metadata__"].erase("crc32");
    EXPECT_EQ(messageOf(container.toBytes()), "");
}

TEST(ModelFileContainer, EveryTruncationIsRefused) {
    const string bytes = Container().toBytes();
    for (size_t length = 0; length < bytes.size(); length++)
        ASSERT_NE(messageOf(bytes.substr(0, length)), "") << length << " of " << bytes.size() << " bytes";
    EXPECT_NE(messageOf(bytes+'\0'), "");
}

TEST(ModelFileContainer, EveryChangedByteIsRefusedOrMeansTheSame) {
    // The checksum sees what the header's own checks do not. What passes are spaces, and a changed key in place of "crc32".
    const Container container;
    const string bytes = container.toBytes(), reference = FlowModel::fromBytes(bytes).toBytes();
    mt19937 random(1);
    for (size_t i = 0; i < bytes.size(); i++) {
        string changed = bytes;
        changed[i] = (char) (changed[i]^(1+random()%255));
        try {
            ASSERT_EQ(FlowModel::fromBytes(changed).toBytes(), reference) << "byte " << i;
        }
        catch (const FlowModelError&) {
        }
    }
}

TEST(ModelFileContainer, RandomHeadersAreRefusedOrRead) {
    // What is asked is that nothing but FlowModelError comes out, whatever stands in the header.
    const vector<string> pieces = {"{", "}", "[", "]", ":", ",", "\"a\"", "\"dtype\"", "\"F32\"", "\"shape\"",
            "\"data_offsets\"", "0", "8",
            "-1", "1e400", "18446744073709551616", "null", "\"__metadata__\"", "\"openmmflow\"", "\"{}\""};
    mt19937 random(2);
    for (int i = 0; i < 20000; i++) {
        string header = "{";
        for (int n = random()%40; n > 0; n--)
            header += pieces[random()%pieces.size()];
        messageOf(container(header, string(8, '\0')));
    }
}
