// SPDX-License-Identifier: MIT
// Writing model files and reading them again.
#include "RandomModels.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/resource.h>

using namespace OpenMMFlow;
using namespace std;
namespace fs = std::filesystem;

namespace {

string contentsOf(const fs::path& path) {
    ifstream file(path, ios::binary);
    return string(istreambuf_iterator<char>(file), {});
}

/** A folder of the test's own. */
class ModelFile : public testing::Test {
protected:
    void SetUp() override {
        string pattern = (fs::temp_directory_path()/"openmmflow-XXXXXX").string();
        ASSERT_NE(mkdtemp(pattern.data()), nullptr);
        folder = pattern;
    }
    void TearDown() override {
        fs::permissions(folder, fs::perms::owner_all);
        fs::remove_all(folder);
    }
    size_t filesInFolder() const {
        return distance(fs::directory_iterator(folder), fs::directory_iterator());
    }

    fs::path folder;
};

class RandomModelFile : public testing::TestWithParam<int> {
};

} // namespace

TEST_P(RandomModelFile, BytesSurviveTheModel) {
    ModelParts parts = randomModelParts({}, GetParam());
    string bytes = parts.toBytes();
    FlowModel model = FlowModel::fromBytes(bytes);
    EXPECT_EQ(model.toBytes(), bytes);
    EXPECT_EQ(model.getArchitectureJson(), parts.architecture.dump());
    EXPECT_EQ(model.getNumParticles(), parts.architecture["numParticles"].get<int>());
    EXPECT_EQ(model.getTemperature(), parts.architecture["temperature"].get<double>());
    EXPECT_TRUE(model.hasSameArchitecture(FlowModel::fromBytes(bytes)));
}

TEST_P(RandomModelFile, ParametersAreTheWeightsOfConditioners) {
    ModelParts parts = randomModelParts({}, GetParam());
    size_t number = 0;
    for (const auto& [name, tensor] : parts.tensors)
        if (name.find(".networks.") != string::npos)
            number += tensor.values.size();
    EXPECT_EQ(FlowModel::fromBytes(parts.toBytes()).getNumParameters(), (long long) number);
}

TEST_P(RandomModelFile, ChecksumIsTheDocumentedOne) {
    ModelParts parts = randomModelParts({}, GetParam());
    // The page's words, byte by byte: document, then name and little-endian data in ascending order of names.
    string all = parts.architecture.dump();
    for (const auto& [name, tensor] : parts.tensors) {
        all += name;
        for (double value : tensor.values) {
            float narrow = (float) value;
            if (tensor.type == TensorType::Float32)
                all.append((const char*) &narrow, sizeof(narrow));
            else
                all.append((const char*) &value, sizeof(value));
        }
    }
    char expected[9];
    snprintf(expected, sizeof(expected), "%08lx", crc32_z(0, (const Bytef*) all.data(), all.size()));
    EXPECT_EQ(FlowModel::fromBytes(parts.toBytes()).getChecksum(), expected);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomModelFile, testing::Range(0, 25));

TEST_F(ModelFile, SaveAndLoad) {
    FlowModel model = randomModel({}, 3);
    string path = (folder/"model.safetensors").string();
    model.save(path);
    EXPECT_EQ(contentsOf(path), model.toBytes());
    EXPECT_EQ(FlowModel::load(path).toBytes(), model.toBytes());
    EXPECT_EQ(filesInFolder(), 1u);
}

