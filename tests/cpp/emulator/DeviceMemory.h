// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_EMULATOR_DEVICEMEMORY_H_
#define OPENMMFLOW_EMULATOR_DEVICEMEMORY_H_

#include <cstddef>
#include <map>
#include <mutex>

namespace emulator {

/**
 * The memory of all devices. A kernel that reads or writes behind the end of an array, or before its page, ends the program with a segmentation
 * fault. What is in an array before anything was written are floating-point numbers that are none. Calls may come from several threads.
 */
class DeviceMemory {
public:
    void* allocate(std::size_t size);

    /** @return whether it was an array */
    bool free(void* array);

    /** Whether all of it is inside of one array. */
    bool contains(const void* begin, std::size_t size) const;

private:
    std::map<const char*, std::size_t> arrays;
    mutable std::mutex oneAtATime;
};

DeviceMemory& deviceMemory();

} // namespace emulator

#endif // OPENMMFLOW_EMULATOR_DEVICEMEMORY_H_
