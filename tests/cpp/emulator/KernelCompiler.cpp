// SPDX-License-Identifier: MIT
#include "KernelCompiler.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <regex>
#include <sstream>
#include <stdexcept>

#include <unistd.h>

namespace fs = std::filesystem;

namespace emulator {

namespace {

const fs::path kernelLanguage = EMULATOR_SOURCES "/KernelLanguage.h";
const fs::path sources[] = {kernelLanguage, EMULATOR_SOURCES "/KernelCompiler.cpp", EMULATOR_SOURCES "/WorkItem.h",
        EMULATOR_SOURCES "/../FastFloat.h"};

std::string contents(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/** What a compilation makes on its way, of a name of its own, as other threads and processes may do the same. */
struct TemporaryFiles {
    explicit TemporaryFiles(const fs::path& library) :
            source(named(library, ".cpp")), preprocessed(named(library, ".ii")), library(named(library, ".so")), log(named(library, ".log")) {
    }
    ~TemporaryFiles() {
        for (const fs::path* path : {&source, &preprocessed, &library, &log})
            fs::remove(*path);
    }
    static fs::path named(const fs::path& library, const std::string& end) {
        static std::atomic<int> count{0};
        return fs::path(library).replace_extension(std::to_string(getpid())+"_"+std::to_string(count++)+end);
    }

    const fs::path source, preprocessed, library, log;
};

void run(const std::string& command, const fs::path& log) {
    if (std::system((command+" 2>"+log.string()).c_str()) != 0)
        throw std::runtime_error(command+"\n"+contents(log));
}

/**
 * What makes a library of preprocessed source: local memory as static variables in a section of their own, and for each kernel a function
 * that takes its arguments as drivers do. Of PTX there are the instructions that KernelLanguage.h has.
 */
std::string librarySource(std::string text) {
    std::map<std::string, std::string> kernels;    // how many blocks a cluster has
    const std::regex definition("__global__\\s+(?:__cluster_dims__\\((\\d+)[^)]*\\)\\s+)?void\\s+(\\w+)");
    for (std::sregex_iterator match(text.begin(), text.end(), definition), end; match != end; ++match)
        kernels[(*match)[2]] = ((*match)[1].matched ? (*match)[1].str() : "1");
    text = std::regex_replace(text, std::regex("extern\\s+__shared__\\s+([\\w ]+?)\\s+(\\w+)\\s*\\[\\s*\\]"),
            "$1* $2 = static_cast<$1*>(emulator::workItem->dynamicMemory)");
    // asm("..." : "=r"(output), ... : "d"(input)) becomes a call with these operands.
    text = std::regex_replace(text, std::regex("asm\\s*(?:volatile)?\\s*\\(\"[^\"]*\" : (.*) : (.*)\\);"), "emulator::ptx($1, $2);");
    text = std::regex_replace(text, std::regex("\"=?[a-z]\"\\("), "(");
    std::ostringstream source;
    source << "#define __global__\n"
            "#define __cluster_dims__(...)\n"
            "#define __shared__ static __attribute__((section(\"localMemory\")))\n"
            << text << "\n"
            "__shared__ __attribute__((used)) int notEmpty;\n"
            "extern char __start_localMemory[], __stop_localMemory[];\n"
            "extern \"C\" void emulatorLoad(emulator::WorkItem* workItem, char** begin, char** end) {\n"
            "    emulator::workItem = workItem;\n"
            "    *begin = __start_localMemory;\n"
            "    *end = __stop_localMemory;\n"
            "}\n";
    for (const auto& [kernel, cluster] : kernels)
        source << "extern \"C\" void emulatorCall_" << kernel << "(void** arguments) { emulator::call(" << kernel << ", arguments); }\n"
                "extern \"C\" unsigned int emulatorCluster_" << kernel << " = " << cluster << ";\n";
    return source.str();
}

} // namespace

bool isUpToDate(const fs::path& library) {
    return fs::exists(library) && std::all_of(std::begin(sources), std::end(sources), [&](const fs::path& source) {
        return fs::last_write_time(library) > fs::last_write_time(source);
    });
}

fs::path compileKernels(const std::string& source, Language language) {
    const fs::path folder = EMULATOR_KERNELS;
    fs::create_directories(folder);
    // Of OpenMM's kernels some look at the bits of numbers.
    const bool fastMath = (std::getenv("EMULATOR_FAST_MATH") != nullptr && source.find("computeFlowForce") != std::string::npos);
    const std::string name = std::string(language == Language::Hip ? "hip" : "cuda")+(fastMath ? "Fast" : "")+
            std::to_string(std::hash<std::string>()(source));
    const fs::path library = folder/(name+".so");
    if (isUpToDate(library))
        return library;
    const TemporaryFiles files(library);
    const std::string compiler = EMULATOR_COMPILER " -std=c++17 -w ";
    const std::string definitions = std::string(language == Language::Hip ? "-DEMULATOR_IS_HIP -DEMULATOR_WARP_SIZE=64 " :
            "-DEMULATOR_WARP_SIZE=32 ")+(fastMath ? "-DEMULATOR_FAST_MATH " : "");
    std::ofstream(files.source) << source;
    run(compiler+definitions+"-E -P -include "+kernelLanguage.string()+" "+files.source.string()+" -o "+files.preprocessed.string(), files.log);
    std::ofstream(files.source) << librarySource(contents(files.preprocessed));
    run(compiler+"-O1 -g1 -shared -fPIC "+files.source.string()+" -o "+files.library.string(), files.log);
    fs::rename(files.library, library);
    return library;
}

} // namespace emulator
