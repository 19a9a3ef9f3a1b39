# SPDX-License-Identifier: MIT
# Where things are installed, relative to CMAKE_INSTALL_PREFIX, such that OpenMM finds them without an environment variable:
# beside OpenMM's own libraries. And the run paths between them, so that no library depends on LD_LIBRARY_PATH.
#
#   OPENMMFLOW_INSTALL_LIB       libOpenMMFlow.so          OPENMMFLOW_LIB_RPATH
#   OPENMMFLOW_INSTALL_PLUGINS   plugins                   OPENMMFLOW_PLUGIN_RPATH
#   OPENMMFLOW_INSTALL_INCLUDE   headers
#   OPENMMFLOW_INSTALL_PACKAGE   the Python package        OPENMMFLOW_PACKAGE_RPATH

set(OPENMMFLOW_INSTALL_PACKAGE openmmflow)
set(OPENMMFLOW_LIB_RPATH "$ORIGIN")
set(OPENMMFLOW_PLUGIN_RPATH "$ORIGIN;$ORIGIN/..")
if(OpenMM_IS_WHEEL)
    # A wheel: folders of site-packages, which merge with those of the openmm wheel.
    set(_OpenMMFlow_libs OpenMM.libs)
    set(OPENMMFLOW_PACKAGE_RPATH "$ORIGIN/../OpenMM.libs/lib")
else()
    # An OpenMM that stays where it is, wherever our libraries go.
    list(APPEND OPENMMFLOW_LIB_RPATH "${OpenMM_LIBRARY_DIR}")
    list(APPEND OPENMMFLOW_PLUGIN_RPATH "${OpenMM_LIBRARY_DIR}")
    # lib/pythonX.Y/site-packages/openmmflow to lib
    set(OPENMMFLOW_PACKAGE_RPATH "$ORIGIN/../../..;${OpenMM_LIBRARY_DIR}")
    if(SKBUILD)
        # The prefix of the Python environment; OpenMM's, too, if it comes from conda.
        set(_OpenMMFlow_libs "${SKBUILD_DATA_DIR}")
    else()
        set(_OpenMMFlow_libs "")
        if(CMAKE_INSTALL_PREFIX_INITIALIZED_TO_DEFAULT)
            set_property(CACHE CMAKE_INSTALL_PREFIX PROPERTY VALUE "${OPENMM_DIR}")
        endif()
    endif()
endif()
cmake_path(APPEND _OpenMMFlow_libs lib OUTPUT_VARIABLE OPENMMFLOW_INSTALL_LIB)
cmake_path(APPEND _OpenMMFlow_libs lib/plugins OUTPUT_VARIABLE OPENMMFLOW_INSTALL_PLUGINS)
cmake_path(APPEND _OpenMMFlow_libs include OUTPUT_VARIABLE OPENMMFLOW_INSTALL_INCLUDE)

# The build tree is laid out in the same way: libraries in lib, plugins in lib/plugins.
set(OPENMMFLOW_BUILD_LIB "${PROJECT_BINARY_DIR}/lib")
set(OPENMMFLOW_BUILD_PLUGINS "${PROJECT_BINARY_DIR}/lib/plugins")
