# SPDX-License-Identifier: MIT
"""Arguments with and without units, checked: a wrong unit raises instead of being taken for the right one."""
from __future__ import annotations

import operator

import numpy as np
from openmm import unit


def value_in(quantity, expected: unit.Unit, what: str):
    """The value of a Quantity in a unit, or what was given if it has no unit.

    Raises
    ------
    TypeError : the Quantity is of another dimension; `what` names it in the message.
    """
    if not unit.is_quantity(quantity):
        return quantity
    if not quantity.unit.is_compatible(expected):
        raise TypeError(f"{what} was given in {quantity.unit}, expected {expected} or a unit that converts to it "
                        "(numbers without unit are taken as such)")
    return quantity.value_in_unit(expected)


def scalar_in(quantity, expected: unit.Unit, what: str) -> float:
    """Like :func:`value_in`, for one number; NumPy's scalars of any kind are numbers, too."""
    value = value_in(quantity, expected, what)
    try:
        if np.ndim(value) == 0 and not isinstance(value, (str, bytes)):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{what} must be one number, got {value!r}")


def array_in(quantity, expected: unit.Unit, what: str) -> np.ndarray:
    """Like :func:`value_in`, as a C-contiguous array of float64; any sequence, also of Quantities, will do."""
    value = value_in(quantity, expected, what)
    if not isinstance(value, np.ndarray) and np.iterable(value):
        value = [_item_in(item, expected, what) for item in value]
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{what} must be an array of real numbers, got {_kind(array)}")
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def as_indices(indices, what: str) -> list[int]:
    """Integers of any kind (a range, a list, a NumPy array) as a list of int.

    Raises
    ------
    TypeError : something else than integers; `what` names it in the message.
    """
    try:
        return [operator.index(index) for index in indices]
    except TypeError:
        raise TypeError(f"{what} must be a sequence of integers, such as range(22), got {indices!r}") from None


def as_index(value, what: str) -> int:
    """An integer of any kind as int. Raises TypeError for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, got {value!r}") from None


def _item_in(item, expected, what):
    if unit.is_quantity(item):
        return value_in(item, expected, what)
    if isinstance(item, (list, tuple)) and any(unit.is_quantity(entry) for entry in item):
        return [value_in(entry, expected, what) for entry in item]
    return item


def _kind(array: np.ndarray) -> str:
    return "ragged or foreign objects" if array.dtype.kind == "O" else f"type {array.dtype}"
