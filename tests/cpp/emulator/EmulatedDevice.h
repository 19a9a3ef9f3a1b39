// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EMULATOR_EMULATEDDEVICE_H_
#define OPENMMFLOW_EMULATOR_EMULATEDDEVICE_H_

#include <string>

namespace emulator {

/** What the devices have, whichever interface they are asked through. */
constexpr int numDevices = 2, mostThreads = 1024;
constexpr char deviceName[] = "emulated on the processor";

/** Few enough, by default, that tests need several tiles for each; EMULATOR_MULTIPROCESSORS says otherwise. */
int numMultiprocessors();

/** Of blocks; EMULATOR_LARGEST_CLUSTER says how many. */
unsigned int largestCluster();

/** Add the name of a kernel and how many blocks it has to the file EMULATOR_LAUNCHES, if there is to be one. */
void logLaunch(const std::string& kernel, unsigned int gridSize);

} // namespace emulator

#endif // OPENMMFLOW_EMULATOR_EMULATEDDEVICE_H_
