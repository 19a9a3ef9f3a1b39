// SPDX-License-Identifier: MIT
#ifndef OPENMMFLOW_TESTS_DEVICEPROLOGUE_H_
#define OPENMMFLOW_TESTS_DEVICEPROLOGUE_H_

#include <map>
#include <string>

namespace OpenMMFlow {

/**
 * What OpenMM's CUDA and HIP platforms put before a source, to compile it as they do on a machine without a device. Texts are taken from
 * the installed library.
 */
class DevicePrologue {
public:
    /** @param library  path of libOpenMMCUDA.so or libOpenMMHIP.so */
    explicit DevicePrologue(const std::string& library);

    /** The string constant of the library that contains a text; empty, and a failure of the test, if there is none. */
    std::string constantWith(const std::string& text) const;

    /**
     * The platform's own definitions and types, then what a kernel is compiled with.
     *
     * @param precision    single, mixed or double
     * @param first        what only this platform defines
     * @param functions    those whose single-precision versions are not the name followed by f
     * @param common       a text in the platform's header of the common compute language
     * @param definitions  of the kernel
     */
    std::string operator()(const std::string& precision, const std::string& first, const std::map<std::string, std::string>& functions,
            const std::string& common, const std::map<std::string, std::string>& definitions) const;

private:
    std::string path, library;
};

} // namespace OpenMMFlow

#endif // OPENMMFLOW_TESTS_DEVICEPROLOGUE_H_
