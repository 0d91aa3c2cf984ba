"""Convolutions by minimal filtering as data: their variants, schedules and argument blocks.

A task takes some tiles of output pixels and some panels of filters. It brings the tiles' inputs to the points of the
filtering once, for all channels; then, a panel at a time, multiplies them at every point with the panel's weights, and
brings the sums back. Everything between the image and the finished pixels stays in the task's scratch memory, which is
sized to stay in L2:

    patches[point, tile, channel]      the inputs at the points
    sums[point, tile, column]          a panel's products at the points
    pixels[result of a tile, lane]     one vector of results, for the epilogue

The algorithm and its matrices are in graphc.ops.minimal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.kernels.contraction import ContractionVariant, Schedule, product_cycles, register_tiles
from graphc.kernels.machine import Machine
from graphc.kernels.problems import ConvProblem
from graphc.ops.minimal import Matrix, filtering, outputs_possible, points, points_needed

__all__ = [
    "ADDRESSES", "NUMBERS", "WinogradPlan", "WinogradVariant", "affordable_tiles", "arguments", "plan", "pooled", "tile_sizes",
    "worthwhile",
]  # fmt: skip

#: The argument block: addresses, then numbers, as in `contraction`.
ADDRESSES = (
    "x",                                        # address of the blocked image
    "w",                                        # address of the packed weights
    "zeros",                                    # address of a vector of zeros, for padding
)  # fmt: skip
NUMBERS = (
    "groups", "x_batch", "x_group", "w_group",
    "blocks",                                   # blocks of input channels of a group
    "out_blocks",                               # blocks of filters of a group
    "height", "width", "out_height", "out_width", "top", "left",
    "tiles", "tiles_high", "tiles_wide",        # tiles of all images; of one image, down and along
    "panels", "panel_stride",                   # panels of packed weights in a group
    "tiles_per_task", "row_tasks", "panels_per_task", "column_tasks",
    "patch_row", "patch_point", "sum_point",    # distances in scratch memory
)  # fmt: skip

#: the vectors of more do not come through the registers without much traffic
MOST_POINTS = 81
#: filterings of 8 points round more coarsely and take more memory for weights: they must be this much faster than smaller
#: ones
LARGE_MUST_SAVE = 1.15
#: weights at the points may take this many times the memory of the plain ones, or this many bytes in any case
WEIGHTS_GROWTH, SMALL_BYTES = 4.5, 1 << 20
#: weights of so many bytes are not in a cache any more when the network runs again
STAYING_BYTES = 8 << 20
#: of which so many a cycle are what they cost (measured on resnet50's strided layers)
MORE_BYTES_PER_CYCLE = 20.0
#: cycles that a vector costs on its way to a point and back, loads and stores included, and at most, since of many additions
#: pairs of points share half (measured on Zen 4, as is what follows)
TO_POINT, FROM_POINT = 5.0, 4.0
#: what of that is loads and stores, and what each addition adds
TO_MEMORY, FROM_MEMORY, ADDITION = 2.0, 1.5, 0.56


@dataclass(frozen=True, slots=True)
class WinogradVariant:
    """What a Winograd kernel is compiled for; everything else it reads from its argument block.

    tile, kernel   output pixels of a tile and taps, down and along
    product        the micro-kernel of the products at the points, mode "rows": rows are tiles, steps channels
    stride         pixels of the image from one pixel of a tile to the next, down and along
    pool           the pixels of a window of which only the largest is a result, down and along: they divide a tile
    """

    tile: tuple[int, int]
    kernel: tuple[int, int]
    product: ContractionVariant
    stride: tuple[int, int] = (1, 1)
    pool: tuple[int, int] = (1, 1)

    @property
    def points(self) -> int:
        """Multiplications a tile, channel and filter."""
        return points(self.tile, self.kernel, self.stride)

    @property
    def handicap(self) -> float:
        """What the time counts for in comparisons: filterings of 8 points must save more than others."""
        small = all(points_needed(*axis) <= 6 for axis in zip(self.tile, self.kernel, self.stride, strict=True))
        return 1.0 if small else LARGE_MUST_SAVE

    @property
    def results(self) -> tuple[int, int]:
        """Results of a tile, down and along."""
        return self.tile[0] // self.pool[0], self.tile[1] // self.pool[1]


@dataclass(frozen=True, slots=True)
class WinogradPlan:
    """How a convolution is computed by minimal filtering. `cycles` is the model's estimate for the busiest thread."""

    variant: WinogradVariant
    tiles_per_task: int
    row_tasks: int
    panels_per_task: int
    column_tasks: int
    tasks: int
    patch_row: int
    patch_point: int
    sum_point: int
    cycles: float

    @property
    def scratch_bytes(self) -> int:
        v = self.variant
        elements = v.points * (self.patch_point + self.sum_point) + math.prod(v.results) * v.product.lanes
        return elements * np.dtype(v.product.dtype).itemsize


