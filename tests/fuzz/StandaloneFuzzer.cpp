// SPDX-License-Identifier: MIT
// main() of a fuzz target without libFuzzer: `program SECONDS FOLDER...` gives it every file of the folders, then changes of them made at
// random by the target's own mutator. Nothing tells it which changes reach new code, so libFuzzer finds more in the same time.
#include "FuzzTarget.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

using Input = std::vector<std::uint8_t>;

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t maxSize, unsigned seed);

static constexpr std::size_t MAX_SIZE = 1 << 16;
static std::mt19937 random_numbers;

static std::size_t below(std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound-1)(random_numbers);
}

/** What mutators call for bytes that they know nothing about; libFuzzer has its own. */
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t maxSize) {
    if (size == 0 || (size < maxSize && below(4) == 0)) {
        if (maxSize == 0)
            return 0;
        const std::size_t at = below(size+1);
        std::copy_backward(data+at, data+size, data+size+1);
        data[at] = static_cast<std::uint8_t>(below(256));
        return size+1;
    }
    const std::size_t at = below(size);
    switch (below(4)) {
        case 0:
            data[at] ^= static_cast<std::uint8_t>(1u << below(8));
            return size;
        case 1:
            data[at] = static_cast<std::uint8_t>(below(256));
            return size;
        case 2:
            data[at] = data[below(size)];
            return size;
        default: {
            const std::size_t end = at+1+below(std::min<std::size_t>(size-at, 8));
            std::copy(data+end, data+size, data+at);
            return size-(end-at);
        }
    }
}

static std::vector<Input> corpus(const std::vector<std::string>& folders) {
    std::vector<std::filesystem::path> files;
    for (const std::string& folder : folders)
        for (const auto& entry : std::filesystem::directory_iterator(folder))
            files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    std::vector<Input> inputs;
    for (const auto& path : files) {
        std::ifstream file(path, std::ios::binary);
        inputs.emplace_back((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    }
    return inputs;
}

/** Kept on disk while it runs, so that what ended the process can be looked at. */
static void run(const Input& input, const std::string& path) {
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(input.data()), input.size());
    LLVMFuzzerTestOneInput(input.data(), input.size());
}

int main(int argc, char* argv[]) {
    if (argc < 3) {
        std::cerr << "usage: " << argv[0] << " SECONDS FOLDER...\n";
        return 2;
    }
    const std::vector<Input> inputs = corpus({argv+2, argv+argc});
    if (inputs.empty()) {
        std::cerr << "there is no input in the folders\n";
        return 1;
    }
    const std::string path = std::filesystem::path(argv[0]).filename().string()+"-input";
    for (const Input& input : inputs)
        run(input, path);
    const unsigned seed = std::random_device{}();
    random_numbers.seed(seed);
    std::cout << inputs.size() << " inputs of the corpus; changes of them, seed " << seed << std::endl;
    const auto end = std::chrono::steady_clock::now()+std::chrono::duration<double>(std::stod(argv[1]));
    std::size_t changes = 0;
    for (; std::chrono::steady_clock::now() < end; changes++) {
        Input input = inputs[below(inputs.size())];
        std::size_t size = input.size();
        input.resize(std::max(size, MAX_SIZE));
        for (std::size_t steps = 1+below(3); steps > 0; steps--)
            size = LLVMFuzzerCustomMutator(input.data(), size, input.size(), static_cast<unsigned>(random_numbers()));
        // Of its own size, so that a sanitizer sees what is read beyond its end.
        run(Input(input.begin(), input.begin()+size), path);
    }
    std::cout << changes << " changed inputs" << std::endl;
    std::filesystem::remove(path);
    return 0;
}
