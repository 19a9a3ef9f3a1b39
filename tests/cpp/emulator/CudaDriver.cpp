// SPDX-License-Identifier: MIT
// CUDA's driver as far as OpenMM uses it, with two devices like an H200 in what they tell, and with work done when it is asked for. It is
// stricter than a driver: kernels must be of the context that is current, and copies inside of an array.
#include "DeviceMemory.h"
#include "EmulatedDevice.h"
#include "KernelCompiler.h"
#include "Launch.h"

#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

struct CUctx_st {
    CUdevice device;
};
struct CUmod_st {
    CUcontext context;
    emulator::Module module;
};
struct CUfunc_st {
    CUmodule module;
    emulator::Kernel kernel;
    std::string name;
};
struct CUstream_st {
};
struct CUevent_st {
};

namespace {

using emulator::mostThreads;
using emulator::numDevices;

constexpr int localBytes = 48*1024;

thread_local std::vector<CUcontext> contexts;

CUcontext currentContext() {
    return contexts.empty() ? nullptr : contexts.back();
}

CUresult failure(CUresult result, const std::string& why) {
    std::cerr << "emulated CUDA: " << why << std::endl;
    return result;
}

void* pointer(CUdeviceptr address) {
    return reinterpret_cast<void*>(address);
}

/** Sides that are of the host are nullptr in the second pair. */
CUresult copy(void* target, const void* source, std::size_t size, const void* deviceTarget, const void* deviceSource) {
    if (currentContext() == nullptr)
        return failure(CUDA_ERROR_INVALID_CONTEXT, "a copy without a context");
    for (const void* side : {deviceTarget, deviceSource})
        if (side != nullptr && !emulator::deviceMemory().contains(side, size))
            return failure(CUDA_ERROR_INVALID_VALUE, "a copy of "+std::to_string(size)+" bytes is not inside of an array");
    std::memcpy(target, source, size);
    return CUDA_SUCCESS;
}

template <class T>
CUresult create(T** object) {
    if (currentContext() == nullptr)
        return failure(CUDA_ERROR_INVALID_CONTEXT, "a stream or an event without a context");
    *object = new T;
    return CUDA_SUCCESS;
}

template <class T>
CUresult destroy(T* object) {
    delete object;
    return CUDA_SUCCESS;
}

} // namespace

extern "C" {

// --- devices and contexts ----------------------------------------------------------------------------------------------------

CUresult cuInit(unsigned int) {
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char** name) {
    thread_local char text[32];
    std::snprintf(text, sizeof(text), "CUresult %d", static_cast<int>(error));
    *name = text;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
    *count = numDevices;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return ordinal < numDevices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char* name, int length, CUdevice) {
    std::snprintf(name, length, "%s", emulator::deviceName);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
            *value = 9;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
            *value = 0;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
            *value = emulator::numMultiprocessors();
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
            *value = localBytes;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
            *value = mostThreads;
            return CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
            *value = 1980000;
            return CUDA_SUCCESS;
        default:
            return failure(CUDA_ERROR_NOT_SUPPORTED, "there is no attribute "+std::to_string(attribute));
    }
}

CUresult cuDeviceCanAccessPeer(int* can, CUdevice, CUdevice) {
    *can = 1;
    return CUDA_SUCCESS;
}

CUresult cuCtxEnablePeerAccess(CUcontext, unsigned int) {
    return CUDA_SUCCESS;
}

