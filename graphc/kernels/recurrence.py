"""Recurrent layers as data: what one kernel does in each step of a layer, and how the work is cut into tasks.

A step is a few *sweeps* over the hidden units. A sweep multiplies the state (or what an earlier sweep made of it) with
packed weights, a panel of hidden units at a time, and does the gates' arithmetic while their sums are at hand. The
arithmetic is scalar expressions over vectors of hidden units; `load(k)` in them is entry k of the sweep's `reads`.

The state that the products multiply alternates between two places, the one that holds the result and a workspace, so
that nothing is copied from step to step. The other states are read where they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from graphc.ir import scalar as s
from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import DType
from graphc.ir.scalar import Scalar
from graphc.kernels.contraction import ContractionVariant
from graphc.kernels.machine import Machine
from graphc.ops.recurrent import SIGMOID, TANH, Activation, activation_scalar

__all__ = ["Cell", "Read", "RecurrenceKernel", "Sweep", "Tasks", "Write", "cell_of", "deal"]


@dataclass(frozen=True, slots=True)
class Read:
    """A vector that a sweep's arithmetic reads, all at the same hidden units.

    what    "sum": of the product, for gate `number`; "x": the projected input of gate `number`; "state": the state
            `number` before the step; "work": workspace `number`; "vector": part `number` of the layer's vector
    """

    what: Literal["sum", "x", "state", "work", "vector"]
    number: int


@dataclass(frozen=True, slots=True)
class Write:
    """`value` becomes state `number` after the step, or goes into workspace `number`."""

    what: Literal["state", "work"]
    number: int
    value: Scalar


@dataclass(frozen=True, slots=True)
class Sweep:
    """A product for all hidden units and what is done with its sums. It multiplies state 0, or workspace 0, with the
    weights of `gates` gates from number `first` on."""

    first: int
    gates: int
    of_state: bool
    reads: tuple[Read, ...]
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A layer's step: sweeps one after the other; `works` workspaces of [batch, hidden] connect them."""

    sweeps: tuple[Sweep, ...]
    states: int
    works: int
    vector: bool


@dataclass(frozen=True, slots=True)
class RecurrenceKernel:
    """A recurrence kernel: the cell, the micro-kernel of each sweep, how many layers stand side by side.

    `inputs` says that it projects the inputs too, `lengths` that sequences may be shorter than the others. Sizes are
    integers of the launch.
    """

    cell: Cell
    variants: tuple[ContractionVariant, ...]
    layers: int
    inputs: bool
    lengths: bool

    @property
    def family(self) -> str:
        return "recurrence"


# ------------------------------------------------------------------------------------------------------------- cells


@dataclass
class _Writing:
    """A sweep being written: expressions that read something enter it."""

    dtype: DType
    reads: list[Read] = field(default_factory=list)

    def read(self, what: Any, number: int) -> Scalar:
        entry = Read(what, number)
        if entry not in self.reads:
            self.reads.append(entry)
        return s.load(self.reads.index(entry), 0, self.dtype)

    def gate(self, number: int, product: int | None = None) -> Scalar:
        """What a gate is given: its projected input and its sum (`product` numbers that, if otherwise)."""
        return self.read("x", number) + self.read("sum", number if product is None else product)


def cell_of(name: str, dtype: DType, **attrs: Any) -> Cell:
    """The step of the layers lstm, gru and rnn (see graphc.ops.recurrent), with their attributes."""
    return _CELLS[name](dtype, attrs)


def _activate(how: Activation, x: Scalar, clip: float) -> Scalar:
    if clip > 0:
        x = s.scalar("minimum", s.scalar("maximum", x, -clip), clip)
    return _activation(how, x)


def _activation(how: Activation, x: Scalar) -> Scalar:
    """An activation. A gate's sum is not exact to its last digit, so neither need be its sigmoid and hyperbolic tangent."""
    return s.scalar(f"gate_{how[0]}", x) if how[0] in ("sigmoid", "tanh") else activation_scalar(how, x)


def _lstm(dtype: DType, attrs: Mapping[str, Any]) -> Cell:
    f_gate, f_cell, f_out = attrs.get("activations", (SIGMOID, TANH, TANH))
    clip, peephole = attrs.get("clip", 0.0), attrs.get("peephole", False)
    w = _Writing(dtype)
    c = w.read("state", 1)

    def gate(number: int, part: int, state: Scalar) -> Scalar:
        x = w.gate(number)
        return _activate(f_gate, x + w.read("vector", part) * state if peephole else x, clip)

    i = gate(0, 0, c)
    f = 1 - i if attrs.get("input_forget", False) else gate(2, 2, c)
    new_c = f * c + i * _activate(f_cell, w.gate(3), clip)
    h = gate(1, 1, new_c) * _activation(f_out, new_c)
    sweep = Sweep(0, 4, True, tuple(w.reads), (Write("state", 0, h), Write("state", 1, new_c)))
    return Cell((sweep,), 2, 0, peephole)


