"""Types of values: tensors, sequences and optionals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from graphc.ir.dims import Dim, DimLike, product, substitute, symbols_of
from graphc.ir.dtypes import DType, dtype_of

__all__ = ["OptionalType", "SequenceType", "TensorType", "Type", "fresh_renames", "substitute_type", "tensor"]

_INT = frozenset((int,))


@dataclass(frozen=True, slots=True)
class TensorType:
    """A dense tensor: element type and shape; each dimension is an int or symbolic (see graphc.ir.dims)."""

    dtype: DType
    shape: tuple[DimLike, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        """True when every dimension is an int."""
        return _INT.issuperset(map(type, self.shape)) or all(isinstance(d, int) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints; raises ValueError when a dimension is symbolic."""
        if not self.is_static:
            raise ValueError(f"{self} has symbolic dimensions")
        return self.shape  # type: ignore[return-value]

    @property
    def size(self) -> DimLike:
        """The number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of a dense copy; only for static shapes."""
        return int(product(self.static_shape)) * self.dtype.itemsize  # type: ignore[arg-type]

    def with_shape(self, shape: tuple[DimLike, ...]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class SequenceType:
    """A list of any length whose elements have one type (tensor dimensions in it may be symbolic)."""

    element: Type

    def __str__(self) -> str:
        return f"sequence<{self.element}>"


@dataclass(frozen=True, slots=True)
class OptionalType:
    """A value or nothing."""

    element: Type

    def __str__(self) -> str:
        return f"optional<{self.element}>"


Type: TypeAlias = TensorType | SequenceType | OptionalType


def tensor(dtype: object, *shape: DimLike) -> TensorType:
    """`tensor("float32", 2, 3)`: a TensorType from anything that names an element type."""
    return TensorType(dtype_of(dtype), tuple(shape))


def substitute_type(t: Type, values: Mapping[str, DimLike]) -> Type:
    """`t` with symbols in its dimensions replaced."""
    if isinstance(t, TensorType):
        return t if t.is_static else t.with_shape(tuple(substitute(d, values) for d in t.shape))
    return type(t)(substitute_type(t.element, values))


def type_symbols(t: Type) -> frozenset[str]:
    """The names of all symbols in the type's dimensions."""
    if isinstance(t, TensorType):
        return frozenset().union(*map(symbols_of, t.shape))
    return type_symbols(t.element)


def fresh_renames(
    recorded: Sequence[Type], inferred: Sequence[Type], operands: Iterable[Type]
) -> dict[str, DimLike] | None:
    """None when the types differ, else the renaming of symbols under which `recorded` is `inferred`; {} when equal.

    An operation whose result size only the run can tell gives a new symbol each time it is inferred. Only such
    symbols may differ: names that `fresh_symbol` made (they end in an underscore) and that no operand mentions.
    """
    if len(recorded) != len(inferred):
        return None
    if all(a == b for a, b in zip(recorded, inferred, strict=True)):
        return {}
    known = frozenset[str]().union(*map(type_symbols, operands))
    renames: dict[str, DimLike] = {}
    for a, b in zip(recorded, inferred, strict=True):
        _match(a, b, known, renames)
    same = all(substitute_type(a, renames) == b for a, b in zip(recorded, inferred, strict=True))
    return renames if same else None


def _match(recorded: Type, inferred: Type, known: frozenset[str], renames: dict[str, DimLike]) -> None:
    while not isinstance(recorded, TensorType) and type(recorded) is type(inferred):
        recorded, inferred = recorded.element, inferred.element
    if not isinstance(recorded, TensorType) or not isinstance(inferred, TensorType):
        return
    for a, b in zip(recorded.shape, inferred.shape, strict=False):
        for old, new in _symbol_pairs(a, b):
            if new not in known and old.endswith("_") and new.endswith("_"):
                renames[old] = _symbol(new, b)


def _symbol_pairs(a: DimLike, b: DimLike) -> Iterable[tuple[str, str]]:
    left, right = sorted(symbols_of(a) - symbols_of(b)), sorted(symbols_of(b) - symbols_of(a))
    return zip(left, right, strict=True) if len(left) == len(right) else ()


def _symbol(name: str, inside: DimLike) -> DimLike:
    return inside if isinstance(inside, Dim) and inside.name == name else Dim(name)
