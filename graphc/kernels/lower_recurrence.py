"""Lowering of `recurrence`: one launch that walks all steps, or a loop of launches whose tasks share each step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node
from graphc.kernels.build import ProgramBuilder, lowering
from graphc.kernels.contraction import ContractionVariant, block_of_panel
from graphc.kernels.ir import Launch
from graphc.kernels.lower_contraction import names_of
from graphc.kernels.machine import Machine, host_machine
from graphc.kernels.program import Count, Exhausted, Jump, Label, Placed
from graphc.kernels.recurrence import Cell, RecurrenceKernel, cell_of, deal, halved_tile, plain_tile
from graphc.kernels.strassen import StrassenVariant
from graphc.ops.recurrence import Operands


@lowering("recurrence")
def lower_recurrence(builder: ProgramBuilder, node: Node, operands: list[Placed], results: list[Placed]) -> None:
    """Emit the launches of recurrent layers side by side."""
    attrs = dict(node.attrs)
    name, reverse = attrs.pop("cell"), attrs.pop("reverse")
    given = Operands(operands, name, reverse, **attrs)
    machine, dtype, layers = host_machine(), given.x[0].dtype, len(reverse)
    steps, batch, depth = given.x[0].shape
    inputs = depth if given.inside else 0
    hidden = given.initial[0][0].shape[1]
    cell = cell_of(name, dtype, **attrs)
    halved = given.halved
    lanes = machine.isa.lanes(dtype.itemsize)
    tile = halved_tile if halved else plain_tile
    vectors = [(1 + halved) * w.shape[-1] // lanes for w in given.weights[0]]  # of a panel
    variants = tuple(tile(machine, batch, hidden, v, dtype.name) for v in vectors)
    kernel = RecurrenceKernel(cell, variants, layers, given.inside, bool(given.lengths), halved)
    widths = tuple(v * lanes // s.gates for v, s in zip(vectors, cell.sweeps, strict=True))
    rows = (1 + halved) * max(v.rows for v in variants)
    tasks = deal(cell, layers, batch, hidden, inputs, widths, rows, dtype.itemsize, machine, builder.threads)

    # rows of x and y may lie apart; whatever else is needed is dense
    each = 1 + cell.states
    per_layer = [results[k * each : (k + 1) * each] for k in range(layers)]
    xs = [x if x.strides[2] == 1 else builder.dense(x) for x in given.x]
    written: list[Placed] = []
    late: list[tuple[Placed, Placed]] = []
    numbers: list[int] = []
    for x, (y, *last), back in zip(xs, per_layer, reverse, strict=True):
        target = y if y.strides[2] == 1 or hidden == 1 else builder.temporary(y.shape, dtype)
        ends = [p if p.layout.is_dense else builder.temporary(p.shape, dtype) for p in last]
        late += [(a, b) for a, b in zip((target, *ends), (y, *last), strict=True) if a is not b]
        spare = [builder.temporary((batch, hidden), dtype) for _ in range(1 + cell.works)]
        written += [target, *ends, *spare]
        numbers += [int(back), *x.strides[:2], *target.strides[:2]]
    read: list[Placed] = []
    for k, x in enumerate(xs):
        rest = (given.input_weights[k], given.bias[k], given.weights[k], given.initial[k], given.vector[k])
        read += [x, *(builder.dense(p) for part in rest for p in part)]
    lengths = [builder.dense(p) for p in given.lengths]
    if halved:
        rounds = []
        scratch = max(
            _halved_scratch(kernel.halves(k), hidden + inputs, tasks.rows_per_task) for k in range(len(variants))
        )
    else:
        rounds = [_rounds(v, hidden, min(batch, tasks.rows_per_task), machine) for v in variants]
        tiles = max(ceil_div(min(batch, tasks.rows_per_task), v.rows) * v.tile_bytes for v in variants)
        scratch = tiles + given.inside * max(v.tile_bytes for v in variants)
    flops = 2 * batch * hidden * (hidden + inputs) * sum(s.gates for s in cell.sweeps) * layers

    first_product = int(attrs.get("from_zero", False))

    def launch(counter: Placed, many: int, first: int, end: int) -> None:
        sizes = (
            steps, many, first_product, batch, hidden, inputs, tasks.rows_per_task, tasks.row_tasks, tasks.columns_per_task,
            tasks.column_tasks, first, end,
        )  # fmt: skip
        where = (*read, counter, *lengths, *written)
        count = layers * tasks.row_tasks * tasks.column_tasks
        integers = (*sizes, *rounds, *numbers)
        builder.emit(
            Launch(
                kernel, tuple(p.operand for p in where), len(written), integers, count, scratch, names_of(node),
                flops * many,
            )
        )  # fmt: skip

    if tasks.column_tasks == 1:
        launch(builder.constant(np.zeros((), np.int64)), steps, 0, len(cell.sweeps))
    else:
        _step_by_step(builder, cell, steps, launch)
    for source, target in late:
        builder.copy(source, target)


def _step_by_step(
    builder: ProgramBuilder, cell: Cell, steps: int, launch: Callable[[Placed, int, int, int], None]
) -> None:
    """A loop over the steps in which every sweep is a launch: its tasks need all of the sweep before."""
    counter = builder.temporary((), dtype_of("int64"))
    limit = builder.constant(np.array(steps, np.int64))
    head, end = builder.label(), builder.label()
    builder.emit(Count(counter.operand, reset=True))
    first = builder.emit(Label(head))
    builder.emit(Exhausted(counter.operand, limit.operand, end))
    for k in range(len(cell.sweeps)):
        launch(counter, 1, k, k + 1)
    builder.emit(Count(counter.operand, reset=False))
    last = builder.emit(Jump(head))
    builder.emit(Label(end))
    builder.program.loops.append((first, last))


def _rounds(v: ContractionVariant, hidden: int, rows: int, machine: Machine) -> int:
    """Rounds of the micro-kernel after which the next tile of rows is due."""
    rounds = max(1, hidden // v.inner)
    return rounds if rows <= v.rows else block_of_panel(machine, v, hidden, rounds)


def _halved_scratch(variant: StrassenVariant, depth: int, rows: int) -> int:
    """Bytes of a halved sweep's scratch memory for a task of so many rows: what is multiplied, and all that comes of it."""
    v = variant.product
    rounds = ceil_div(depth, v.inner)
    elements = variant.scratch_elements(ceil_div(rows, 2 * v.rows), ceil_div(rounds, 2) * v.inner)
    return (rows * (rounds * v.inner + v.lanes) + elements) * np.dtype(v.dtype).itemsize
