// SPDX-License-Identifier: MIT
// HIP's runtime of version 6 as far as OpenMM uses it, with two devices like a GPU of CDNA in what they tell, and with work done when it is asked
// for. Declarations are written out, as headers of version 5 are all that some systems have.
#include "DeviceMemory.h"
#include "EmulatedDevice.h"
#include "KernelCompiler.h"
#include "Launch.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>

using emulator::mostThreads;
using emulator::numDevices;

namespace {

/** hipError_t */
enum Error {
    Success = 0, InvalidValue = 1, InvalidDevice = 101, InvalidImage = 200, FileNotFound = 301, InvalidHandle = 400, NotFound = 500,
    LaunchFailure = 719, NotSupported = 801
};

/** hipDeviceAttribute_t */
enum Attribute {
    MultiprocessorCount = 63, MaxSharedMemoryPerBlock = 74
};

/** hipFunction_attribute */
constexpr int mostThreadsOfFunction = 0;

constexpr std::size_t localBytes = 64*1024;
constexpr int warpSize = 64;

/** hipDeviceProp_t of version 6: what OpenMM reads, at its places. */
struct Properties {
    char name[256];
    char otherProperties[40];
    std::size_t localBytes;
    int registers, warpSize;
    char moreProperties[36];
    int clockRate;
    char evenMoreProperties[36];
    int numMultiprocessors;
    char mostProperties[768];
    char architecture[256];
    char lastProperties[56];
};
static_assert(offsetof(Properties, localBytes) == 296 && offsetof(Properties, warpSize) == 308 && offsetof(Properties, clockRate) == 348 &&
        offsetof(Properties, numMultiprocessors) == 388 && offsetof(Properties, architecture) == 1160 && sizeof(Properties) == 1472);

thread_local int currentDevice = 0;
thread_local Error lastError = Success;

Error failure(Error error, const std::string& why) {
    std::cerr << "emulated HIP: " << why << std::endl;
    return lastError = error;
}

struct Module {
    int device;
    emulator::Module module;
};

struct Function {
    const Module* module;
    emulator::Kernel kernel;
    std::string name;
};

/** Streams and events, which there is nothing to know about. */
struct Object {
};

template <class T>
Error create(void** object) {
    *object = new T;
    return Success;
}

template <class T>
Error destroy(void* object) {
    delete static_cast<T*>(object);
    return Success;
}

Error load(void** module, const std::string& path) {
    if (!emulator::isUpToDate(path))
        return lastError = FileNotFound;
    try {
        *module = new Module{currentDevice, emulator::Module(path)};
        return Success;
    }
    catch (const std::runtime_error& error) {
        return failure(InvalidImage, error.what());
    }
}

} // namespace

extern "C" {

// --- devices -----------------------------------------------------------------------------------------------------------------

int hipInit(unsigned int) {
    return Success;
}

int hipRuntimeGetVersion(int* version) {
    *version = 60200000;
    return Success;
}

const char* hipGetErrorName(int error) {
    return error == Success ? "hipSuccess" : "an error of the emulated device";
}

const char* hipGetErrorString(int error) {
    return hipGetErrorName(error);
}

int hipGetLastError() {
    const Error error = lastError;
    lastError = Success;
    return error;
}

int hipGetDeviceCount(int* count) {
    *count = numDevices;
    return Success;
}

int hipDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal < numDevices ? Success : InvalidDevice;
}

int hipDeviceGetName(char* name, int length, int) {
    std::strncpy(name, emulator::deviceName, length);
    return Success;
}

int hipGetDevicePropertiesR0600(void* properties, int) {
    Properties found = {};
    std::strcpy(found.name, emulator::deviceName);
    std::strcpy(found.architecture, "gfx90a");
    found.localBytes = localBytes;
    found.warpSize = warpSize;
    found.numMultiprocessors = emulator::numMultiprocessors();
    found.clockRate = 1700000;
    std::memcpy(properties, &found, sizeof(found));
    return Success;
}

int hipDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case MultiprocessorCount:
            *value = emulator::numMultiprocessors();
            return Success;
        case MaxSharedMemoryPerBlock:
            *value = localBytes;
            return Success;
        default:
            return failure(NotSupported, "there is no attribute "+std::to_string(attribute));
    }
}

int hipSetDevice(int device) {
    currentDevice = device;
    return device < numDevices ? Success : InvalidDevice;
}

int hipGetDevice(int* device) {
    *device = currentDevice;
    return Success;
}

int hipDeviceSynchronize() {
    return Success;
}

int hipDeviceCanAccessPeer(int* can, int, int) {
    *can = 1;
    return Success;
}

int hipDeviceEnablePeerAccess(int, unsigned int) {
    return Success;
}