TEST_F(ModelFile, ArchitectureTextIsKeptAsItIs) {
    // Another writer's spaces and order of keys, and numbers in the free-form data that are not ours to change.
    ModelParts parts = randomModelParts({}, 5);
    parts.architecture["data"] = {{"frames", 12345678901234567890ull}, {"environment", "vacuum"}};
    string bytes = parts.toBytes(), indented = parts.architecture.dump(1);
    uint64_t length;
    memcpy(&length, bytes.data(), 8);
    string data = bytes.substr(8+length);
    nlohmann::json header = nlohmann::json::parse(bytes.substr(8, length));
    header["__metadata__"] = {{"openmmflow", indented}};
    string headerText = header.dump();
    length = headerText.size();
    FlowModel model = FlowModel::fromBytes(string((const char*) &length, 8)+headerText+data);
    EXPECT_EQ(model.getArchitectureJson(), indented);
    FlowModel again = FlowModel::fromBytes(model.toBytes());
    EXPECT_EQ(again.getArchitectureJson(), indented);
    EXPECT_EQ(again.toBytes(), model.toBytes());
    EXPECT_EQ(again.getChecksum(), model.getChecksum());
    EXPECT_TRUE(model.hasSameArchitecture(FlowModel::fromBytes(bytes)));
}

TEST_F(ModelFile, AnExistingFileIsReplaced) {
    string path = (folder/"model.safetensors").string();
    randomModel({}, 1).save(path);
    FlowModel model = randomModel({}, 2);
    model.save(path);
    EXPECT_EQ(contentsOf(path), model.toBytes());
    EXPECT_EQ(filesInFolder(), 1u);
}

TEST_F(ModelFile, SymbolicLinksAreFollowed) {
    FlowModel model = randomModel({}, 2);
    randomModel({}, 1).save((folder/"target").string());
    fs::create_symlink("target", folder/"link");
    model.save((folder/"link").string());
    EXPECT_TRUE(fs::is_symlink(folder/"link"));
    EXPECT_EQ(contentsOf(folder/"target"), model.toBytes());
}

TEST_F(ModelFile, AFailureLeavesNothingBehind) {
    FlowModel model = randomModel({}, 1);
    fs::create_directories(folder/"taken"/"inside");
    EXPECT_THROW(model.save((folder/"no such folder"/"model").string()), FlowModelError);
    EXPECT_THROW(model.save((folder/"taken").string()), FlowModelError);
    EXPECT_TRUE(fs::is_directory(folder/"taken"/"inside"));
    EXPECT_EQ(filesInFolder(), 1u);
}

TEST_F(ModelFile, AnExistingFileSurvivesAFullDisk) {
    // A limit on the size of files stands in for the full disk. It holds for the whole process, hence the child.
    FlowModel model = randomModel({}, 1);
    string path = (folder/"model").string(), before = model.toBytes();
    model.save(path);
    FlowModel larger = randomModel({}, 2);
    auto saveOnFullDisk = [&] {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit;
        limit.rlim_cur = limit.rlim_max = 1000;
        setrlimit(RLIMIT_FSIZE, &limit);
        try {
            larger.save(path);
        }
        catch (const FlowModelError&) {
            exit(contentsOf(path) == before && filesInFolder() == 1 ? 7 : 1);
        }
        exit(2);
    };
    EXPECT_EXIT(saveOnFullDisk(), testing::ExitedWithCode(7), "");
}

TEST(FlowModelArchitecture, SameButForTemperatureAndData) {
    ModelParts parts = randomModelParts({}, 11);
    FlowModel model = FlowModel::fromBytes(parts.toBytes());
    ModelParts warmer = parts;
    warmer.architecture["temperature"] = 777;
    warmer.architecture["data"] = {{"environment", "vacuum"}};
    for (auto& [name, tensor] : warmer.tensors)
        if (name.find(".weight") != string::npos)
            for (double& value : tensor.values)
                value = -value;
    EXPECT_TRUE(model.hasSameArchitecture(FlowModel::fromBytes(warmer.toBytes())));

    ModelParts other = parts;
    other.architecture["measure"] = (parts.architecture["measure"] == "frame" ? "cartesian" : "frame");
    EXPECT_FALSE(model.hasSameArchitecture(FlowModel::fromBytes(other.toBytes())));
    EXPECT_FALSE(model.hasSameArchitecture(randomModel({}, 12)));
}
