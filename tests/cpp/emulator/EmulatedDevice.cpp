// SPDX-License-Identifier: MIT
#include "EmulatedDevice.h"

#include <cstdlib>
#include <fstream>

namespace emulator {

static int numberFromEnvironment(const char* name, int otherwise) {
    const char* number = std::getenv(name);
    return number == nullptr ? otherwise : std::atoi(number);
}

int numMultiprocessors() {
    return numberFromEnvironment("EMULATOR_MULTIPROCESSORS", 4);
}

unsigned int largestCluster() {
    return numberFromEnvironment("EMULATOR_LARGEST_CLUSTER", 8);
}

void logLaunch(const std::string& kernel, unsigned int gridSize) {
    if (const char* file = std::getenv("EMULATOR_LAUNCHES"))
        std::ofstream(file, std::ios::app) << kernel << ' ' << gridSize << std::endl;
}

} // namespace emulator
