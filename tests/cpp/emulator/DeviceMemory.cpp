// SPDX-License-Identifier: MIT
#include "DeviceMemory.h"

#include <cstring>
#include <new>

#include <sys/mman.h>
#include <unistd.h>

namespace emulator {

namespace {

const std::size_t page = sysconf(_SC_PAGESIZE);

std::size_t roundUp(std::size_t size, std::size_t multiple) {
    return (size+multiple-1)/multiple*multiple;
}

/** The pages of an array without the ones around them. */
char* pagesOf(const void* array) {
    return reinterpret_cast<char*>(reinterpret_cast<std::size_t>(array)/page*page);
}

} // namespace

void* DeviceMemory::allocate(std::size_t size) {
    // Its end as near to a page that is not there as the alignment of vectors allows.
    const std::size_t aligned = roundUp(size, 16), pages = roundUp(aligned, page);
    void* all = mmap(nullptr, pages+2*page, PROT_NONE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED)
        throw std::bad_alloc();
    char* begin = static_cast<char*>(all)+page;
    mprotect(begin, pages, PROT_READ|PROT_WRITE);
    char* array = begin+pages-aligned;
    std::memset(array, 0xff, size);
    const std::lock_guard<std::mutex> guard(oneAtATime);
    arrays[array] = size;
    return array;
}

bool DeviceMemory::free(void* array) {
    const std::lock_guard<std::mutex> guard(oneAtATime);
    const auto found = arrays.find(static_cast<char*>(array));
    if (found == arrays.end())
        return false;
    munmap(pagesOf(array)-page, roundUp(roundUp(found->second, 16), page)+2*page);
    arrays.erase(found);
    return true;
}

bool DeviceMemory::contains(const void* begin, std::size_t size) const {
    const std::lock_guard<std::mutex> guard(oneAtATime);
    const char* first = static_cast<const char*>(begin);
    auto behind = arrays.upper_bound(first);
    if (behind == arrays.begin())
        return false;
    --behind;
    return first+size <= behind->first+behind->second;
}

DeviceMemory& deviceMemory() {
    static DeviceMemory memory;
    return memory;
}

} // namespace emulator
