// SPDX-License-Identifier: MIT
// Values that cross the language border. Vectors are no classes in Python: they arrive as lists of Python numbers and leave as
// tuples. (SWIG's std_vector.i would put a class of ours into the table of types that OpenMM's module uses, too.)

%fragment("SequenceOfNumbers", "header") {
    /** Append the numbers of a Python sequence; false, with the Python exception set, if that cannot be done. */
    template <class T, class Convert>
    static bool appendNumbers(PyObject* sequence, std::vector<T>& values, Convert convert) {
        Py_ssize_t size = PySequence_Size(sequence);
        for (Py_ssize_t i = 0; i < size; i++) {
            PyObject* item = PySequence_GetItem(sequence, i);
            if (item == nullptr)
                return false;
            values.push_back(convert(item));
            Py_DECREF(item);
            if (PyErr_Occurred() != nullptr)
                return false;
        }
        return size >= 0;
    }

    static int toInt(PyObject* number) {
        long value = PyLong_AsLong(number);
        if (PyErr_Occurred() == nullptr && (value < std::numeric_limits<int>::min() || value > std::numeric_limits<int>::max()))
            PyErr_SetString(PyExc_OverflowError, "an integer is too large: 32 bits are what OpenMM has");
        return static_cast<int>(value);
    }
}

%typemap(in, fragment="SequenceOfNumbers") const std::vector<int>& (std::vector<int> values) {
    if (!appendNumbers($input, values, toInt))
        SWIG_fail;
    $1 = &values;
}
%typemap(in, fragment="SequenceOfNumbers") const std::vector<double>& (std::vector<double> values) {
    if (!appendNumbers($input, values, PyFloat_AsDouble))
        SWIG_fail;
    $1 = &values;
}

%fragment("TupleOfNumbers", "header") {
    /** A tuple of Python objects; null, with the Python exception set, if that cannot be made. */
    template <class T, class Convert>
    static PyObject* makeTuple(const std::vector<T>& values, Convert convert) {
        PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(values.size()));
        for (std::size_t i = 0; tuple != nullptr && i < values.size(); i++) {
            PyObject* item = convert(values[i]);
            if (item == nullptr || PyTuple_SetItem(tuple, static_cast<Py_ssize_t>(i), item) != 0) {
                Py_DECREF(tuple);
                return nullptr;
            }
        }
        return tuple;
    }

    static PyObject* makeTuple(const std::vector<double>& values) {
        return makeTuple(values, PyFloat_FromDouble);
    }

    static PyObject* makeTuple(const std::vector<int>& values) {
        return makeTuple(values, PyLong_FromLong);
    }

    static PyObject* makeTuple(const std::vector<std::vector<double> >& values) {
        return makeTuple(values, [](const std::vector<double>& row) { return makeTuple(row); });
    }
}

%typemap(out, fragment="TupleOfNumbers") std::vector<int>, std::vector<double>, std::vector<std::vector<double> > {
    $result = makeTuple($1);
    if ($result == nullptr)
        SWIG_fail;
}

// Python's bytes for strings that hold no text: contents of files, and paths as the file system encodes them.
%typemap(in) const std::string& bytes (std::string contents) {
    char* data = nullptr;
    Py_ssize_t length = 0;
    if (PyBytes_AsStringAndSize($input, &data, &length) != 0)
        SWIG_fail;
    contents.assign(data, static_cast<std::size_t>(length));
    $1 = &contents;
}
%typemap(freearg) const std::string& bytes ""
%apply const std::string& bytes {const std::string& path};
%typemap(out) std::string toBytes {
    $result = PyBytes_FromStringAndSize($1.data(), static_cast<Py_ssize_t>($1.size()));
}
