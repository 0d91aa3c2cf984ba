"""Element types: constants, their limits, conversion and promotion; and what the namespace says about itself."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.frontends.python.array_api.operands import broadcast, check_device, operand, shape_of_result, to_dtype
from graphc.frontends.python.functions import Array, array_function, as_array
from graphc.frontends.python.promotion import DEFAULTS, is_number, kind_of
from graphc.frontends.python.promotion import result_dtype as common_dtype
from graphc.frontends.python.tensor import Tensor
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Value

__all__ = [
    "__array_namespace_info__", "astype", "bfloat16", "bool", "broadcast_arrays", "broadcast_to", "can_cast",
    "complex64", "complex128", "e", "finfo", "float16", "float32", "float64", "iinfo", "inf", "int8", "int16",
    "int32", "int64", "isdtype", "nan", "newaxis", "pi", "result_type", "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip

bool = np.dtype(np.bool_)
int8, int16, int32, int64 = map(np.dtype, ("int8", "int16", "int32", "int64"))
uint8, uint16, uint32, uint64 = map(np.dtype, ("uint8", "uint16", "uint32", "uint64"))
float16, float32, float64 = map(np.dtype, ("float16", "float32", "float64"))
bfloat16 = np.dtype(ml_dtypes.bfloat16)
complex64, complex128 = map(np.dtype, ("complex64", "complex128"))

e, pi, inf, nan = math.e, math.pi, math.inf, math.nan
newaxis = None

_KINDS: dict[str, tuple[np.dtype, ...]] = {
    "bool": (bool,),
    "signed integer": (int8, int16, int32, int64),
    "unsigned integer": (uint8, uint16, uint32, uint64),
    "real floating": (float16, bfloat16, float32, float64),
    "complex floating": (complex64, complex128),
}
_KINDS["integral"] = _KINDS["signed integer"] + _KINDS["unsigned integer"]
_KINDS["numeric"] = _KINDS["integral"] + _KINDS["real floating"] + _KINDS["complex floating"]


@array_function
def astype(x: Array, dtype: Any, /, *, copy: Any = True, device: Any = None) -> Array:
    """x in another element type. Floats are cut off towards zero, integers keep their low bits; complex numbers that
    become real ones lose the imaginary part. `copy` does not matter: arrays that are given back are never x itself."""
    check_device("astype", device)
    return to_dtype(operand("astype", x), dtype)


@array_function
def broadcast_to(x: Array, /, shape: Any) -> Array:
    """x repeated along axes of extent 1, and missing ones at the left, to the shape."""
    return ops.broadcast_to(operand("broadcast_to", x), shape=shape_of_result("broadcast_to", shape))


@array_function
def broadcast_arrays(*arrays: Array) -> list[Array]:
    """The arrays in their common shape."""
    return list(broadcast("broadcast_arrays", [operand("broadcast_arrays", x) for x in arrays]))


def _type_of(x: Any, name: str) -> Any:
    """The element type of an array or what names one; the class of a Python number."""
    if is_number(x):
        return type(x)
    if isinstance(x, Tensor | Value):
        return np.dtype(x.dtype.numpy) if isinstance(x, Value) else x.dtype
    if isinstance(x, np.dtype | type | str):
        return dtype_of(x).numpy
    return as_array(x, name).dtype


def can_cast(from_: Any, to: Any, /) -> Any:
    """Whether promotion leads from one element type (or an array's) to another."""
    source, target = _type_of(from_, "can_cast"), dtype_of(to).numpy
    try:
        return common_dtype(source, target) == target
    except GraphTypeError:
        return False


def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """The element type of arithmetic on these arrays, element types and Python numbers."""
    if not arrays_and_dtypes:
        raise ValueError("result_type: at least one array or element type is needed")
    return common_dtype(*(_type_of(x, "result_type") for x in arrays_and_dtypes))


def isdtype(dtype: Any, kind: Any) -> Any:
    """Whether an element type is another one, or of a kind: "bool", "signed integer", "unsigned integer", "integral",
    "real floating", "complex floating", "numeric"; or of any in a tuple of these."""
    given = dtype_of(dtype).numpy
    if isinstance(kind, tuple):
        return any(isdtype(given, k) for k in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return given in _KINDS[kind]
    if isinstance(kind, str):
        raise ValueError(f"isdtype: the kind is {kind!r}; known are {', '.join(_KINDS)}")
    return given == dtype_of(kind).numpy


class FloatInfo(NamedTuple):
    """The limits of a floating point type."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: np.dtype


class IntegerInfo(NamedTuple):
    """The limits of an integer type."""

    bits: int
    max: int
    min: int
    dtype: np.dtype


def finfo(type: Any, /) -> FloatInfo:  # noqa: A002
    """The limits of a floating point type (or an array's); of the parts, for a complex one."""
    found = _type_of(type, "finfo")
    if kind_of(found) not in ("float", "complex"):
        raise GraphTypeError(f"finfo was given {found}; a floating point type is needed, iinfo tells of integers")
    part = np.dtype(f"float{found.itemsize * 4}") if found.kind == "c" else found
    info = ml_dtypes.finfo(part)
    numbers = (float(info.eps), float(info.max), float(info.min), float(info.smallest_normal))
    return FloatInfo(part.itemsize * 8, *numbers, part)


def iinfo(type: Any, /) -> IntegerInfo:  # noqa: A002
    """The limits of an integer type (or an array's)."""
    found = _type_of(type, "iinfo")
    if kind_of(found) != "int":
        raise GraphTypeError(f"iinfo was given {found}; an integer type is needed, finfo tells of floats")
    info = np.iinfo(found)
    return IntegerInfo(info.bits, int(info.max), int(info.min), found)


class NamespaceInfo:
    """What the standard's inspection functions tell about graphc as a namespace."""

    def capabilities(self) -> dict[str, Any]:
        """Masks known while tracing may index; sizes that data decides are possible; 64 axes at most (NumPy's)."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        """Arrays are made on the CPU."""
        return "cpu"

    def default_dtypes(self, *, device: Any = None) -> dict[str, np.dtype]:
        """Element types where nothing else says one."""
        check_device("default_dtypes", device)
        return {
            "real floating": DEFAULTS["float"],
            "complex floating": DEFAULTS["complex"],
            "integral": DEFAULTS["int"],
            "indexing": int64,
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, np.dtype]:
        """The standard's element types by name, all or those of a kind (see `isdtype`)."""
        check_device("dtypes", device)
        found = {d.name: d for d in (*_KINDS["bool"], *_KINDS["numeric"]) if d not in (float16, bfloat16)}
        return found if kind is None else {name: d for name, d in found.items() if isdtype(d, kind)}

    def devices(self) -> list[str]:
        """Where arrays can be made."""
        return ["cpu"]


def __array_namespace_info__() -> NamespaceInfo:  # noqa: N807
    """The standard's inspection functions."""
    return NamespaceInfo()
