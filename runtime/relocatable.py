"""A launch plan without addresses, which can be kept on disk, and the same plan placed in memory, which runs.

Where an address belongs, a relocatable plan has a *place*: the number of a region of memory and an offset in it, in one
int64. Regions are the arena, the argument blocks, and the constants; where they lie is known once they are made, and
`Placed` adds it to every place at once. Kernels are numbered. Arguments of the caller are filled in by each run.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from graphc.errors import GraphcError
from graphc.runtime.address import address_of
from graphc.runtime.cache import aligned_empty
from graphc.runtime.plan import ADDRESSES, Op, Plan
from graphc.runtime.threads import run

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ARENA", "BLOCKS", "CONSTANTS", "PlacedPlan", "Ports", "RelocatablePlan", "Sites", "place"]

#: regions; from CONSTANTS on each is one constant
ARENA, BLOCKS, CONSTANTS = 1, 2, 3

_SHIFT = 44  # a place: region << 44 | offset + half of what 44 bits hold (an offset may be negative)
_HALF = 1 << (_SHIFT - 1)

#: element type and shape of each argument or result
Ports: TypeAlias = tuple[tuple[np.dtype, tuple[int, ...]], ...]
#: for each argument or result: the words of the blocks that hold its address, and the offsets to add to it
Sites: TypeAlias = "tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]"


def place(region: int, offset: int) -> int:
    """The place `offset` bytes into a region. Raises GraphcError when it is further than a place can say."""
    if not -_HALF <= offset < _HALF or not 0 < region < 1 << (63 - _SHIFT):
        raise GraphcError(f"byte {offset} of region {region} is out of reach of a launch plan")
    return region << _SHIFT | (offset + _HALF)


class RelocatablePlan(NamedTuple):
    """A launch plan whose addresses are places.

    rows           the plan's rows (see `plan.py`); word 1 of a launch is 1 + the number of its kernel
    blocks         the argument blocks, one after the other, as words
    slots          which words of `blocks` hold places
    inputs         element type and shape of each argument, and of each result in `outputs`
    input_sites    words of `blocks` that hold the argument's address, and of each result in `output_sites`
    arena          bytes of the arena
    scratch        bytes of private memory that each thread needs
    is_parallel    whether any launch has several tasks: if not, no other thread is woken
    """

    rows: NDArray[np.int64]
    blocks: NDArray[np.int64]
    slots: NDArray[np.int64]
    inputs: Ports
    outputs: Ports
    input_sites: Sites
    output_sites: Sites
    arena: int
    scratch: int
    is_parallel: bool


class PlacedPlan:
    """A plan in memory, with kernels and constants. Runs take turns: the arena is one.

    Args:
        plan: what to run.
        kernels: addresses of the kernels, by number.
        constants: addresses of the constants, by number.
        keep: objects that own what those addresses point to.
        threads: threads that a run may use.
    """

    def __init__(
        self, plan: RelocatablePlan, kernels: Sequence[int], constants: Sequence[int], keep: object, threads: int
    ) -> None:
        self._inputs, self._outputs = plan.inputs, plan.outputs
        # as Python numbers and through a memoryview: a call writes few words, and arrays would take ten times as long
        self._input_sites, self._output_sites = map(_pairs, (plan.input_sites, plan.output_sites))
        self._keep = keep
        self._arena = aligned_empty(plan.arena)
        self._words = aligned_empty(8 * max(1, len(plan.blocks))).view(np.int64)
        self._words[: len(plan.blocks)] = plan.blocks
        bases = np.array([0, self._arena.ctypes.data, self._words.ctypes.data, *constants], np.int64)
        self._words[plan.slots] = _resolved(plan.blocks[plan.slots], bases)
        self._kernels, self._bases = np.array(kernels, np.int64), bases
        self.plan = Plan(_placed_rows(plan.rows, self._kernels, bases), plan.scratch)
        self._threads = threads if plan.is_parallel else 1
        self._lock = threading.Lock()
        self._slots = self._words.data

    def walk(self, plan: Plan) -> None:
        """Walk these rows from now on, which name the same kernels, blocks and constants."""
        with self._lock:
            rows = _placed_rows(plan.rows, self._kernels, self._bases)
            self.plan = Plan(rows, plan.scratch_bytes, plan.keep)

    def run(self, arguments: Sequence[np.ndarray], donated: Mapping[int, int] | None = None) -> list[np.ndarray]:
        """The outputs, new arrays, for inputs of exactly the plan's types.

        `donated` says for outputs which input's array they may be written into; they must be able to share it
        (`Program.may_share`). An array that is not laid out as the program needs it is left alone.
        """
        keep = []
        results = [_result(shape, dtype) for dtype, shape in self._outputs]
        if donated:
            for output, number in donated.items():
                array = arguments[number]
                if array.flags.carray and array.dtype == self._inputs[number][0]:
                    results[output] = array
        with self._lock:
            slots = self._slots
            for sites, array, (dtype, shape) in zip(self._input_sites, arguments, self._inputs, strict=True):
                if array.shape != shape:
                    raise GraphcError(f"native code for an input of shape {shape} was given {array.shape}")
                if sites:
                    if not array.flags.carray and not (array.flags.c_contiguous and array.flags.aligned):
                        array = np.ascontiguousarray(array)
                        keep.append(array)
                    if array.dtype is not dtype and array.dtype != dtype:
                        array = np.ascontiguousarray(array, dtype)
                        keep.append(array)
                    address = address_of(array)
                    for at, offset in sites:
                        slots[at] = address + offset
            for sites, array in zip(self._output_sites, results, strict=True):
                address = address_of(array)
                for at, offset in sites:
                    slots[at] = address + offset
            run(self.plan, self._threads)
        return results


#: bytes from which a result begins at a cache line: one that does not has every vector written to two
LARGE = 128 << 10


def _result(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return (np.empty if math.prod(shape) * dtype.itemsize < LARGE else aligned_empty)(shape, dtype)


def _pairs(sites: Sites) -> list[list[tuple[int, int]]]:
    return [list(zip(at.tolist(), offsets.tolist(), strict=True)) for at, offsets in sites]


def _placed_rows(rows: NDArray[np.int64], kernels: NDArray[np.int64], bases: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows with addresses. Raises IndexError for a kernel or a region that there is not."""
    placed = rows.copy()
    for op, columns in ADDRESSES.items():
        at = np.flatnonzero(rows[:, 0] == op)
        if len(at):
            for column in columns:
                placed[at, column] = _resolved(rows[at, column], bases)
            if op == Op.LAUNCH:
                placed[at, 1] = kernels[rows[at, 1] - 1]
    return placed


def _resolved(places: NDArray[np.int64], bases: NDArray[np.int64]) -> NDArray[np.int64]:
    """Addresses of places, for the address of each region."""
    return bases[places >> _SHIFT] + (places & ((1 << _SHIFT) - 1)) - _HALF
