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
    // A message may quote a damaged file, and so hold anything.
    PyObject* text = PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)), "replace");
    if (text != nullptr)
        PyErr_SetObject(type, text);
    Py_XDECREF(text);
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
