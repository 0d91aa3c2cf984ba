"""Contractions as data: matrix products and convolutions, their schedules, packed weights and argument blocks.

Both are one computation, a matrix product whose left operand is found through indirection:

    y[b, g, m, n] = sum over o < outer, t < taps, k < inner
                    of x[b, g][o * outer_stride + place(t, m) + k] * w[g][o, t, k, n]

In a matrix product `m` is a row and there is one tap; in a convolution `m` is an output pixel, the taps are the
kernel's positions and `outer` counts blocks of input channels. A kernel is compiled once for a `ContractionVariant`
(what its micro-kernel needs to know) and serves every layer of that variant: sizes are slots of its argument block.

Layouts. Activations are blocked: x[batch, groups * channel blocks, height, width, block], the channels of each group
padded to whole blocks. Weights are packed by operations (`pack_conv_weights` and `pack_matrix` in `graphc.ops.layout`):
one panel for `columns` output columns, in the order in which the micro-kernel reads it. Padding must hold finite numbers
(it is multiplied by zero weights). A pointwise convolution can also pick its channels one by one from wherever they lie
among an image's blocks: after a channel shuffle, or where groups fill no whole blocks.

Operands of bfloat16 are multiplied in pairs of steps that lie side by side, and summed in float32: their steps are even
in number, and a panel of weights holds [steps / 2, columns, 2] (see `together`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.kernels.machine import Isa, Machine
from graphc.kernels.problems import ConvProblem, GemmProblem, Problem
from graphc.ops.layout import summed_in, together

__all__ = [
    "ADDRESSES", "NUMBERS", "TILE_CYCLES", "ContractionVariant", "Schedule", "arguments", "block_of_panel",
    "estimated_cycles", "offset_table", "picked_table", "pressure", "product_cycles", "register_tiles", "schedule", "tiles",
]  # fmt: skip

Mode = Literal["rows", "strided", "picked", "table"]

#: row tiles that share the fetching of the next weights, where there are as many. Few of them fetch enough when weights
#: come from far away; with eight, products of 16 rows took a tenth longer (and all others the same). A product of few rows
#: reads weights as fast as they come: to fetch more than a quarter of them twice makes it slower.
SHARERS, SHARERS_OF_FEW_ROWS, FEW_ROWS = 2, 4, 4
#: cycles that a tile costs besides its steps; more for each vector of its sums, to be cleared and stored; and more for what
#: becomes of that
TILE_CYCLES, VECTOR_CYCLES, EPILOGUE_CYCLES = 20.0, 2.0, 1.0

#: The argument block of a contraction kernel, int64 slots: these addresses and those of the epilogue, then these numbers
#: (they count elements) and those of the epilogue.
ADDRESSES = (
    "x",                # address of the left operand
    "w",                # address of the packed right operand, 64-byte aligned
    "offsets",          # address of the int32 offset table (modes "table" and "picked", else 0)
    "zeros",            # address of `inner` zeros, for padding (mode "table", else 0)
)  # fmt: skip
NUMBERS = (
    "groups",           # groups of a convolution, or the inner one of two batch dimensions
    "x_batch", "x_group", "w_batch", "w_group",  # distances between batches and groups
    "rows_total",       # rows (pixels) of y in a batch and group
    "columns_total",    # columns (channels) of y in a group
    "panels",           # panels of packed weights in a group
    "panel_stride",     # elements of a panel
    "outer", "outer_stride", "rest",             # whole rounds, distance between them, steps left over
    "row_stride", "step_stride",                 # distances in modes "rows" and "strided"; in "picked" between rows alone
    "taps",                                      # taps of a round; 1 unless mode is "table"
    "rounds_per_block",                          # rounds after which a task turns to its next row tile
    "tiles_per_task", "row_tasks",               # row tiles a task does, and into how many tasks the rows are cut
    "panels_per_task", "column_tasks",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ContractionVariant:
    """What a contraction kernel is compiled for; everything else it reads from its argument block.

    rows, vectors, lanes  the tile held in registers: rows x (vectors of lanes)
    mode                  how rows are found: see graphc.codegen.cpu.microkernel
    inner                 steps of a round, of which `unroll` are written out
    partial               whether the last vector of columns may have fewer than `lanes` (a dense matrix; blocked
                          layouts are padded)
    dtype                 of the operands; the sums of bfloat16 products are float32
    dot                   whether one instruction adds a pair of bfloat16 products (see Isa.bfloat16_dot)
    sharers               row tiles that together fetch the next weights ahead, each as much as it has time for
    """

    rows: int
    vectors: int
    lanes: int
    mode: Mode
    inner: int
    partial: bool = False
    dtype: str = "float32"
    dot: bool = False
    sharers: int = SHARERS

    @property
    def sums(self) -> str:
        """Element type of the sums."""
        return summed_in(self.dtype)

    @property
    def together(self) -> int:
        """Steps that are done at once."""
        return together(self.dtype)

    @property
    def columns(self) -> int:
        """Columns of a tile, and of a panel of packed weights."""
        return self.vectors * self.lanes

    @property
    def unroll(self) -> int:
        """Steps written out one after the other: beyond a hundred FMAs LLVM moves loads so far ahead that it spills."""
        most = max(1, 100 // (self.rows * self.vectors)) * self.together
        return max(d for d in range(self.together, most + 1, self.together) if self.inner % d == 0)

    @property
    def cache_line(self) -> int:
        """Elements of 64 bytes; where lines are longer, some fetches are for nothing."""
        return 64 // np.dtype(self.dtype).itemsize

    @property
    def fetches(self) -> int:
        """Cache lines of weights fetched ahead in each unrolled part: all sharers together fetch what one reads."""
        return ceil_div(self.unroll * self.columns, self.sharers * self.cache_line)

    def shared_by(self, row_tiles: int) -> ContractionVariant:
        """This variant for so many row tiles, which share the fetching of what comes next."""
        few = row_tiles == 1 and self.rows <= FEW_ROWS
        return replace(self, sharers=SHARERS_OF_FEW_ROWS if few else min(row_tiles, SHARERS))

    @property
    def tile_bytes(self) -> int:
        """Bytes of a tile's sums."""
        return self.rows * self.columns * np.dtype(self.sums).itemsize


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a problem is computed: the kernel, how tiles are dealt out to tasks, and into how many `blocks` of so many
    rounds a panel is cut. `cycles` is the model's estimate."""

    variant: ContractionVariant
    rounds_per_block: int
    blocks: int
    tiles_per_task: int
    row_tasks: int
    panels_per_task: int
    column_tasks: int
    tasks: int
    cycles: float

    @property
    def scratch_bytes(self) -> int:
        """Private memory that a thread needs, 64-byte aligned: the sums of a task's row tiles that wait for a block."""
        return self.variant.tile_bytes * (self.tiles_per_task if self.blocks > 1 else 1)


