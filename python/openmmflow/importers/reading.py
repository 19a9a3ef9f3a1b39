# SPDX-License-Identifier: MIT
"""Errors of what importers are given: a flow whose parts are not as its library makes them, an argument of the wrong form."""
from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: What reading an object of another form than expected raises.
_MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError)


@contextmanager
def reading(what: str, library: str) -> Iterator[None]:
    """Raise a ValueError that names `what` of a flow was read, where something in it is not as the library makes it."""
    try:
        yield
    except _MISFITS as error:
        raise ValueError(f"{what}: something in it is not as {library} makes it ({type(error).__name__}: {error})") from error


def argument(name: str, value, form: str, convert: Callable):
    """convert(value). Raises a ValueError that says which form an argument must have, where it has another."""
    try:
        return convert(value)
    except (*_MISFITS, ValueError):
        raise ValueError(f"{name} must be {form}, got {value!r:.80}") from None


def count(value) -> int:
    """A whole number that is not negative, for :func:`argument`."""
    number = operator.index(value)
    if number < 0:
        raise ValueError
    return number
