// SPDX-License-Identifier: MIT
// C++ exceptions become Python ones of the same meaning.

%{
namespace {

/** Set the Python exception `module.name` with a message. */
void setPythonError(const char* module, const char* name, const char* message) {
    PyObject* owner = PyImport_ImportModule(module);
    if (owner == nullptr)
        return;
    PyObject* type = PyObject_GetAttrString(owner, name);
    Py_DECREF(owner);
    if (type == nullptr)
        return;
    PyErr_SetString(type, message);
    Py_DECREF(type);
}

} // namespace
%}

%exception {
    try {
        $action
    }
    catch (const OpenMMFlow::FlowModelError& error) {
        setPythonError("openmmflow._errors", "FlowModelError", error.what());
        SWIG_fail;
    }
    catch (const OpenMM::OpenMMException& error) {
        setPythonError("openmm", "OpenMMException", error.what());
        SWIG_fail;
    }
    catch (const std::bad_alloc& error) {
        setPythonError("builtins", "MemoryError", error.what());
        SWIG_fail;
    }
    catch (const std::out_of_range& error) {
        setPythonError("builtins", "IndexError", error.what());
        SWIG_fail;
    }
    catch (const std::exception& error) {
        setPythonError("builtins", "RuntimeError", error.what());
        SWIG_fail;
    }
}
