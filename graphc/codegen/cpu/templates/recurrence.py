"""The recurrence kernel: all steps of recurrent layers, or one sweep of one step, around the contraction micro-kernel.

A task walks its steps in order; what a step leaves for the next lies in memory that no other task of the launch writes.
In each sweep panels of packed weights pass, forward in one step and backward in the next, so that what is still in the
cache is used first. A panel may be cut into blocks that stay near while tiles of rows pass; behind its last block the
arithmetic of the gates is done on the sums while they are there. Where products are halved (Strassen's algorithm), what
a sweep multiplies is brought into scratch memory first, row by row, and summed there once for all panels.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.cpu.templates.contraction import sharers_argument
from graphc.codegen.cpu.templates.epilogue import indent
from graphc.codegen.cpu.templates.fused import value_lines
from graphc.codegen.cpu.templates.halves import (
    combine_lines,
    halves_names,
    left_sums,
    product_lines,
    scratch_lines,
)
from graphc.ir.dims import ceil_div
from graphc.kernels.contraction import ContractionVariant
from graphc.kernels.recurrence import Cell, Read, RecurrenceKernel, Sweep
from graphc.ops.strassen import matrices

__all__ = ["LAYER_NUMBERS", "NUMBERS", "read_names", "recurrence_source", "written_names"]

#: integers of a launch that all layers share; then `rounds_per_block` of each sweep whose product is not halved
NUMBERS = (
    "total_steps", "steps", "first_product", "batch", "hidden", "inputs", "rows_per_task", "row_tasks", "columns_per_task", "column_tasks",
    "first_sweep", "last_sweep",
)  # fmt: skip
#: integers of each layer: whether it walks backwards, and distances between steps and rows of x and y in elements
LAYER_NUMBERS = ("backwards", "x_step", "x_row", "y_step", "y_row")


def read_names(kernel: RecurrenceKernel) -> tuple[str, ...]:
    """What a layer reads: inputs (projected; or with the bias, and their packed weights unless those are part of the
    sweeps'), packed weights of each sweep, initial states, the vector if there is one."""
    cell = kernel.cell
    sweeps = range(len(cell.sweeps))
    projection: tuple[str, ...] = ("bias",) if kernel.inputs else ()
    if kernel.inputs and not kernel.halved:
        projection = (*(f"v{k}" for k in sweeps), *projection)
    initial = (f"initial{k}" for k in range(cell.states))
    return ("x", *projection, *(f"w{k}" for k in sweeps), *initial, *(("vector",) if cell.vector else ()))


def written_names(cell: Cell) -> tuple[str, ...]:
    """What a layer writes: y, its last states, the other place of state 0, workspaces."""
    return ("y", *(f"last{k}" for k in range(cell.states)), "other", *(f"work{k}" for k in range(cell.works)))


_SOURCE = '''\
"""Recurrence: {states} of {dtype}, {layers}{lengths}; {tiles}."""

from graphc.codegen.cpu import vector
from graphc.codegen.cpu.microkernel import contract
from graphc.codegen.cpu.vector import offset, prefetch
{imports}

{contracts}
load, store = vector.loader({lanes}, {partial}), vector.storer({lanes}, {partial})
{whole}as_pointer = vector.pointer("{dtype}")
pointer = vector.argument_pointer("{dtype}")
integers = vector.argument_pointer("int64")


def {name}(block, first, last, scratch):
{declarations}
{places}
    start = counter[0]
    for task in range(first, last):
        column_task, above = task % column_tasks, task // column_tasks
        row_task, layer = above % row_tasks, above // row_tasks
        first_row, first_column = row_task * rows_per_task, column_task * columns_per_task
        last_row, last_column = min(batch, first_row + rows_per_task), min(hidden, first_column + columns_per_task)
{layer}
        for t in range(start, min(total_steps, start + steps)):
            # The places of state 0 alternate, and the last step writes the result.
            even = (total_steps - 1 - t) % 2 == 0
            new0 = last0 if even else other
            old0 = initial0 if t == 0 else (other if even else last0)
{states_lines}
{sweeps}
'''

_SWEEP = """\
first_panel, last_panel = first_column // {width}, (last_column + {width} - 1) // {width}
outer, rest = hidden // {inner}, hidden % {inner}
blocks = max(1, (outer + rounds{number} - 1) // rounds{number})
for turn in range(first_panel, last_panel):
    panel = turn if t % 2 == 0 else first_panel + last_panel - 1 - turn
    panel_size = hidden * {columns}
    following = panel_size if t % 2 == 0 else -panel_size
    w_panel = offset(w{number}, panel * panel_size)
    for step in range(blocks):
        done = step * rounds{number}
        rounds = min(rounds{number}, outer - done) if t >= first_product else 0
        w_block = offset(w_panel, done * {round_size})
        fresh, finished = step == 0, step == blocks - 1
        next_block = following - done * {round_size} if finished else rounds * {round_size}
        for row in range(first_row, last_row, {rows}):
            valid = min({rows}, last_row - row)
            tile = offset(sums, (row - first_row) * {columns})
            if finished:
{inputs}
            # The first row tiles fetch the next block of weights, each other lines of it.
            tiles = (row - first_row) // {rows}
            ahead = next_block + tiles * {fetched} if tiles < {turns} else 0
            contract{number}(
                tile, fresh, offset({source}, row * hidden + done * {inner}), w_block, ahead, valid,
                rounds, {inner}, rest if finished and t >= first_product else 0, hidden, 1,
            )
            if finished:
{finish}"""

#: behind a tile's sums
_FINISH = """\
for p in range(valid):
    m = row + p
{place}
    for u in range({units}):
        column = panel * {width} + u * {lanes}
        lanes = min({lanes}, hidden - column)
        if lanes <= 0:
            break
        here = m * hidden + column
{gates}"""


_PLACES = """\
# The sums of a tile's projected inputs, then those of all the task's tiles.
projected = as_pointer(scratch)
sums = offset(projected, {projected_size})"""

_HALVED_PLACES = """\
depth = {depth}
most_rounds = (depth + {inner} - 1) // {inner}
part = (most_rounds + 1) // 2 * {inner}
row_stride, step_stride = most_rounds * {inner} + {lanes}, {inner}
# What is multiplied, filled up with zeros; each sweep's sums and products are behind it.
x_here = as_pointer(scratch)
free = offset(x_here, rows_per_task * row_stride)"""

_HALVED_SWEEP = """\
first_panel, last_panel = first_column // {width}, (last_column + {width} - 1) // {width}
rows_here = last_row - first_row
groups, most_groups = (rows_here + {twice} - 1) // {twice}, (rows_per_task + {twice} - 1) // {twice}
{scratch}
for row in range(first_row, last_row):
    multiplied = offset(x_here, (row - first_row) * row_stride)
    for k in range(0, hidden, {lanes}):
        store(multiplied, k, load({source}, row * hidden + k, hidden - k), hidden - k)
{inputs}    for k in range(depth, most_rounds * {inner}):
        multiplied[k] = 0
all_rounds = {steps}
rounds = (all_rounds + 1) // 2
{left_sums}
size = part * {columns}
for turn in range(first_panel, last_panel):
    panel = turn if t % 2 == 0 else first_panel + last_panel - 1 - turn
    w_group = offset(w{number}, panel * {matrices} * size)
    w_next = {matrices} * size if t % 2 == 0 else -{matrices} * size
{product_lines}
    for r in range(groups):
{combine}
        for down in range(2):
            row = first_row + r * {twice} + down * {rows}
            valid = min({rows}, last_row - row)
            tile = offset(products, 2 * down * product_stride + r * {tile_size})
{fetch}{finish}"""

#: the rows of the layer's inputs, behind the state's
_INPUTS = """\
    x_place = (total_steps - 1 - t if backwards != 0 else t) * x_step + row * x_row
    for k in range(0, inputs, {lanes}):
        store_some(multiplied, hidden + k, load_some(x, x_place + k, inputs - k), inputs - k)
"""


def recurrence_source(kernel: RecurrenceKernel, name: str) -> str:
    """The module text of `name(block, first, last, scratch)`.

    The argument block: for each layer what it reads, the step counter (int64), the lengths (int64) if there are any, for
    each layer what it writes; then NUMBERS, `rounds_per_block` of each sweep, and LAYER_NUMBERS of each layer.
    """
    cell, variant = kernel.cell, kernel.variants[0]
    reads, writes = read_names(kernel), written_names(cell)
    shared = kernel.layers * len(reads)
    written = shared + 1 + kernel.lengths
    numbers = written + kernel.layers * len(writes)
    names = (*NUMBERS, *(f"rounds{k}" for k in range(len(cell.sweeps)) if not kernel.halved))
    declarations = [f"{n} = block[{numbers + k}]" for k, n in enumerate(names)]
    declarations.append(f"counter = integers(block, {shared})")
    if kernel.lengths:
        declarations.append(f"counts = integers(block, {shared + 1})")
    per_layer = numbers + len(names)
    layer = [f"{n} = pointer(block, layer * {len(reads)} + {k})" for k, n in enumerate(reads)]
    layer += [f"{n} = pointer(block, {written} + layer * {len(writes)} + {k})" for k, n in enumerate(writes)]
    layer += [f"{n} = block[{per_layer} + layer * {len(LAYER_NUMBERS)} + {k}]" for k, n in enumerate(LAYER_NUMBERS)]
    states = [f"new{k}, old{k} = last{k}, initial{k} if t == 0 else last{k}" for k in range(1, cell.states)]
    used: set[str] = set()
    sweeps: list[str] = []
    for k in range(len(cell.sweeps)):
        if len(cell.sweeps) > 1:
            sweeps.append(f"if first_sweep <= {k} < last_sweep:")
        text = _halved_sweep(kernel, k, used) if kernel.halved else _sweep(kernel, k, used)
        sweeps += ["    " * (len(cell.sweeps) > 1) + line for line in text.splitlines()]
    return _SOURCE.format(
        name=name,
        states=f"{cell.states} state{'s' if cell.states > 1 else ''}",
        layers=f"{kernel.layers} layer{'s' if kernel.layers > 1 else ''} side by side",
        lengths=" of sequences of any length" if kernel.lengths else "",
        tiles="; ".join(
            f"{s.gates} gates in {'halved ' * kernel.halved}tiles of {v.rows} rows x {v.columns} columns"
            for s, v in zip(cell.sweeps, kernel.variants, strict=True)
        ),
        dtype=variant.dtype, lanes=variant.lanes, partial=variant.partial,
        imports=f"from graphc.codegen.cpu.intrinsics import {', '.join(sorted(used))}" if used else "",
        contracts="\n".join(
            f'contract{k} = contract({v.rows}, {v.vectors}, {v.lanes}, "{v.mode}", {v.inner}, "{v.dtype}"{sharers_argument(v)})'
            for k, v in enumerate(kernel.variants)
        ),
        whole=_whole(kernel) if kernel.halved else "",
        places=indent(_places(kernel).splitlines(), 1),
        declarations=indent(declarations, 1), layer=indent(layer, 2), states_lines=indent(states, 3),
        sweeps=indent(sweeps, 3),
    )  # fmt: skip


def _whole(kernel: RecurrenceKernel) -> str:
    """The names of vectors that a halved kernel reads and writes without regard to how many columns there are."""
    lines = halves_names(kernel.halves(0))
    if kernel.inputs:
        lanes = kernel.variants[0].lanes
        lines.append(f"load_some, store_some = vector.loader({lanes}, True), vector.storer({lanes}, True)")
    return "".join(line + "\n" for line in lines)


def _places(kernel: RecurrenceKernel) -> str:
    v = kernel.variants[0]
    if kernel.halved:
        depth = "hidden + inputs" if kernel.inputs else "hidden"
        return _HALVED_PLACES.format(depth=depth, inner=v.inner, lanes=v.lanes)
    return _PLACES.format(projected_size=max(v.rows * v.columns for v in kernel.variants) if kernel.inputs else 0)


#: whether a layer walks its sequences from their ends
_BACKWARDS = "backwards != 0"


def _place(kernel: RecurrenceKernel) -> list[str]:
    """The lines that say which step of x and y row m is at."""
    if kernel.lengths:
        return [
            "count = counts[m]",
            "active = t < count",
            f"place = count - 1 - t if active and {_BACKWARDS} else t",
        ]
    return [f"place = total_steps - 1 - t if {_BACKWARDS} else t"]


def _fetch(kernel: RecurrenceKernel, sweep: Sweep, units: int, v: ContractionVariant) -> list[str]:
    """The lines that fetch what the gates read of the projected inputs: from far away, at distances that no processor
    guesses."""
    return [
        "for p in range(valid):",
        f"    far = x_place + (row + p) * x_row + panel * {units * v.lanes}",
        *(
            f"    prefetch(x, far + {g} * hidden + {u})"
            for g in range(sweep.first, sweep.first + sweep.gates)
            for u in range(0, units * v.lanes, v.cache_line)
        ),
    ]


def _halved_sweep(kernel: RecurrenceKernel, number: int, used: set[str]) -> str:
    sweep, v = kernel.cell.sweeps[number], kernel.variants[number]
    units = 2 * v.vectors // sweep.gates
    used.add(v.dtype)
    fetch: list[str] = []
    if not kernel.inputs:
        x_place = f"x_place = (total_steps - 1 - t if {_BACKWARDS} else t) * x_step"
        fetch = [x_place, *_fetch(kernel, sweep, units, v)]
    halves = kernel.halves(number)
    return _HALVED_SWEEP.format(
        number=number, rows=v.rows, twice=2 * v.rows, lanes=v.lanes, units=units, width=units * v.lanes, columns=v.columns,
        inner=v.inner, tile_size=v.rows * v.columns, matrices=matrices(1, guarded=True),
        source="old0" if sweep.of_state else "work0",
        scratch="\n".join(scratch_lines(halves, "most_groups")),
        inputs=_INPUTS.format(lanes=v.lanes) if kernel.inputs else "",
        steps="most_rounds" if kernel.inputs else "most_rounds if t >= first_product else 0",
        left_sums="\n".join(left_sums(halves)),
        product_lines=indent(product_lines(halves, contract=f"contract{number}"), 1),
        combine=indent(combine_lines(halves), 2),
        fetch="".join(f"{line}\n" for line in indent(fetch, 3).splitlines()),
        finish=indent(_finished(kernel, number, units, used), 3),
    )  # fmt: skip


def _finished(kernel: RecurrenceKernel, number: int, units: int, used: set[str]) -> list[str]:
    """The lines behind a tile's sums: the gates, and what the sweep leaves."""
    sweep, v = kernel.cell.sweeps[number], kernel.variants[number]
    final = number == len(kernel.cell.sweeps) - 1
    gates = list(_gates(kernel, sweep, v.lanes, units, used))
    if final:
        gates.append("store(y, place * y_step + m * y_row + column, h, lanes)")
    if kernel.lengths:
        gates = ["if active:", *("    " + line for line in gates)]
        if final:
            gates += ["else:"]
            gates += [f"    store(new{k}, here, load(old{k}, here, lanes), lanes)" for k in range(kernel.cell.states)]
            gates += ["    store(y, place * y_step + m * y_row + column, 0, lanes)"]
    return _FINISH.format(
        place=indent(_place(kernel), 1), units=units, width=units * v.lanes, lanes=v.lanes, gates=indent(gates, 2)
    ).splitlines()


def _sweep(kernel: RecurrenceKernel, number: int, used: set[str]) -> str:
    sweep, v = kernel.cell.sweeps[number], kernel.variants[number]
    units = v.vectors // sweep.gates
    inputs = [f"x_place = (total_steps - 1 - t if {_BACKWARDS} else t) * x_step"]
    if kernel.inputs:
        inputs += [
            f"contract{number}(",
            f"    projected, 1, offset(x, x_place + row * x_row), offset(v{number}, panel * inputs * {v.columns}), 0, valid,",
            f"    inputs // {v.inner}, {v.inner}, inputs % {v.inner}, x_row, 1,",
            ")",
        ]
    else:
        inputs += _fetch(kernel, sweep, units, v)
    fetched = v.fetches * v.cache_line
    return _SWEEP.format(
        number=number, rows=v.rows, lanes=v.lanes, units=units, width=units * v.lanes, columns=v.columns,
        inner=v.inner, round_size=v.inner * v.columns, fetched=fetched,
        turns=ceil_div(v.unroll * v.columns, fetched),
        source="old0" if sweep.of_state else "work0",
        inputs=indent(inputs, 4),
        finish=indent(_finished(kernel, number, units, used), 4),
    )  # fmt: skip


def _gates(kernel: RecurrenceKernel, sweep: Sweep, lanes: int, units: int, used: set[str]) -> Sequence[str]:
    """The lines that read, compute and store; `h` is the new state 0."""

    def total(tile: str, number: int) -> str:
        if not kernel.halved:
            return f"load({tile}, (p * {sweep.gates * units} + {number * units} + u) * {lanes}, {lanes})"
        # the left half of a panel's columns and the right one
        half = sweep.gates * units // 2
        vector = f"{number * units} + u"
        return f"whole({tile}, ({vector}) // {half} * product_stride + (p * {half} + ({vector}) % {half}) * {lanes}, 0)"

    def text(r: Read) -> str:
        match r.what:
            case "sum":
                return total("tile", r.number)
            case "x" if kernel.inputs and kernel.halved:
                return f"load(bias, {r.number} * hidden + column, lanes)"
            case "x" if kernel.inputs:
                own = total("projected", r.number - sweep.first)
                return f"{own} + load(bias, {r.number} * hidden + column, lanes)"
            case "x":
                return f"load(x, place * x_step + m * x_row + {r.number} * hidden + column, lanes)"
            case "state":
                return f"load(old{r.number}, here, lanes)"
            case "work":
                return f"load(work{r.number}, here, lanes)"
        return f"load(vector, {r.number} * hidden + column, lanes)"

    lines = [f"x{k} = {text(r)}" for k, r in enumerate(sweep.reads)]
    values = value_lines([w.value for w in sweep.writes], lines, used)
    for w, value in zip(sweep.writes, values, strict=True):
        if w.what == "work":
            lines.append(f"store(work{w.number}, here, {value}, lanes)")
            continue
        if w.number == 0:
            lines.append(f"h = {value}")
            value = "h"
        lines.append(f"store(new{w.number}, here, {value}, lanes)")
    return lines
