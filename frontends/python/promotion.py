"""Which element type arithmetic on several types gives.

Arrays of one kind go by NumPy's and the array API's table; where that leaves it open, by JAX's and PyTorch's: integers
and bools take the floating point type that they meet, float16 and bfloat16 meet in float32. A Python number takes the
type of the array that it meets if that is of its kind or a wider one; among themselves floats are float32, integers
int64, complex numbers complex64.
"""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np

from graphc.errors import GraphTypeError

__all__ = ["DEFAULTS", "KINDS", "WIDEST", "is_number", "kind_of", "result_dtype"]

#: element types of Python numbers that meet no array, by kind
DEFAULTS = {
    "bool": np.dtype(np.bool_),
    "int": np.dtype(np.int64),
    "float": np.dtype(np.float32),
    "complex": np.dtype(np.complex64),
}
#: in what Python computes with its numbers
WIDEST = {
    "bool": np.dtype(np.bool_),
    "int": np.dtype(np.int64),
    "float": np.dtype(np.float64),
    "complex": np.dtype(np.complex128),
}
#: kinds from narrow to wide
KINDS = ("bool", "int", "float", "complex")
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def is_number(x: object) -> bool:
    """Whether this is a Python number, which has no element type of its own (NumPy's scalars have one)."""
    return type(x) in (bool, int, float, complex)


@functools.cache
def kind_of(dtype: np.dtype) -> str:
    """ "bool", "int" (signed or not), "float" or "complex"; "other" for strings."""
    if dtype == np.bool_:
        return "bool"
    if dtype.kind in "iu" or dtype.name in ("int4", "uint4", "int2", "uint2"):
        return "int"
    if dtype.kind == "c":
        return "complex"
    if dtype.kind == "f" or dtype.name.startswith(("bfloat", "float")):
        return "float"
    return "other"


def result_dtype(*types: np.dtype | type, what: str = "result_type") -> np.dtype:
    """The common element type of array types (np.dtype) and of Python numbers (`bool`, `int`, `float`, `complex`)."""
    arrays = [t for t in types if isinstance(t, np.dtype)]
    numbers = [t for t in types if not isinstance(t, np.dtype)]
    result: np.dtype | None = None
    for t in arrays:
        result = t if result is None else _common(result, t, what)
    for number in sorted(numbers, key=lambda n: KINDS.index(n.__name__)):
        kind = number.__name__
        if result is None or (kind_of(result) != "other" and KINDS.index(kind) > KINDS.index(kind_of(result))):
            double = result is not None and result == np.float64
            result = np.dtype(np.complex128) if kind == "complex" and double else DEFAULTS[kind]
    assert result is not None, "there is nothing to promote"
    return result


def _common(a: np.dtype, b: np.dtype, what: str) -> np.dtype:
    if a == b:
        return a
    kinds = kind_of(a), kind_of(b)
    if "other" in kinds:
        raise GraphTypeError(f"{what}: {a} and {b} have no common element type")
    if kinds[0] != kinds[1]:
        narrow, wide = sorted((a, b), key=lambda t: KINDS.index(kind_of(t)))
        if kind_of(wide) == "complex" and kind_of(narrow) == "float":
            return np.dtype(np.result_type(narrow, wide))
        return wide
    if kinds[0] == "float" and _BFLOAT16 in (a, b):
        other = b if a == _BFLOAT16 else a
        return np.dtype(np.float32) if other.itemsize <= 2 else other
    if kinds[0] == "int" and np.dtype(np.uint64) in (a, b) and "i" in (a.kind, b.kind):
        raise GraphTypeError(f"{what}: {a} and {b} have no common integer type; cast one of them with astype")
    try:
        return np.dtype(np.result_type(a, b))
    except TypeError:
        raise GraphTypeError(f"{what}: {a} and {b} have no common element type; cast one with astype") from None
