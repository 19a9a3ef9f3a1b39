// SPDX-License-Identifier: MIT
#include "EmulatedDevice.h"

#include <cstdlib>
#include <fstream>

namespace emulator {

int numMultiprocessors() {
    const char* number = std::getenv("EMULATOR_MULTIPROCESSORS");
    return number == nullptr ? 4 : std::atoi(number);
}

void logLaunch(const std::string& kernel, unsigned int gridSize) {
    if (const char* file = std::getenv("EMULATOR_LAUNCHES"))
        std::ofstream(file, std::ios::app) << kernel << ' ' << gridSize << std::endl;
}

} // namespace emulator