#if CUDA_VERSION < 13000
CUresult cuCtxCreate(CUcontext* context, unsigned int, CUdevice device) {
#else
CUresult cuCtxCreate(CUcontext* context, CUctxCreateParams*, unsigned int, CUdevice device) {
#endif
    *context = new CUctx_st{device};
    contexts.push_back(*context);
    return CUDA_SUCCESS;
}

CUresult cuCtxDestroy(CUcontext context) {
    if (currentContext() == context)
        contexts.pop_back();
    return destroy(context);
}

CUresult cuCtxPushCurrent(CUcontext context) {
    contexts.push_back(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext* context) {
    if (contexts.empty())
        return failure(CUDA_ERROR_INVALID_CONTEXT, "there is no context to pop");
    *context = contexts.back();
    contexts.pop_back();
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    if (!contexts.empty())
        contexts.pop_back();
    contexts.push_back(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCacheConfig(CUfunc_cache) {
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
    return CUDA_SUCCESS;
}

CUresult cuProfilerStop() {
    return CUDA_SUCCESS;
}

// --- streams and events ------------------------------------------------------------------------------------------------------

CUresult cuStreamCreate(CUstream* stream, unsigned int) {
    return create(stream);
}

CUresult cuStreamDestroy(CUstream stream) {
    return destroy(stream);
}

CUresult cuStreamSynchronize(CUstream) {
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned int) {
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent* event, unsigned int) {
    return create(event);
}

CUresult cuEventDestroy(CUevent event) {
    return destroy(event);
}

CUresult cuEventRecord(CUevent, CUstream) {
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent) {
    return CUDA_SUCCESS;
}

// --- memory ------------------------------------------------------------------------------------------------------------------

CUresult cuMemAlloc(CUdeviceptr* array, size_t size) {
    if (currentContext() == nullptr || size == 0)
        return failure(CUDA_ERROR_INVALID_VALUE, "an array of nothing, or without a context");
    *array = reinterpret_cast<CUdeviceptr>(emulator::deviceMemory().allocate(size));
    return CUDA_SUCCESS;
}

CUresult cuMemFree(CUdeviceptr array) {
    return emulator::deviceMemory().free(pointer(array)) ? CUDA_SUCCESS : failure(CUDA_ERROR_INVALID_VALUE, "what is freed is no array");
}

CUresult cuMemHostAlloc(void** memory, size_t size, unsigned int) {
    *memory = std::malloc(size);
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void* memory) {
    std::free(memory);
    return CUDA_SUCCESS;
}

CUresult cuMemHostGetDevicePointer(CUdeviceptr* address, void* memory, unsigned int) {
    *address = reinterpret_cast<CUdeviceptr>(memory);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD(CUdeviceptr target, const void* source, size_t size) {
    return copy(pointer(target), source, size, pointer(target), nullptr);
}

CUresult cuMemcpyDtoH(void* target, CUdeviceptr source, size_t size) {
    return copy(target, pointer(source), size, nullptr, pointer(source));
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr target, const void* source, size_t size, CUstream) {
    return cuMemcpyHtoD(target, source, size);
}

CUresult cuMemcpyDtoHAsync(void* target, CUdeviceptr source, size_t size, CUstream) {
    return cuMemcpyDtoH(target, source, size);
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr target, CUdeviceptr source, size_t size, CUstream) {
    return copy(pointer(target), pointer(source), size, pointer(target), pointer(source));
}

/** Either side may be of the host. */
CUresult cuMemcpyAsync(CUdeviceptr target, CUdeviceptr source, size_t size, CUstream) {
    return copy(pointer(target), pointer(source), size, nullptr, nullptr);
}

// --- kernels -----------------------------------------------------------------------------------------------------------------

/** @param code  by nvrtcGetPTX: the path of a library */
CUresult cuModuleLoadDataEx(CUmodule* module, const void* code, unsigned int, CUjit_option*, void**) {
    const std::string path = static_cast<const char*>(code);
    if (currentContext() == nullptr)
        return failure(CUDA_ERROR_INVALID_CONTEXT, "a module without a context");
    if (!emulator::isUpToDate(path))
        return CUDA_ERROR_INVALID_PTX;
    try {
        *module = new CUmod_st{currentContext(), emulator::Module(path)};
        return CUDA_SUCCESS;
    }
    catch (const std::runtime_error& error) {
        return failure(CUDA_ERROR_INVALID_PTX, error.what());
    }
}

CUresult cuModuleLoad(CUmodule* module, const char* name) {
    std::ifstream file(name);
    std::string path;
    if (!std::getline(file, path))
        return CUDA_ERROR_FILE_NOT_FOUND;
    return cuModuleLoadDataEx(module, path.c_str(), 0, nullptr, nullptr);
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    const emulator::Kernel kernel = module->module.kernel(name);
    if (kernel.call == nullptr)
        return CUDA_ERROR_NOT_FOUND;
    *function = new CUfunc_st{module, kernel, name};
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)
        return failure(CUDA_ERROR_NOT_SUPPORTED, "functions have no attribute "+std::to_string(attribute));
    *value = mostThreads;
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned int gridX, unsigned int gridY, unsigned int gridZ, unsigned int blockX,
        unsigned int blockY, unsigned int blockZ, unsigned int dynamicBytes, CUstream, void** arguments, void**) {
    if (function->module->context != currentContext())
        return failure(CUDA_ERROR_INVALID_HANDLE, "kernel "+function->name+" is not of the context that is current");
    if (gridX == 0 || blockX == 0 || blockX > mostThreads || gridY*gridZ*blockY*blockZ != 1 || dynamicBytes > localBytes)
        return failure(CUDA_ERROR_INVALID_VALUE, "kernel "+function->name+" cannot be launched in this shape");
    if (gridX%function->kernel.cluster != 0 || function->kernel.cluster > emulator::largestCluster())
        return failure(CUDA_ERROR_INVALID_CLUSTER_SIZE, "kernel "+function->name+" has clusters of "+std::to_string(function->kernel.cluster)+
                " blocks, of which "+std::to_string(gridX)+" are no whole number, or the device has none so large");
    emulator::logLaunch(function->name, gridX);
    try {
        emulator::launch(function->module->module, function->kernel, {gridX, blockX, dynamicBytes, 32, false}, arguments);
        return CUDA_SUCCESS;
    }
    catch (const std::runtime_error& error) {
        return failure(CUDA_ERROR_LAUNCH_FAILED, "kernel "+function->name+": "+error.what());
    }
}

} // extern "C"
