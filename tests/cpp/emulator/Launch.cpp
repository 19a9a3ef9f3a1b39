// SPDX-License-Identifier: MIT
#include "Launch.h"
#include "WorkItem.h"

#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>

#include <algorithm>
#include <cstring>
#include <memory>
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
    Ready, AtBlockBarrier, AtWarpBarrier, AtClusterBarrier, Failed, Done
};

struct Thread {
    fiber continuation, scheduler;
    State state = State::Ready;
    unsigned int clusterArrivals = 0, clusterWaits = 0;
};

WorkItem workItem;
std::mutex oneLaunch;

/** Numbers that are not what a kernel could count on: floating-point numbers of such bytes are none. */
std::vector<char> spoiled(std::size_t size) {
    return std::vector<char>(size, static_cast<char>(0xff));
}

/** What the work-items of the blocks of a cluster have in common. */
struct ClusterBarrier {
    unsigned int numThreads, numArrived = 0, numCompleted = 0;
};

class Block {
public:
    Block(const Kernel& kernel, LaunchShape shape, std::size_t localSize, void** arguments, ClusterBarrier& barrier, std::mt19937& random) :
            localMemory(spoiled(localSize)), shape(shape), barrier(barrier), random(random), threads(shape.blockSize), order(shape.blockSize),
            warpSlots(spoiled(16*(shape.blockSize+shape.warpSize))), dynamicMemory(spoiled(shape.dynamicBytes)) {
        static boost::context::pooled_fixedsize_stack stacks(256*1024);
        for (Thread& thread : threads)
            thread.continuation = fiber(std::allocator_arg, stacks, [call = kernel.call, arguments, &thread](fiber&& scheduler) {
                thread.scheduler = std::move(scheduler);
                call(arguments);
                thread.state = State::Done;
                return std::move(thread.scheduler);
            });
        std::iota(order.begin(), order.end(), 0);
    }

    /** Go on until nothing is left to do, or only other blocks of the cluster can help; whether anything could be done. */
    bool run() {
        workItem.dynamicMemory = dynamicMemory.data();
        hasBegun = true;
        bool isFirst = true;
        while (advance())
            isFirst = false;
        return !isFirst;
    }

    bool isRunning() const {
        return hasBegun && !isDone();
    }

    bool isDone() const {
        return count(0, shape.blockSize, State::Done) == shape.blockSize;
    }

    // What the work-item that runs asks for.

    void wait(State state) {
        Thread& thread = threads[running];
        thread.state = state;
        thread.scheduler = std::move(thread.scheduler).resume();
    }

    void arriveAtCluster() {
        Thread& thread = threads[running];
        if (thread.clusterArrivals++ > thread.clusterWaits)
            fail("a work-item arrives at the barrier of its cluster again before it waited for it");
        if (++barrier.numArrived == barrier.numThreads) {
            barrier.numArrived = 0;
            barrier.numCompleted++;
        }
    }

    void waitForCluster() {
        Thread& thread = threads[running];
        if (thread.clusterArrivals == thread.clusterWaits++)
            fail("a work-item waits for its cluster without having arrived at its barrier");
        if (barrier.numCompleted < thread.clusterArrivals)
            wait(State::AtClusterBarrier);
    }

    char* warpSlotsOfThis() {
        return warpSlots.data()+16*(running/shape.warpSize*shape.warpSize);
    }

    /** The launch ends with this error. */
    void fail(const char* why) {
        failure = why;
        wait(State::Failed);
    }

    std::vector<char> localMemory;    // while another block runs

private:
    /** One pass through all work-items; whether there was one that could go on. */
    bool advance() {
        bool any = false;
        std::shuffle(order.begin(), order.end(), random);
        for (unsigned int i : order)
            if (isReady(threads[i])) {
                resume(i);
                any = true;
            }
        for (unsigned int first = 0; first < shape.blockSize; first += shape.warpSize)
            while (passWarpBarrier(first, std::min(first+shape.warpSize, shape.blockSize)))
                any = true;
        return passBlockBarrier() || any;
    }

    bool isReady(const Thread& thread) const {
        return thread.state == State::Ready || (thread.state == State::AtClusterBarrier && barrier.numCompleted >= thread.clusterArrivals);
    }

    void resume(unsigned int i) {
        running = i;
        workItem.thread = {i, 0, 0};
        threads[i].continuation = std::move(threads[i].continuation).resume();
        if (failure != nullptr)
            throw std::runtime_error(failure);
    }

    unsigned int count(unsigned int first, unsigned int end, State state) const {
        return std::count_if(threads.begin()+first, threads.begin()+end, [&](const Thread& thread) { return thread.state == state; });
    }

    /** Let a warp go on if it waits for itself. Those of it that have ended are not waited for. */
    bool passWarpBarrier(unsigned int first, unsigned int end) {
        // Its cluster may have come together while it was the turn of others.
        if (count(first, end, State::AtWarpBarrier) == 0 || std::any_of(threads.begin()+first, threads.begin()+end, [&](const Thread& thread) {
                return isReady(thread);
            }))
            return false;
        if (!shape.warpsMayBranch && count(first, end, State::AtBlockBarrier)+count(first, end, State::AtClusterBarrier) > 0)
            throw std::runtime_error("of a warp some work-items wait for the warp, others for the block or the cluster");
        for (unsigned int i = first; i < end; i++)
            if (threads[i].state == State::AtWarpBarrier)
                resume(i);
        return true;
    }

