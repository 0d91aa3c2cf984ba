"""Kernel IR: how a piece of the graph is computed, as data. The second of the three levels.

A compiled model is a list of `Launch`es. A launch names a *kernel* (hashable data from which one Numba function is
generated; equal kernels are compiled once) and gives it operands and integers. Kernels never hold sizes: those are
launch integers, so that layers and models of different shapes share compiled code.

Every kernel of every kind has one native signature,

    kernel(block, first, last, scratch)

`block` points to the launch's argument block, 64-bit slots: the addresses of the operands, then the integers.
`first` and `last` say which tasks of the launch to do, and `scratch` is the calling thread's own memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from graphc.ir.dtypes import DType
from graphc.ir.scalar import Scalar

__all__ = ["Kernel", "Launch", "LoopNest", "Map", "Operand", "Reduce", "Store"]


@runtime_checkable
class Kernel(Protocol):
    """Anything that the code generators know how to print; frozen, hashable, free of sizes."""

    @property
    def family(self) -> str:
        """The kernel's family in names, listings and profiles: "map", "row", "contraction", "sort", ..."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class Store:
    """`buffer[offset] = value`, for every point of the enclosing loops."""

    buffer: int
    offset: Scalar
    value: Scalar


@dataclass(frozen=True)
class Map:
    """Loops over `extents` inside the outer loops; their counters follow the outer ones. No extents: once an outer point."""

    extents: tuple[Scalar, ...]  # consts while lowering, params in a finished kernel
    stores: tuple[Store, ...]


@dataclass(frozen=True)
class Reduce:
    """Loops over `extents` that combine `value` into temp `result`, starting at the combine's identity.

    `combine` is one of add, mul, maximum, minimum, and, or; `result` is readable by later stages as `temp(result)`.
    `stores` are done at every point too: what later stages need again is kept instead of computed twice.
    """

    result: int
    combine: str
    extents: tuple[Scalar, ...]
    value: Scalar
    stores: tuple[Store, ...] = ()


Stage: TypeAlias = Map | Reduce


@dataclass(frozen=True)
class LoopNest:
    """Parallel outer loops around a sequence of stages: elementwise maps, reductions, softmax-like row programs.

    `buffers` gives the element type of each buffer operand (inputs first, then outputs), `outputs` how many of the
    last ones are written. `params` counts the integers that `param(k)` reads. `aliased` are pairs (input, output)
    that may be the same memory, read and written at the same offset only; of those, `in_place` are the ones of one
    address and element type.
    """

    buffers: tuple[DType, ...]
    outputs: int
    extents: tuple[Scalar, ...]
    stages: tuple[Stage, ...]
    params: int = 0
    aliased: frozenset[tuple[int, int]] = frozenset()
    in_place: frozenset[tuple[int, int]] = frozenset()

    @property
    def family(self) -> str:
        return "map" if all(isinstance(s, Map) for s in self.stages) else "row"


@dataclass(frozen=True)
class Operand:
    """Memory that a launch reads or writes: a buffer of the program and where in it the operand begins.

    `nbytes` is how much of it there is, for profiles; 0 where a slot is filled and nothing read. It is no part of
    which memory this is.
    """

    buffer: int
    byte_offset: int = 0
    nbytes: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Launch:
    """One kernel run: the operands' addresses and then `integers` make its argument block; `tasks` can run in parallel.

    `outputs` counts the operands at the end of `operands` that are written. `nodes` says, for people, which
    operations it computes and where they came from. `work` is a rough count of scalar operations, for deciding
    when to use threads.
    """

    kernel: Kernel
    operands: tuple[Operand, ...]
    outputs: int
    integers: tuple[int, ...]
    tasks: int = 1
    scratch_bytes: int = 0
    nodes: tuple[str, ...] = ()
    work: int = 0
