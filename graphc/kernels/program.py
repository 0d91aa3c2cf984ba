"""The program: a compiled graph as buffers and a flat list of instructions, memory not yet placed.

`graphc.kernels.build` makes it from a graph, the arena planner gives its buffers offsets, and the runtime turns it
into the table that the native driver walks. Control flow is jumps.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import numpy as np

from graphc.ir.dtypes import DType
from graphc.kernels.ir import Launch, Operand
from graphc.ops.spec import Layout

__all__ = [
    "Branch",
    "Buffer",
    "Count",
    "Exhausted",
    "Instruction",
    "Jump",
    "Label",
    "Place",
    "Placed",
    "Program",
    "Rebind",
    "operands_of",
]


class Place(Enum):
    """Whose memory a buffer is."""

    ARENA = "arena"  # planned: shares memory with buffers of other lifetimes
    INPUT = "input"  # the caller's array
    OUTPUT = "output"  # an array made for the caller at each run
    CONSTANT = "constant"  # weights and tables, owned by the program


@dataclass
class Buffer:
    """A piece of memory with one owner. `number` counts inputs or outputs of the graph; `array` holds a constant."""

    nbytes: int
    place: Place
    number: int = -1
    array: np.ndarray | None = None


@dataclass(frozen=True)
class Placed:
    """A value in memory: element type, buffer, and layout in it (counted in elements)."""

    buffer: int
    dtype: DType
    layout: Layout

    @property
    def operand(self) -> Operand:
        steps = zip(self.shape, self.strides, strict=True)
        elements = math.prod(n for n, stride in steps if stride != 0 or n == 0)  # what is repeated is there once
        return Operand(self.buffer, self.layout.offset * self.dtype.itemsize, elements * self.dtype.itemsize)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    @property
    def strides(self) -> tuple[int, ...]:
        return self.layout.strides


@dataclass(frozen=True)
class Label:
    """A place to jump to."""

    name: int


@dataclass(frozen=True)
class Jump:
    """Continue at `target`."""

    target: int


@dataclass(frozen=True)
class Branch:
    """Continue at `target` unless the bool at `condition` is true."""

    condition: Operand
    target: int


@dataclass(frozen=True)
class Count:
    """Loop counting on the int64 at `counter`: reset it to zero, or add one."""

    counter: Operand
    reset: bool


@dataclass(frozen=True)
class Exhausted:
    """Continue at `target` when the int64 at `counter` has reached the one at `limit`."""

    counter: Operand
    limit: Operand
    target: int


@dataclass(frozen=True)
class Rebind:
    """From now on the launch at instruction `launch` finds its operand `operand` at `base + counter * stride` bytes."""

    launch: int
    operand: int
    base: Operand
    counter: Operand
    stride: int


Instruction: TypeAlias = Launch | Label | Jump | Branch | Count | Exhausted | Rebind


@dataclass
class Program:
    """Buffers and instructions; `loops` are the ranges (first, last) of instructions that repeat.

    `updates` are pairs (input buffer, output buffer) where each element of the output is computed from the element of
    the input at its place, so that the two may be one array.
    """

    buffers: list[Buffer] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)
    updates: set[tuple[int, int]] = field(default_factory=set)

    @property
    def launches(self) -> list[Launch]:
        return [i for i in self.instructions if isinstance(i, Launch)]

    def may_share(self, input_number: int, output_number: int) -> bool:
        """Whether an output may be written into an input's memory: nothing reads the input afterwards."""
        spans = self.lifetimes((Place.INPUT, Place.OUTPUT))
        numbers = {(b.place, b.number): k for k, b in enumerate(self.buffers)}
        source = numbers.get((Place.INPUT, input_number), -1)
        target = numbers.get((Place.OUTPUT, output_number), -1)
        if source not in spans or target not in spans:
            return target in spans
        last_read, first_write = spans[source][1], spans[target][0]
        return last_read < first_write or (last_read == first_write and (source, target) in self.updates)

    def lifetimes(self, places: Collection[Place] = (Place.ARENA,)) -> dict[int, tuple[int, int]]:
        """First and last instruction that touches each buffer of these places.

        What enters a loop lives to its end, and what leaves it lives from its beginning. The caller's arrays are there
        all the time: what touches them in one turn does so in every turn."""
        spans: dict[int, list[int]] = {}

        def touch(buffer: int, at: int) -> None:
            if self.buffers[buffer].place in places:
                spans.setdefault(buffer, []).append(at)

        for at, instruction in enumerate(self.instructions):
            for operand in operands_of(instruction):
                touch(operand.buffer, at)
        result = {b: (min(at), max(at)) for b, at in spans.items()}
        for first, last in sorted(self.loops, key=lambda r: r[1] - r[0]):
            for b, (start, end) in result.items():
                if start < first <= end:  # read in every turn
                    result[b] = (start, max(end, last))
                elif start <= last < end:  # filled turn by turn
                    result[b] = (first, end)
                elif first <= start and end <= last and self.buffers[b].place is not Place.ARENA:
                    result[b] = (first, last)
        return result


def operands_of(instruction: Instruction) -> tuple[Operand, ...]:
    """The memory that an instruction reads or writes."""
    match instruction:
        case Launch(operands=operands):
            return operands
        case Branch(condition=condition):
            return (condition,)
        case Count(counter=counter):
            return (counter,)
        case Exhausted(counter=counter, limit=limit):
            return (counter, limit)
        case Rebind(base=base, counter=counter):
            return (base, counter)
    return ()
