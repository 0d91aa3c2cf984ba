"""Recurrent layers as data: what one kernel does in each step of a layer, and how the work is cut into tasks.

A step is a few *sweeps* over the hidden units. A sweep multiplies the state (or what an earlier sweep made of it) with
packed weights, a panel of hidden units at a time, and does the gates' arithmetic while their sums are at hand. The
arithmetic is scalar expressions over vectors of hidden units; `load(k)` in them is entry k of the sweep's `reads`.

The state that the products multiply alternates between two places, the one that holds the result and a workspace, so
that nothing is copied from step to step. The other states are read where they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from graphc.ir import scalar as s
from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import DType
from graphc.ir.scalar import Scalar
from graphc.kernels.contraction import TILE_CYCLES, ContractionVariant, pressure, product_cycles, schedule
from graphc.kernels.machine import Machine
from graphc.kernels.problems import GemmProblem
from graphc.kernels.strassen import MUST_SAVE, PRODUCTS, StrassenVariant, inner_steps, overhead
from graphc.ops.recurrent import SIGMOID, TANH, Activation, activation_scalar

__all__ = [
    "Cell", "Read", "RecurrenceKernel", "Sweep", "Tasks", "Write", "cell_of", "deal", "halved_tile", "halves_pay", "plain_tile",
]  # fmt: skip


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

    `inputs` says that it projects the inputs too, `lengths` that sequences may be shorter than the others, `halved` that
    products are done by Strassen's algorithm. Sizes are integers of the launch.
    """

    cell: Cell
    variants: tuple[ContractionVariant, ...]
    layers: int
    inputs: bool
    lengths: bool
    halved: bool = False

    @property
    def family(self) -> str:
        return "recurrence"

    def halves(self, sweep: int) -> StrassenVariant:
        """How a sweep's product is halved."""
        return StrassenVariant(self.variants[sweep], guarded=True)


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


# ------------------------------------------------------------------------------------------------------------- tiles


def plain_tile(machine: Machine, batch: int, hidden: int, vectors: int, dtype: str) -> ContractionVariant:
    """The micro-kernel for a product whose panels hold `vectors` vectors of columns, the gates of some hidden units."""
    lanes = machine.isa.lanes(np.dtype(dtype).itemsize)
    problem = GemmProblem(batch, vectors * lanes, hidden, dtype=dtype)
    most = max(1, min(machine.isa.registers * 3 // 4, machine.isa.registers - vectors - 2) // vectors)
    each = [schedule(problem, machine, rows=rows, vectors=vectors) for rows in range(1, min(most, batch) + 1)]
    rows = min(each, key=lambda s: s.cycles).variant.rows
    inner = max(1, min(8, 96 // (rows * vectors), hidden))
    return ContractionVariant(rows, vectors, lanes, "rows", inner, hidden % lanes != 0, dtype)


def halved_tile(machine: Machine, batch: int, hidden: int, vectors: int, dtype: str) -> ContractionVariant:
    """The micro-kernel of a halved product whose panels hold `vectors` vectors of columns: half of them, and half of the
    rows of a pair of tiles."""
    lanes = machine.isa.lanes(np.dtype(dtype).itemsize)

    def variant(rows: int) -> ContractionVariant:
        return ContractionVariant(rows, vectors // 2, lanes, "rows", inner_steps(lanes), hidden % lanes != 0, dtype)

    def cycles(v: ContractionVariant) -> float:
        return machine.isa.step_cycles(v.rows, v.vectors) * pressure(v.rows, v.vectors)

    most = max(1, machine.isa.registers * 3 // 4 // (vectors // 2))
    choices = [variant(rows) for rows in range(1, min(most, ceil_div(batch, 2)) + 1)]
    best = min(choices, key=lambda v: ceil_div(batch, 2 * v.rows) * cycles(v))
    return best.shared_by(ceil_div(batch, 2 * best.rows))


def halves_pay(
    machine: Machine, batch: int, depth: int, hidden: int, gates: Sequence[int], widths: Sequence[int], dtype: str
) -> bool:
    """Whether products of `depth` steps, each for `gates` gates in panels of `widths` hidden units, are estimated to take
    less time by Strassen's algorithm, on one thread. Its weights are 7/4 times as many: where those of the plain product
    stay in L2 and they do not, that costs extra; where both come from beyond it, they are fetched ahead."""
    near = machine.l2_bytes * 3 // 4
    itemsize = np.dtype(dtype).itemsize
    lanes = machine.isa.lanes(itemsize)

    def cycles(halved: bool) -> tuple[float, float]:
        """Of the arithmetic, and bytes of weights."""
        arithmetic = weights = 0.0
        for n, width in zip(gates, widths, strict=True):
            vectors, panels = n * (width // lanes), ceil_div(hidden, width)
            if halved:
                v = halved_tile(machine, batch, hidden, vectors, dtype)
                pairs = ceil_div(batch, 2 * v.rows)
                tile = PRODUCTS * product_cycles(machine.isa, v.rows, v.vectors, depth / 2)
                left_cycles, result_cycles = overhead(1, guarded=True)
                left = left_cycles * depth / lanes * 2 * v.rows
                arithmetic += pairs * (panels * (tile + 4 * v.rows * v.vectors * result_cycles) + left)
            else:
                v = plain_tile(machine, batch, hidden, vectors, dtype)
                arithmetic += (
                    ceil_div(batch, v.rows)
                    * panels
                    * (depth * machine.isa.step_cycles(v.rows, v.vectors) + TILE_CYCLES)
                )
            weights += panels * depth * vectors * lanes * itemsize * (7 / 4 if halved else 1)
        return arithmetic, weights

    (fewer, more_bytes), (plain, plain_bytes) = cycles(True), cycles(False)
    if plain_bytes > near:
        return max(fewer, more_bytes / machine.shared_bytes_per_cycle) < MUST_SAVE * max(
            plain, plain_bytes / machine.shared_bytes_per_cycle
        )
    return fewer + max(0.0, more_bytes - near) / machine.shared_bytes_per_cycle < MUST_SAVE * plain


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
        far = max(0.0, weights * turns - machine.l2_bytes * 3 // 4) / machine.shared_bytes_per_cycle
        cost = max(arithmetic * turns, weights * turns / machine.l2_bytes_per_cycle, far)
        return cost + (TURN * len(cell.sweeps) if tasks.column_tasks > 1 else 0), tasks

    each = range(1, ceil_div(threads, layers) + 1)
    choices = [cycles(r, 1) for r in each] + [cycles(1, c) for c in each]
    return min(choices, key=lambda choice: choice[0])[1]