// --- streams and events ------------------------------------------------------------------------------------------------------

int hipStreamCreateWithFlags(void** stream, unsigned int) {
    return create<Object>(stream);
}

int hipStreamDestroy(void* stream) {
    return destroy<Object>(stream);
}

int hipStreamSynchronize(void*) {
    return Success;
}

int hipStreamWaitEvent(void*, void*, unsigned int) {
    return Success;
}

int hipEventCreate(void** event) {
    return create<Object>(event);
}

int hipEventCreateWithFlags(void** event, unsigned int) {
    return create<Object>(event);
}

int hipEventDestroy(void* event) {
    return destroy<Object>(event);
}

int hipEventRecord(void*, void*) {
    return Success;
}

int hipEventSynchronize(void*) {
    return Success;
}

// --- memory ------------------------------------------------------------------------------------------------------------------

int hipMalloc(void** array, std::size_t size) {
    if (size == 0)
        return failure(InvalidValue, "an array of nothing");
    *array = emulator::deviceMemory().allocate(size);
    return Success;
}

int hipFree(void* array) {
    return emulator::deviceMemory().free(array) ? Success : failure(InvalidValue, "what is freed is no array");
}

int hipHostMalloc(void** memory, std::size_t size, unsigned int) {
    *memory = std::malloc(size);
    return Success;
}

int hipHostFree(void* memory) {
    std::free(memory);
    return Success;
}

int hipHostGetDevicePointer(void** address, void* memory, unsigned int) {
    *address = memory;
    return Success;
}

/** @param direction  hipMemcpyKind: 1 to, 2 from, 3 within devices */
int hipMemcpy(void* target, const void* source, std::size_t size, int direction) {
    const bool toDevice = (direction == 1 || direction == 3), fromDevice = (direction == 2 || direction == 3);
    if ((toDevice && !emulator::deviceMemory().contains(target, size)) || (fromDevice && !emulator::deviceMemory().contains(source, size)))
        return failure(InvalidValue, "a copy of "+std::to_string(size)+" bytes is not inside of an array");
    std::memcpy(target, source, size);
    return Success;
}

int hipMemcpyAsync(void* target, const void* source, std::size_t size, int direction, void*) {
    return hipMemcpy(target, source, size, direction);
}

int hipMemcpyHtoD(void* target, const void* source, std::size_t size) {
    return hipMemcpy(target, source, size, 1);
}

// --- kernels -----------------------------------------------------------------------------------------------------------------

/** @param code  by hiprtcGetCode: the path of a library */
int hipModuleLoadDataEx(void** module, const void* code, unsigned int, int*, void**) {
    return load(module, static_cast<const char*>(code));
}

int hipModuleLoad(void** module, const char* name) {
    std::ifstream file(name);
    std::string path;
    std::getline(file, path, '\0');
    return load(module, path);
}

int hipModuleUnload(void* module) {
    return destroy<Module>(module);
}

int hipModuleGetGlobal(void**, std::size_t*, void*, const char*) {
    return failure(NotSupported, "there are no global variables");
}

int hipModuleGetFunction(void** function, void* module, const char* name) {
    const auto* of = static_cast<const Module*>(module);
    const emulator::Kernel kernel = of->module.kernel(name);
    if (kernel.call == nullptr)
        return lastError = NotFound;
    *function = new Function{of, kernel, name};
    return Success;
}

int hipFuncGetAttribute(int* value, int attribute, void*) {
    if (attribute != mostThreadsOfFunction)
        return failure(NotSupported, "functions have no attribute "+std::to_string(attribute));
    *value = mostThreads;
    return Success;
}

int hipFuncSetAttribute(const void*, int, int) {
    return Success;
}

int hipModuleLaunchKernel(void* handle, unsigned int gridX, unsigned int gridY, unsigned int gridZ, unsigned int blockX, unsigned int blockY,
        unsigned int blockZ, unsigned int dynamicBytes, void*, void** arguments, void**) {
    const auto* function = static_cast<const Function*>(handle);
    if (function->module->device != currentDevice)
        return failure(InvalidHandle, "kernel "+function->name+" is not of the device that is current");
    if (gridX == 0 || blockX == 0 || blockX > mostThreads || gridY*gridZ*blockY*blockZ != 1 || dynamicBytes > localBytes)
        return failure(InvalidValue, "kernel "+function->name+" cannot be launched in this shape");
    emulator::logLaunch(function->name, gridX);
    try {
        emulator::launch(function->module->module, function->kernel, {gridX, blockX, dynamicBytes, warpSize, true}, arguments);
        return Success;
    }
    catch (const std::runtime_error& error) {
        return failure(LaunchFailure, "kernel "+function->name+": "+error.what());
    }
}

} // extern "C"
