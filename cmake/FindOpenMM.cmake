# SPDX-License-Identifier: MIT
# Finds OpenMM: in OPENMM_DIR (a conda environment or the prefix of a source build) or, if that is empty, in the `openmm` wheel of
# the Python that find_package(Python) found.
#
# Defines
#   OpenMM::OpenMM         the library with its headers
#   OpenMM_INCLUDE_DIR     folder of OpenMM.h
#   OpenMM_LIBRARY_DIR     folder of libOpenMM.so; plugins are in its subfolder plugins
#   OpenMM_IS_WHEEL        whether it is that of a Python wheel
#   OpenMM_VERSION         what Platform::getOpenMMVersion() returns

if(OPENMM_DIR)
    set(OpenMM_IS_WHEEL FALSE)
    set(_OpenMM_prefix "${OPENMM_DIR}")
else()
    # Importing openmm would load its plugins; its place is all that is needed.
    execute_process(
        COMMAND "${Python_EXECUTABLE}" -c
            "import importlib.util as u, pathlib as p; print(p.Path(u.find_spec('openmm').origin).parents[1] / 'OpenMM.libs', end='')"
        OUTPUT_VARIABLE _OpenMM_prefix
        RESULT_VARIABLE _OpenMM_result
        ERROR_QUIET)
    if(NOT _OpenMM_result EQUAL 0)
        set(_OpenMM_prefix "OpenMM_prefix-NOTFOUND")
    endif()
    set(OpenMM_IS_WHEEL TRUE)
endif()

# Not cached: the prefix may change between two runs, and each lies in a known place of it.
find_path(OpenMM_INCLUDE_DIR NAMES OpenMM.h PATHS "${_OpenMM_prefix}/include" NO_DEFAULT_PATH NO_CACHE)
find_library(OpenMM_LIBRARY NAMES OpenMM PATHS "${_OpenMM_prefix}/lib" "${_OpenMM_prefix}/lib64" NO_DEFAULT_PATH NO_CACHE)

if(OpenMM_INCLUDE_DIR AND OpenMM_LIBRARY)
    cmake_path(GET OpenMM_LIBRARY PARENT_PATH OpenMM_LIBRARY_DIR)
    if(NOT TARGET OpenMM::OpenMM)
        add_library(OpenMM::OpenMM SHARED IMPORTED)
        set_target_properties(OpenMM::OpenMM PROPERTIES
            IMPORTED_LOCATION "${OpenMM_LIBRARY}"
            INTERFACE_INCLUDE_DIRECTORIES "${OpenMM_INCLUDE_DIR}")
    endif()

    # The headers do not tell the version; the library does.
    file(TIMESTAMP "${OpenMM_LIBRARY}" _OpenMM_time)
    if(NOT OpenMM_VERSION_OF STREQUAL "${OpenMM_LIBRARY} ${_OpenMM_time}")
        try_run(_OpenMM_run _OpenMM_compiled
            SOURCE_FROM_CONTENT openmmVersion.cpp
                "#include <openmm/Platform.h>\n#include <iostream>\nint main() { std::cout << OpenMM::Platform::getOpenMMVersion(); }\n"
            LINK_LIBRARIES OpenMM::OpenMM
            NO_CACHE
            COMPILE_OUTPUT_VARIABLE _OpenMM_compileOutput
            RUN_OUTPUT_VARIABLE _OpenMM_runOutput)
        if(_OpenMM_compiled AND _OpenMM_run EQUAL 0)
            set(OpenMM_VERSION "${_OpenMM_runOutput}" CACHE INTERNAL "Version of the OpenMM library found")
            set(OpenMM_VERSION_OF "${OpenMM_LIBRARY} ${_OpenMM_time}" CACHE INTERNAL "The library that OpenMM_VERSION is of")
        else()
            unset(OpenMM_VERSION CACHE)
            message(WARNING "A program against ${OpenMM_LIBRARY} could not be built and run:\n"
                "${_OpenMM_compileOutput}${_OpenMM_runOutput}")
        endif()
    endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenMM
    REQUIRED_VARS OpenMM_LIBRARY OpenMM_INCLUDE_DIR OpenMM_VERSION
    VERSION_VAR OpenMM_VERSION
    REASON_FAILURE_MESSAGE "It was looked for in ${_OpenMM_prefix}. Install it for the Python that is used (${Python_EXECUTABLE}): \
pip install openmm==8.6.1, or give the prefix of another installation: -DOPENMM_DIR=/prefix")