def applies(problem: ConvProblem, machine: Machine) -> bool:
    """Whether the kernel computes this: dilation 1, whole blocks of channels, more than one tap and no gaps between."""
    return (
        problem.dilation == (1, 1)
        and problem.kernel != (1, 1)
        and all(s <= r for s, r in zip(problem.stride, problem.kernel, strict=True))
        and problem.block == machine.isa.lanes(np.dtype(problem.dtype).itemsize)
    )


def tile_sizes(problem: ConvProblem) -> Iterator[tuple[int, int]]:
    """Every size of output tile for which there is a filtering; not (1, 1)."""
    down, along = (outputs_possible(r, s) for r, s in zip(problem.kernel, problem.stride, strict=True))
    for tile in ((i, j) for i in down for j in along if (i, j) != (1, 1)):
        if points(tile, problem.kernel, problem.stride) <= MOST_POINTS:
            yield tile


def affordable_tiles(problem: ConvProblem, nbytes: int, machine: Machine) -> list[tuple[int, int]]:
    """The sizes of output tiles whose weights do not take too much memory; `nbytes` is that of the plain weights."""
    if not applies(problem, machine):
        return []
    most = max(SMALL_BYTES, WEIGHTS_GROWTH * nbytes)
    return [t for t in tile_sizes(problem) if _weight_bytes(problem, t) <= most]


def worthwhile(
    problem: ConvProblem, nbytes: int, direct: Schedule, machine: Machine, threads: int
) -> WinogradPlan | None:
    """The plan that is estimated to beat the direct convolution, whose weights have `nbytes`, or None.

    Weights that come from memory in every run are what more threads have to share: such a plan must do for twice as many,
    and what they have more than the plain ones is not all hidden behind the arithmetic.
    """

    def cost(p: WinogradPlan) -> float:
        weights = _weight_bytes(problem, p.variant.tile)
        if weights <= STAYING_BYTES:
            return p.cycles
        more = (weights - nbytes) / MORE_BYTES_PER_CYCLE
        return more + (p.cycles + 2 * plan(problem, p.variant.tile, machine, 2 * threads).cycles) / 2

    plans = [plan(problem, tile, machine, threads) for tile in affordable_tiles(problem, nbytes, machine)]
    best = min((replace(p, cycles=cost(p)) for p in plans), key=lambda p: p.cycles * p.variant.handicap, default=None)
    return best if best is not None and best.cycles < direct.cycles else None


