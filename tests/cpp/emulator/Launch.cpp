// SPDX-License-Identifier: MIT
#include "Launch.h"
#include "WorkItem.h"

#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include <dlfcn.h>

namespace emulator {

namespace {

using boost::context::fiber;

enum class State {
    Ready, AtBlockBarrier, AtWarpBarrier, Done
};

struct Thread {
    fiber continuation, scheduler;
    State state = State::Ready;
};

/** The block that runs, of the launch that runs. */
std::vector<Thread> threads;
std::vector<char> warpSlots;
unsigned int running, runningWarp;
WorkItem workItem;
std::mutex oneLaunch;

void wait(State state) {
    Thread& thread = threads[running];
    thread.state = state;
    thread.scheduler = std::move(thread.scheduler).resume();
}

WorkItem* device() {
    workItem.waitForBlock = [] {
        wait(State::AtBlockBarrier);
    };
    workItem.waitForWarp = [] {
        wait(State::AtWarpBarrier);
    };
    workItem.warpSlots = [] {
        return warpSlots.data()+16*runningWarp;
    };
    return &workItem;
}

/** One block, from the start of its work-items to their end. */
class Block {
public:
    Block(Module::Kernel kernel, LaunchShape shape, void** arguments, std::mt19937& random) : shape(shape), random(random), order(shape.blockSize) {
        // Numbers that are not what a kernel could count on.
        warpSlots.assign(16*(shape.blockSize+shape.warpSize), static_cast<char>(0xff));
        threads.clear();
        threads.resize(shape.blockSize);
        static boost::context::pooled_fixedsize_stack stacks(256*1024);
        for (Thread& thread : threads)
            thread.continuation = fiber(std::allocator_arg, stacks, [kernel, arguments, &thread](fiber&& scheduler) {
                thread.scheduler = std::move(scheduler);
                kernel(arguments);
                thread.state = State::Done;
                return std::move(thread.scheduler);
            });
        std::iota(order.begin(), order.end(), 0);
    }

    void run() {
        do {
            std::shuffle(order.begin(), order.end(), random);
            for (unsigned int i : order)
                resume(i);
            for (unsigned int first = 0; first < shape.blockSize; first += shape.warpSize)
                while (passWarpBarrier(first, std::min(first+shape.warpSize, shape.blockSize))) {
                }
        } while (passBlockBarrier());
    }

private:
    void resume(unsigned int i) {
        if (threads[i].state == State::Done)
            return;
        running = i;
        runningWarp = i/shape.warpSize*shape.warpSize;
        workItem.thread = {i, 0, 0};
        threads[i].continuation = std::move(threads[i].continuation).resume();
    }

    unsigned int count(unsigned int first, unsigned int end, State state) const {
        return std::count_if(threads.begin()+first, threads.begin()+end, [&](const Thread& thread) { return thread.state == state; });
    }

    /** Let a warp go on if it waits for itself. Those of it that have ended are not waited for. */
    bool passWarpBarrier(unsigned int first, unsigned int end) {
        if (count(first, end, State::AtWarpBarrier) == 0)
            return false;
        if (!shape.warpsMayBranch && count(first, end, State::AtBlockBarrier) > 0)
            throw std::runtime_error("of a warp some work-items wait for the warp, others for the block");
        for (unsigned int i = first; i < end; i++)
            if (threads[i].state == State::AtWarpBarrier)
                resume(i);
        return true;
    }

    /** Whether there is anything left to do. */
    bool passBlockBarrier() const {
        const unsigned int numDone = count(0, shape.blockSize, State::Done);
        if (numDone > 0 && numDone < shape.blockSize)
            throw std::runtime_error("some work-items of a block wait at a barrier, others have ended");
        return numDone == 0;
    }

    const LaunchShape shape;
    std::mt19937& random;
    std::vector<unsigned int> order;
};

} // namespace

Module::Module(const std::string& library) : handle(dlopen(library.c_str(), RTLD_NOW|RTLD_LOCAL)) {
    if (handle == nullptr)
        throw std::runtime_error(dlerror());
    const auto load = reinterpret_cast<void (*)(WorkItem*, char**, char**)>(dlsym(handle, "emulatorLoad"));
    load(device(), &localBegin, &localEnd);
}

Module::Kernel Module::kernel(const std::string& name) const {
    return reinterpret_cast<Kernel>(dlsym(handle, ("emulatorCall_"+name).c_str()));
}

void Module::spoilLocalMemory() const {
    // Floating-point numbers of such bytes are none.
    std::memset(localBegin, 0xff, localEnd-localBegin);
}

void launch(const Module& module, Module::Kernel kernel, LaunchShape shape, void** arguments) {
    const std::lock_guard<std::mutex> guard(oneLaunch);
    static std::mt19937 random;
    std::vector<char> dynamicMemory(shape.dynamicBytes);
    workItem.dynamicMemory = dynamicMemory.data();
    workItem.blockSize = {shape.blockSize, 1, 1};
    workItem.gridSize = {shape.gridSize, 1, 1};
    for (unsigned int i = 0; i < shape.gridSize; i++) {
        workItem.block = {i, 0, 0};
        module.spoilLocalMemory();
        std::fill(dynamicMemory.begin(), dynamicMemory.end(), static_cast<char>(0xff));
        Block(kernel, shape, arguments, random).run();
    }
}

} // namespace emulator