def _gru(dtype: DType, attrs: Mapping[str, Any]) -> Cell:
    f_gate, f_new = attrs.get("activations", (SIGMOID, TANH))
    clip = attrs.get("clip", 0.0)
    if attrs.get("linear_before_reset", False):
        w = _Writing(dtype)
        update, reset = (_activate(f_gate, w.gate(k), clip) for k in (0, 1))
        new = _activate(f_new, w.read("x", 2) + reset * (w.read("sum", 2) + w.read("vector", 0)), clip)
        h = (1 - update) * new + update * w.read("state", 0)
        return Cell((Sweep(0, 3, True, tuple(w.reads), (Write("state", 0, h),)),), 1, 0, True)
    # the product of the new state multiplies what the reset gate leaves of all hidden units
    w = _Writing(dtype)
    update, reset = (_activate(f_gate, w.gate(k), clip) for k in (0, 1))
    left = Write("work", 0, reset * w.read("state", 0))
    first = Sweep(0, 2, True, tuple(w.reads), (left, Write("work", 1, update)))
    w = _Writing(dtype)
    update, new = w.read("work", 1), _activate(f_new, w.gate(2, 0), clip)
    h = (1 - update) * new + update * w.read("state", 0)
    return Cell((first, Sweep(2, 1, False, tuple(w.reads), (Write("state", 0, h),))), 1, 2, False)


def _rnn(dtype: DType, attrs: Mapping[str, Any]) -> Cell:
    (how,) = attrs.get("activations", (TANH,))
    w = _Writing(dtype)
    h = _activate(how, w.gate(0), attrs.get("clip", 0.0))
    return Cell((Sweep(0, 1, True, tuple(w.reads), (Write("state", 0, h),)),), 1, 0, False)


_CELLS: Mapping[str, Callable[[DType, Mapping[str, Any]], Cell]] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


# ------------------------------------------------------------------------------------------------------------- tasks


@dataclass(frozen=True, slots=True)
class Tasks:
    """How a step's work is cut. Rows (sequences) do not need each other: a task walks all steps of its rows. Columns
    (hidden units) need all of the step before, so that every sweep of every step is a launch of its own."""

    rows_per_task: int
    row_tasks: int
    columns_per_task: int
    column_tasks: int


#: cycles from one launch of several tasks to the next
TURN = 2500
#: bytes a cycle that a core reads from beyond its L2
FAR_BYTES = 16


def deal(
    cell: Cell, layers: int, batch: int, hidden: int, inputs: int, widths: tuple[int, ...], rows: int, itemsize: int,
    machine: Machine, threads: int,
) -> Tasks:  # fmt: skip
    """The cut with the least estimated time of a step; `widths` are the hidden units of a panel of each sweep,
    `inputs` the inputs of a row that the kernel projects."""
    lanes = machine.isa.lanes(itemsize)
    width = max(widths)
    whole = ceil_div(hidden, width)

    def cycles(row_cuts: int, column_cuts: int) -> tuple[float, Tasks]:
        per_row = ceil_div(batch, row_cuts * rows) * rows
        per_column = ceil_div(whole, column_cuts) * width
        tasks = Tasks(per_row, ceil_div(batch, per_row), per_column, ceil_div(hidden, per_column))
        turns = ceil_div(layers * tasks.row_tasks * tasks.column_tasks, threads)
        arithmetic = weights = 0.0
        for sweep in cell.sweeps:
            vectors = ceil_div(min(per_column, hidden), lanes) * sweep.gates
            arithmetic += (
                ceil_div(min(per_row, batch), rows) * rows * vectors * (hidden + inputs) / machine.isa.fma_per_cycle
            )
            weights += vectors * lanes * (hidden + inputs) * itemsize
        far = max(0.0, weights * turns - machine.l2_bytes * 3 // 4) / FAR_BYTES
        cost = max(arithmetic * turns, far)
        return cost + (TURN * len(cell.sweeps) if tasks.column_tasks > 1 else 0), tasks

    each = range(1, ceil_div(threads, layers) + 1)
    choices = [cycles(r, 1) for r in each] + [cycles(1, c) for c in each]
    return min(choices, key=lambda choice: choice[0])[1]