@lru_cache(maxsize=256)
def _transform_cycles(tile: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[float, float]:
    """What a vector costs on its way to a point, and back."""

    def additions(matrix: Matrix) -> int:
        return sum(sum(map(bool, row)) - 1 for row in matrix)

    down, along = (filtering(*axis) for axis in zip(tile, kernel, stride, strict=True))
    there = additions(along.evaluate) / along.inputs + additions(down.evaluate) / down.inputs
    back = additions(along.interpolate) / along.inputs + additions(down.interpolate) / down.inputs * (
        along.outputs / along.inputs
    )
    return min(TO_POINT, TO_MEMORY + ADDITION * there), min(FROM_POINT, FROM_MEMORY + ADDITION * back)


def _weight_bytes(problem: ConvProblem, tile: tuple[int, int]) -> int:
    return (
        points(tile, problem.kernel, problem.stride)
        * problem.groups
        * problem.channels
        * problem.filters
        * np.dtype(problem.dtype).itemsize
    )


def plan(
    problem: ConvProblem,
    tile: tuple[int, int],
    machine: Machine,
    threads: int,
    rows: int | None = None,
    vectors: int | None = None,
) -> WinogradPlan:
    """The plan with the least estimated time for output tiles of this size; `rows` and `vectors` force the tile that is
    held in registers."""
    choices = [t for t in register_tiles(machine) if t[0] > 1 and rows in (None, t[0]) and vectors in (None, t[1])]
    if rows is not None and vectors is not None:
        choices = [(rows, vectors)]
    return min((_plan(problem, tile, machine, max(1, threads), *t) for t in choices), key=lambda p: p.cycles)


def _plan(
    problem: ConvProblem, tile: tuple[int, int], machine: Machine, threads: int, rows: int, vectors: int
) -> WinogradPlan:
    itemsize = np.dtype(problem.dtype).itemsize
    lanes = machine.isa.lanes(itemsize)
    product = ContractionVariant(rows, vectors, lanes, "rows", problem.block, dtype=problem.dtype)
    v = WinogradVariant(tile, problem.kernel, product, problem.stride)
    deep, (to_point, from_point) = problem.blocks * problem.block, _transform_cycles(tile, v.kernel, v.stride)
    tiles = problem.batch * math.prod(ceil_div(o, m) for o, m in zip(problem.output, tile, strict=True))
    panels = ceil_div(problem.filters, product.columns)
    image = problem.height * problem.width * deep * itemsize
    # A row that is a multiple of half the sets of L1 apart from the next would meet it there.
    patch_row = deep + (lanes if deep * itemsize % 2048 == 0 else 0)
    # Patches and one panel's sums stay in L2, beside the weights that stream through it.
    room = machine.l2_bytes * 5 // 8 // (itemsize * v.points * (patch_row + product.columns))
    most = max(rows, min(room, tiles) // rows * rows)

    per_row_tile = v.points * product_cycles(machine.isa, rows, vectors, deep)
    best: tuple[float, int, int] | None = None
    for row_cuts in {max(1, ceil_div(tiles, most)) * k for k in (1, 2, 3, 4)} | {2 * threads, 4 * threads}:
        each = ceil_div(ceil_div(tiles, row_cuts), rows) * rows
        if each > most:
            continue
        row_tasks = ceil_div(tiles, each)
        for column_cuts in range(1, min(panels, 4 * threads) + 1):
            wide = ceil_div(panels, column_cuts)
            tasks = problem.groups * row_tasks * ceil_div(panels, wide)
            real = min(each, tiles)
            transforms = real * v.points * (problem.blocks * to_point + wide * vectors * from_point)
            if image > machine.l2_bytes:  # tiles overlap, and read their borders again from beyond L2
                transforms += real * v.points * deep * itemsize / machine.stream_bytes_per_cycle
            products = wide * ceil_div(real, rows) * per_row_tile
            # Weights come from beyond L2, which all threads share; the next ones are fetched while these are used.
            weights = threads * wide * v.points * deep * product.columns * itemsize / machine.stream_bytes_per_cycle
            cycles = (transforms + max(products, weights) + 400) * ceil_div(tasks, threads)
            if best is None or cycles < best[0]:
                best = cycles, each, wide
    assert best is not None
    cycles, each, wide = best
    v = replace(v, product=product.shared_by(each // rows))
    return WinogradPlan(
        v, each, ceil_div(tiles, each), wide, ceil_div(panels, wide), problem.groups * ceil_div(tiles, each) * ceil_div(panels, wide),
        # one more line a point, so that the points of one tile do not meet in one set of L1
        patch_row, each * patch_row + lanes, each * product.columns + lanes, cycles,
    )  # fmt: skip


def pooled(problem: ConvProblem, pool: tuple[int, int]) -> ConvProblem:
    """The problem without the pixels past the last whole window of a pooling, which are nobody's."""
    top, left, bottom, right = problem.pads
    down, along = (o % window for o, window in zip(problem.output, pool, strict=True))
    return replace(problem, pads=(top, left, bottom - down, right - along))


def arguments(problem: ConvProblem, p: WinogradPlan) -> dict[str, int]:
    """The `NUMBERS` that are sizes; the caller adds the addresses x, w and zeros, and may correct x_batch."""
    v, image = p.variant, problem.height * problem.width * problem.block
    out_height, out_width = (o // window for o, window in zip(problem.output, v.pool, strict=True))
    high, wide = ceil_div(out_height, v.results[0]), ceil_div(out_width, v.results[1])
    panels = ceil_div(problem.filters, v.product.columns)
    panel = v.points * problem.blocks * problem.block * v.product.columns
    return {
        "groups": problem.groups, "x_batch": problem.groups * problem.blocks * image, "x_group": problem.blocks * image,
        "w_group": panels * panel, "blocks": problem.blocks, "out_blocks": ceil_div(problem.filters, v.product.lanes),
        "height": problem.height, "width": problem.width,
        "out_height": out_height, "out_width": out_width,
        "top": problem.pads[0], "left": problem.pads[1],
        "tiles": problem.batch * high * wide, "tiles_high": high, "tiles_wide": wide,
        "panels": panels, "panel_stride": panel,
        "tiles_per_task": p.tiles_per_task, "row_tasks": p.row_tasks,
        "panels_per_task": p.panels_per_task, "column_tasks": p.column_tasks,
        "patch_row": p.patch_row, "patch_point": p.patch_point, "sum_point": p.sum_point,
    }  # fmt: skip