    /** Let the block go on if all of it waits for itself. */
    bool passBlockBarrier() {
        const unsigned int numWaiting = count(0, shape.blockSize, State::AtBlockBarrier), numDone = count(0, shape.blockSize, State::Done);
        if (numWaiting == 0 || numWaiting+numDone < shape.blockSize)
            return false;
        if (numDone > 0)
            throw std::runtime_error("some work-items of a block wait at a barrier, others have ended");
        for (Thread& thread : threads)
            thread.state = State::Ready;
        return true;
    }

    const LaunchShape shape;
    ClusterBarrier& barrier;
    std::mt19937& random;
    std::vector<Thread> threads;
    std::vector<unsigned int> order;
    std::vector<char> warpSlots, dynamicMemory;
    unsigned int running = 0;
    bool hasBegun = false;
    const char* failure = nullptr;
};

/** Blocks that run at the same time, from the start of their work-items to their end. */
class Cluster {
public:
    Cluster(const Module& module, const Kernel& kernel, LaunchShape shape, unsigned int firstBlock, void** arguments, std::mt19937& random) :
            module(module), firstBlock(firstBlock), barrier{kernel.cluster*shape.blockSize}, random(random), order(kernel.cluster) {
        for (unsigned int i = 0; i < kernel.cluster; i++)
            blocks.push_back(std::make_unique<Block>(kernel, shape, module.localSize(), arguments, barrier, random));
        std::iota(order.begin(), order.end(), 0);
    }

    void run() {
        while (!std::all_of(blocks.begin(), blocks.end(), [](const auto& block) { return block->isDone(); })) {
            bool any = false;
            std::shuffle(order.begin(), order.end(), random);
            for (unsigned int i : order) {
                select(i);
                any = blocks[i]->run() || any;
            }
            if (!any)
                throw std::runtime_error("some work-items of a cluster wait for it, others have ended or wait for their block");
        }
    }

    Block& block() {
        return *blocks[running];
    }

    /** The same place in the local memory of a block of the cluster. */
    void* localMemoryOf(const void* pointer, unsigned int rank) {
        const std::ptrdiff_t place = static_cast<const char*>(pointer)-module.localMemory();
        if (rank >= blocks.size() || place < 0 || static_cast<std::size_t>(place) >= module.localSize())
            block().fail("what is asked for of a block of the cluster is not in local memory of fixed size, or there is no such block");
        if (!blocks[rank]->isRunning())
            block().fail("a work-item reaches for the local memory of a block that has not begun or has ended");
        return rank == running ? const_cast<void*>(pointer) : blocks[rank]->localMemory.data()+place;
    }

private:
    /** Let a block run next. All of them find their local memory at the same place. */
    void select(unsigned int i) {
        if (!isFirst)
            std::memcpy(block().localMemory.data(), module.localMemory(), module.localSize());
        isFirst = false;
        running = i;
        std::memcpy(module.localMemory(), block().localMemory.data(), module.localSize());
        workItem.block = {firstBlock+i, 0, 0};
    }

    const Module& module;
    const unsigned int firstBlock;
    ClusterBarrier barrier;
    std::mt19937& random;
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<unsigned int> order;
    unsigned int running = 0;
    bool isFirst = true;
};

Cluster* cluster;    // that runs, of the launch that runs

WorkItem* device() {
    workItem.waitForBlock = [] {
        cluster->block().wait(State::AtBlockBarrier);
    };
    workItem.waitForWarp = [] {
        cluster->block().wait(State::AtWarpBarrier);
    };
    workItem.warpSlots = [] {
        return cluster->block().warpSlotsOfThis();
    };
    workItem.arriveAtCluster = [] {
        cluster->block().arriveAtCluster();
    };
    workItem.waitForCluster = [] {
        cluster->block().waitForCluster();
    };
    workItem.localMemoryOf = [](const void* pointer, unsigned int rank) {
        return cluster->localMemoryOf(pointer, rank);
    };
    return &workItem;
}

} // namespace

Module::Module(const std::string& library) : handle(dlopen(library.c_str(), RTLD_NOW|RTLD_LOCAL)) {
    if (handle == nullptr)
        throw std::runtime_error(dlerror());
    const auto load = reinterpret_cast<void (*)(WorkItem*, char**, char**)>(dlsym(handle, "emulatorLoad"));
    load(device(), &localBegin, &localEnd);
}

Kernel Module::kernel(const std::string& name) const {
    Kernel kernel;
    kernel.call = reinterpret_cast<void (*)(void**)>(dlsym(handle, ("emulatorCall_"+name).c_str()));
    if (kernel.call != nullptr)
        kernel.cluster = *static_cast<const unsigned int*>(dlsym(handle, ("emulatorCluster_"+name).c_str()));
    return kernel;
}

void launch(const Module& module, const Kernel& kernel, LaunchShape shape, void** arguments) {
    const std::lock_guard<std::mutex> guard(oneLaunch);
    static std::mt19937 random;
    workItem.blockSize = {shape.blockSize, 1, 1};
    workItem.gridSize = {shape.gridSize, 1, 1};
    for (unsigned int first = 0; first < shape.gridSize; first += kernel.cluster) {
        Cluster next(module, kernel, shape, first, arguments, random);
        cluster = &next;
        next.run();
    }
}

} // namespace emulator
