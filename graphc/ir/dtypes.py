"""Element types: every type that ONNX names, each tied to the NumPy dtype that holds it.

Those that NumPy lacks come from ml_dtypes, which is imported when one of them is first asked for: a process that runs a
stored model in float32 does without.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from graphc.errors import GraphTypeError

__all__ = ["DType", "dtype_of"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    `kind` is one of "float", "int", "uint", "bool", "complex", "string"; `bits` counts the bits of the *value*
    (4 for int4), while `itemsize` counts the bytes an element takes in memory (1 for int4: small types are
    stored unpacked, as ml_dtypes does).
    """

    name: str
    kind: str
    bits: int
    numpy: np.dtype

    @property
    def itemsize(self) -> int:
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def is_numeric(self) -> bool:
        return self.kind in ("float", "int", "uint", "complex")

    @property
    def computed_in(self) -> DType:
        """The type in which arithmetic on this one is done, and sums are kept: float32 for narrower floats."""
        return dtype_of("float32") if self.kind == "float" and self.bits < 32 else self

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


def _native() -> dict[str, DType]:
    rows: list[tuple[str, str, int, object]] = [
        ("bool", "bool", 1, np.bool_),
        ("string", "string", 0, np.object_),
        ("complex64", "complex", 64, np.complex64),
        ("complex128", "complex", 128, np.complex128),
    ]
    for bits in (8, 16, 32, 64):
        rows += [(f"int{bits}", "int", bits, f"int{bits}"), (f"uint{bits}", "uint", bits, f"uint{bits}")]
    rows += [(f"float{bits}", "float", bits, f"float{bits}") for bits in (16, 32, 64)]
    return _rows(rows)


def _rows(rows: list[tuple[str, str, int, object]]) -> dict[str, DType]:
    return {name: DType(name, kind, bits, np.dtype(scalar)) for name, kind, bits, scalar in rows}  # type: ignore[call-overload]


_BY_NAME = _native()
_BY_NUMPY = {d.numpy: d for d in _BY_NAME.values()}


@functools.cache
def _add_ml_dtypes() -> None:
    """Enter the types that NumPy lacks into the tables."""
    import ml_dtypes

    kinds = [
        ("bfloat16", "float", 16),
        ("float8_e4m3fn", "float", 8),
        ("float8_e4m3fnuz", "float", 8),
        ("float8_e5m2", "float", 8),
        ("float8_e5m2fnuz", "float", 8),
        ("float8_e8m0fnu", "float", 8),
        ("float4_e2m1fn", "float", 4),
        ("int4", "int", 4),
        ("uint4", "uint", 4),
        ("int2", "int", 2),
        ("uint2", "uint", 2),
    ]
    added = _rows([(name, kind, bits, getattr(ml_dtypes, name)) for name, kind, bits in kinds])
    _BY_NAME.update(added)
    _BY_NUMPY.update((d.numpy, d) for d in added.values())


def dtype_of(what: object) -> DType:
    """The DType for a name ("float32"), a DType, a NumPy dtype or scalar type, or an array.

    Raises GraphTypeError when there is none.
    """
    if isinstance(what, DType):
        return what
    if isinstance(what, str):
        if what not in _BY_NAME:
            _add_ml_dtypes()
        if what in _BY_NAME:
            return _BY_NAME[what]
    if isinstance(what, np.ndarray | np.generic):
        what = what.dtype
    try:
        numpy = np.dtype(what)  # type: ignore[call-overload]
    except TypeError:
        numpy = None
    if numpy is not None and numpy.kind in "US":
        return _BY_NAME["string"]
    if numpy not in _BY_NUMPY:
        _add_ml_dtypes()
    if numpy not in _BY_NUMPY:
        raise GraphTypeError(f"no element type {what!r}; known are {', '.join(_BY_NAME)}")
    return _BY_NUMPY[numpy]


def __getattr__(name: str) -> DType:
    # dtypes.float32 and so on: the table is the one place that lists them
    if name.startswith("__"):  # Python asks a module for some
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _add_ml_dtypes()
    try:
        return _BY_NAME[name.removesuffix("_")]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
