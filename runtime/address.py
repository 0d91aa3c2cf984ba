"""Where an array's elements lie, said quickly: small models run in a few microseconds, and NumPy's own ways to say it take
one each."""

from __future__ import annotations

import ctypes
import sys
from typing import cast

import numpy as np

__all__ = ["address_of"]

#: the first field of an array object, which is part of NumPy's ABI (PyArrayObject_fields in ndarraytypes.h)
_DATA = object.__basicsize__
_word = ctypes.c_size_t.from_address


def _by_layout(array: np.ndarray) -> int:
    return _word(id(array) + _DATA).value


def _by_interface(array: np.ndarray) -> int:
    return cast(int, array.__array_interface__["data"][0])


def _is_laid_out_so() -> bool:
    """Whether this interpreter's arrays are: a whole one, a part of it, and an empty one."""
    whole = np.zeros((3, 4), np.int16)
    return all(_by_layout(a) == _by_interface(a) for a in (whole, whole[1:, ::-2], np.empty((0, 2))))


#: the address of an array's first element
address_of = _by_layout if sys.implementation.name == "cpython" and _is_laid_out_so() else _by_interface