def schedule(
    problem: Problem, machine: Machine, threads: int = 1, rows: int | None = None, vectors: int | None = None
) -> Schedule:
    """The tile and the tasks with the least estimated time; `rows` and `vectors` force the tile.

    Raises ValueError when steps are done in pairs and do not come in pairs.
    """
    pair = together(problem.dtype)
    if (problem.k if isinstance(problem, GemmProblem) else problem.inner) % pair:
        raise ValueError(f"{problem.dtype} operands are multiplied {pair} steps at once: pad {problem} to a multiple")
    lanes = machine.isa.lanes(np.dtype(summed_in(problem.dtype)).itemsize)
    mode: Mode
    if isinstance(problem, GemmProblem):
        mode, partial = ("rows" if problem.step_stride == 1 else "strided"), problem.n % lanes != 0
    else:
        mode, partial = ("picked" if problem.picked else "rows" if problem.pointwise else "table"), False
    candidates = [t for t in tiles(problem, machine) if rows in (None, t[0]) and vectors in (None, t[1])]
    if rows is not None and vectors is not None:
        candidates = [(rows, vectors)]
    tile = min(candidates, key=lambda t: estimated_cycles(problem, machine, t, lanes))
    inner = pair * max(1, min(8, 96 // (tile[0] * tile[1])))
    if isinstance(problem, ConvProblem) and not problem.picked:
        inner = problem.inner
    variant = ContractionVariant(
        *tile, lanes, mode, inner, partial, problem.dtype, pair > 1 and machine.isa.bfloat16_dot
    )
    return _deal(problem, machine, variant, max(1, threads))


def register_tiles(machine: Machine) -> Iterator[tuple[int, int]]:
    """Tiles (rows, vectors): accumulators in three quarters of the registers, two left beside the vectors of a step."""
    registers = machine.isa.registers
    for vectors in (2, 3, 4, 1):
        most = min(registers * 3 // 4, registers - vectors - 2) // vectors
        yield from ((rows, vectors) for rows in range(1, min(most, 12) + 1))
    # A single row takes its vectors straight from memory, so only the accumulators need registers.
    yield from ((1, vectors) for vectors in (8, 12) if vectors + 2 < registers)


def tiles(problem: Problem, machine: Machine) -> Iterator[tuple[int, int]]:
    """The register tiles for a problem. Rows whose steps are picked are read side by side, the last tile's too: there are
    at least as many as a tile has."""
    most = problem.rows if isinstance(problem, ConvProblem) and problem.picked else math.inf
    return (t for t in register_tiles(machine) if t[0] <= most)


def product_cycles(isa: Isa, rows: int, vectors: int, steps: float) -> float:
    """Cycles of a tile whose sums go to scratch memory: its steps, and what a tile costs besides."""
    return steps * isa.step_cycles(rows, vectors) + TILE_CYCLES + VECTOR_CYCLES * rows * vectors


def pressure(rows: int, vectors: int) -> float:
    """What a tile's time counts for when tiles are compared: one that loads more for its arithmetic waits more for caches."""
    return 1 + 0.15 * (rows + 2 * vectors) / (rows * vectors)


def _tile_cycles(problem: Problem, machine: Machine, rows: int, vectors: int) -> float:
    """Cycles of a tile and its epilogue."""
    pair = together(problem.dtype)
    # Without an instruction for it, a pair is two steps of float32 and what it takes to part them (measured).
    each = 2.1 if pair > 1 and not machine.isa.bfloat16_dot else 1
    return product_cycles(machine.isa, rows, vectors, problem.steps // pair * each) + EPILOGUE_CYCLES * rows * vectors


def estimated_cycles(problem: Problem, machine: Machine, tile: tuple[int, int], lanes: int) -> float:
    """Cycles of a whole problem, padding included, as they count when tiles are compared."""
    rows, vectors = tile
    count = ceil_div(problem.rows, rows) * ceil_div(problem.columns, vectors * lanes)
    return count * _tile_cycles(problem, machine, rows, vectors) * pressure(rows, vectors)


def _deal(problem: Problem, machine: Machine, variant: ContractionVariant, threads: int) -> Schedule:
    """Cut rows and columns into tasks: a task's part of x stays in L2, and there is enough for all threads."""
    task_overhead = 400.0  # cycles to claim a task and to warm up its loops
    row_tiles, panels = ceil_div(problem.rows, variant.rows), ceil_div(problem.columns, variant.columns)
    outer = problem.batch * problem.groups
    tile_cycles = _tile_cycles(problem, machine, variant.rows, variant.vectors)
    # A task's part of x takes some of L2, and so do its sums if they have to wait.
    resident = machine.l2_bytes // 2 // max(1, variant.rows * problem.row_bytes)
    rounds = max(1, _rounds(problem, variant))
    rounds_per_block = block_of_panel(machine, variant, problem.steps, rounds)
    if rounds_per_block < rounds:
        near = rounds_per_block * panel_bytes(variant, problem.steps) // rounds <= machine.l1_bytes
        waiting = machine.l1_bytes // 2 if near else machine.l2_bytes // 8
        resident = min(resident, waiting // variant.tile_bytes)
    resident = max(1, resident)

    # A task brings its rows of x and its panels near the core: for the most part while it computes, so this only says
    # which of several ways to deal is the better one.
    rows_brought = variant.rows * problem.row_bytes / (4 * machine.stream_bytes_per_cycle)
    panel_brought = panel_bytes(variant, problem.steps) / (4 * machine.stream_bytes_per_cycle)

    def cost(s: Schedule) -> float:
        brought = s.tiles_per_task * rows_brought + s.panels_per_task * panel_brought
        return s.cycles + brought * ceil_div(s.tasks, threads)

    def plan(row_cuts: int, column_cuts: int) -> Schedule:
        per_row, per_column = ceil_div(row_tiles, row_cuts), ceil_div(panels, column_cuts)
        row_tasks, column_tasks = ceil_div(row_tiles, per_row), ceil_div(panels, per_column)
        tasks = outer * row_tasks * column_tasks
        each = per_row * per_column * tile_cycles + task_overhead
        # Nothing to come back for: one row tile takes the whole panel at once.
        block = rounds_per_block if per_row > 1 else rounds
        return Schedule(
            variant.shared_by(per_row),
            block,
            ceil_div(rounds, block),
            per_row,
            row_tasks,
            per_column,
            column_tasks,
            tasks,
            each * ceil_div(tasks, threads),
        )

    fewest = ceil_div(row_tiles, resident)
    most = max(1, 8 * threads)
    rows_choice = sorted({min(row_tiles, max(fewest, c)) for c in range(1, most + 1)} | {fewest})
    columns_choice = range(1, min(panels, most) + 1)
    return min((plan(r, c) for r in rows_choice for c in columns_choice), key=lambda s: (cost(s), s.tasks))


def panel_bytes(v: ContractionVariant, steps: int) -> int:
    """Bytes of a panel of packed weights."""
    return steps * v.columns * np.dtype(v.dtype).itemsize


#: what a core reads from its L2 beside its arithmetic, with nothing lost
L2_BYTES_PER_CYCLE = 16


def block_of_panel(machine: Machine, v: ContractionVariant, steps: int, rounds: int) -> int:
    """Rounds of a panel after which a task turns to its next row tile, of `rounds` in all.

    Putting sums aside costs as much as a few steps. So a panel is cut only where L2 does not hold it, or is too slow for
    the arithmetic; then blocks stay in L1, if the panel is well beyond that.
    """
    size = panel_bytes(v, steps)
    if (
        v.columns * np.dtype(v.dtype).itemsize * machine.isa.fma_per_cycle
        <= L2_BYTES_PER_CYCLE * v.rows * v.vectors * v.together
    ):
        largest = block = machine.l2_bytes // 4
    else:
        largest, block = machine.l1_bytes * 3 // 2, machine.l1_bytes * 3 // 4
    return rounds if size <= largest else max(1, rounds * block // size)


def _rounds(problem: Problem, variant: ContractionVariant) -> int:
    """Whole rounds of a micro-kernel's outer loop over all steps."""
    return problem.steps // (problem.taps * variant.inner)


def arguments(problem: Problem, s: Schedule) -> dict[str, int]:
    """The `NUMBERS` that are sizes; the caller adds the addresses x, w, offsets, zeros (0 where not needed)."""
    v = s.variant
    panels = ceil_div(problem.columns, v.columns)
    panel = problem.steps * v.columns
    slots = dict.fromkeys(NUMBERS, 0) | {
        "groups": problem.groups, "rows_total": problem.rows, "columns_total": problem.columns,
        "panels": panels, "panel_stride": panel, "w_group": panels * panel, "rounds_per_block": s.rounds_per_block,
        "tiles_per_task": s.tiles_per_task, "row_tasks": s.row_tasks,
        "panels_per_task": s.panels_per_task, "column_tasks": s.column_tasks,
    }  # fmt: skip
    if isinstance(problem, GemmProblem):
        row_stride = problem.k if problem.row_stride is None else problem.row_stride
        matrix = problem.m * row_stride
        slots |= {
            "outer": _rounds(problem, v), "outer_stride": v.inner * problem.step_stride, "rest": problem.k % v.inner,
            "row_stride": row_stride, "step_stride": problem.step_stride, "taps": 1,
            "x_group": matrix if problem.group_stride is None else problem.group_stride,
            "x_batch": problem.groups * matrix if problem.batch_stride is None else problem.batch_stride,
            "w_batch": 0 if problem.shared else problem.groups * panels * panel,
        }  # fmt: skip
        return slots
    if problem.picked:
        steps = {"outer": _rounds(problem, v), "rest": problem.steps % v.inner, "taps": 1}
        return slots | steps | {"row_stride": problem.block}
    image = problem.height * problem.width * problem.block
    return slots | {
        "outer": problem.blocks, "outer_stride": image, "taps": problem.taps,
        "row_stride": problem.block, "step_stride": 1,
        "x_group": problem.blocks * image, "x_batch": problem.groups * problem.blocks * image,
    }  # fmt: skip


def offset_table(problem: ConvProblem, v: ContractionVariant) -> np.ndarray:
    """int32 [row tiles, taps, rows of a tile]: where in a channel block's image each output pixel reads; -1 is padding.

    Pixels are numbered through the whole output image, so that a tile may span its rows. Rows past the last pixel
    repeat it. Raises ValueError when an image is too large for 32-bit offsets.
    """
    if problem.height * problem.width * problem.block >= 1 << 31:
        raise ValueError(f"an image of {problem.height} x {problem.width} is too large for an offset table")
    _, width = problem.output
    top, left, *_ = problem.pads
    tiles = ceil_div(problem.rows, v.rows)
    pixel = np.minimum(np.arange(tiles * v.rows), problem.rows - 1)
    tap = np.arange(problem.taps)[:, None]
    down, along = (tap, 0) if problem.merged else (tap // problem.kernel[1], tap % problem.kernel[1])
    i = pixel // width * problem.stride[0] - top + down * problem.dilation[0]
    j = pixel % width * problem.stride[1] - left + along * problem.dilation[1]
    inside = (i >= 0) & (i < problem.height) & (j >= 0) & (j < problem.width)
    offsets = np.where(inside, (i * problem.width + j) * problem.block, -1).astype(np.int32)
    return np.ascontiguousarray(offsets.reshape(problem.taps, tiles, v.rows).transpose(1, 0, 2))


def picked_table(problem: ConvProblem, places: Sequence[Sequence[int]]) -> np.ndarray:
    """int32 [groups, steps]: where in an image each channel of a group's sum stands, in elements from its first pixel.

    Channels are given by their places, counted through the lanes of all blocks. Raises ValueError when an image is too
    large for 32-bit offsets.
    """
    slots = np.asarray(places, np.int64)
    plane = problem.height * problem.width * problem.block
    if (slots.max(initial=0) // problem.block + 1) * plane >= 1 << 31:
        raise ValueError(f"an image of {problem.height} x {problem.width} is too large for an offset table")
    return (slots // problem.block * plane + slots % problem.block).astype(np.int32)
