"""Relations between types that control flow and sequences need: what fits, and what two types have in common."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.errors import GraphTypeError
from graphc.ir.dims import DimLike, fresh_symbol, symbols_of
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type, type_symbols

__all__ = ["fits", "join", "outside"]


def fits(special: Type, general: Type) -> bool:
    """Whether a value of type `special` may stand where `general` is declared: symbols in `general` take any extent."""
    while not isinstance(general, TensorType):
        if isinstance(general, OptionalType) and not isinstance(special, OptionalType):
            general = general.element  # a value is an optional that is there
            continue
        if type(special) is not type(general):
            return False
        special, general = special.element, general.element
    return (
        isinstance(special, TensorType)
        and special.dtype == general.dtype
        and special.rank == general.rank
        and all(a == b or not isinstance(b, int) for a, b in zip(special.shape, general.shape, strict=True))
    )


def join(a: Type, b: Type, what: str) -> Type:
    """The most special type that both fit: extents in which they differ become new symbols.

    Raises GraphTypeError, naming `what`, when they differ in more than extents.
    """
    if a == b:
        return a
    if isinstance(a, TensorType) and isinstance(b, TensorType) and a.dtype == b.dtype and a.rank == b.rank:
        return a.with_shape(tuple(m if m == n else fresh_symbol() for m, n in zip(a.shape, b.shape, strict=True)))
    if isinstance(a, OptionalType) or isinstance(b, OptionalType):
        inner_a = a.element if isinstance(a, OptionalType) else a
        inner_b = b.element if isinstance(b, OptionalType) else b
        return OptionalType(join(inner_a, inner_b, what))
    if isinstance(a, SequenceType) and isinstance(b, SequenceType):
        return SequenceType(join(a.element, b.element, what))
    raise GraphTypeError(f"{what}: {a} and {b} have no type in common")


def outside(t: Type, operands: Iterable[Type]) -> Type:
    """A body's result type as it is seen outside: symbols that no operand mentions are the body's, and become new."""
    known = frozenset[str]().union(*map(type_symbols, operands))

    def visible(d: DimLike) -> DimLike:
        return d if symbols_of(d) <= known else fresh_symbol()

    if isinstance(t, TensorType):
        return t if t.is_static else t.with_shape(tuple(map(visible, t.shape)))
    return type(t)(outside(t.element, operands))
