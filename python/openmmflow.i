// SPDX-License-Identifier: MIT
// The extension module behind the package openmmflow: FlowModel and FlowForce as C++ has them. What users see (names, units,
// arrays, documentation) is Python: openmmflow/_flow_model.py and openmmflow/_flow_force.py.

// Every call leaves the interpreter to other threads while it runs.
%module(package="openmmflow", threads="1") bindings

%{
#include "FlowForce.h"
#include "PluginRegistration.h"

#include <openmm/Context.h>
#include <openmm/Force.h>
#include <openmm/OpenMMException.h>

#include <cstddef>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>
%}

%include "std_string.i"
%include "conversions.i"
%include "exceptions.i"
%import(module="openmm") "openmm_types.i"
%include "flow_model.i"
%include "flow_force.i"
%include "plugin_status.i"
