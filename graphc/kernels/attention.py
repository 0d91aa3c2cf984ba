"""Attention as data: the shape of its tiles, how rows are dealt out to tasks, and its argument block.

    y[b, h, m, :] = sum over n of softmax(q[b, h, m] k[b, h, n] * scale + mask[b, h, m, n]) v[b, h, n, :]

A task takes some rows of one head. Their scores against all keys stay in its scratch memory, in L2, so the matrix of
scores is never in memory as a whole; keys and values are packed panel by panel as the micro-kernel of contractions
reads them, and both products are that micro-kernel. A row is computed alike whatever task it belongs to, so results do
not depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.kernels.contraction import ContractionVariant, estimated_cycles, register_tiles
from graphc.kernels.machine import Machine
from graphc.kernels.problems import GemmProblem

__all__ = ["ADDRESSES", "NUMBERS", "AttentionProblem", "AttentionSchedule", "AttentionVariant", "MaskUse", "schedule"]

#: what a mask does: it is added to the scores, or takes their place where it is not 0
MaskUse = Literal["none", "add", "fill"]

#: The argument block, int64 slots: addresses, then numbers, which count elements.
ADDRESSES = (
    "q", "k", "v", "mask", "y",                    # addresses (mask: that of q when there is none)
)  # fmt: skip
NUMBERS = (
    "heads", "m", "n", "d", "e",                   # the inner one of two batch dimensions, and the extents
    "q_batch", "q_head", "q_row",                  # distances; the elements of a row of q are neighbours,
    "k_batch", "k_head", "k_row", "k_step",
    "v_batch", "v_head", "v_row",                  # and so are those of v, of the mask and of y
    "mask_batch", "mask_head", "mask_row",
    "y_batch", "y_head", "y_row",
    "tiles_per_task", "row_tasks",
    "packed_size", "scores_size",                  # elements of scratch for packed panels, and for scores
)  # fmt: skip
#: a task's scores and its part of q take this much of L2
L2_SHARE = 0.75
#: rows that a task should at least do for each time that it packs keys and values
WORTH_PACKING = 48


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """Sizes: `batch` x `heads` times `m` rows against `n` keys of `d` elements, with values of `e` elements."""

    batch: int
    heads: int
    m: int
    n: int
    d: int
    e: int
    dtype: str = "float32"

    @property
    def flops(self) -> int:
        return 2 * self.batch * self.heads * self.m * self.n * (self.d + self.e)


@dataclass(frozen=True, slots=True)
class AttentionVariant:
    """What an attention kernel is compiled for: the tile of both products, and what happens to scores between them."""

    rows: int
    vectors: int
    lanes: int
    dtype: str
    scale: float
    mask: MaskUse
    no_nan: bool

    @property
    def columns(self) -> int:
        """Keys of a panel, and columns of a panel of values."""
        return self.vectors * self.lanes

    @property
    def scores(self) -> ContractionVariant:
        """The micro-kernel of q k^T; `rest` takes what is left of a row of q."""
        return ContractionVariant(self.rows, self.vectors, self.lanes, "rows", 4, dtype=self.dtype)

    @property
    def sums(self) -> ContractionVariant:
        """The micro-kernel of weights times v: a round is one panel of keys."""
        return ContractionVariant(self.rows, self.vectors, self.lanes, "rows", self.columns, dtype=self.dtype)

    @property
    def panels_per_chunk(self) -> int:
        """Panels of keys whose values are packed together: a quarter of a small L1."""
        return max(1, 8192 // (self.columns * self.columns * np.dtype(self.dtype).itemsize))


@dataclass(frozen=True, slots=True)
class AttentionSchedule:
    """How a problem is computed: row tiles a task, tasks, and the scratch memory of a thread in elements."""

    variant: AttentionVariant
    tiles_per_task: int
    row_tasks: int
    tasks: int
    packed_size: int
    scores_size: int
    scratch_size: int


def _tiles(machine: Machine) -> list[tuple[int, int]]:
    """Few: the largest tiles, and some for a row or a handful of them."""
    most: dict[int, int] = {}
    for rows, vectors in register_tiles(machine):
        if vectors <= 4:
            most[vectors] = max(rows, most.get(vectors, 0))
    return [(rows, v) for v, largest in most.items() for rows in sorted({1, min(4, largest), largest})]


def schedule(
    problem: AttentionProblem, machine: Machine, threads: int, scale: float, mask: MaskUse, no_nan: bool
) -> AttentionSchedule:
    """The tile that suits both products, and tasks that keep their scores in L2 and are enough for all threads."""
    p, itemsize = problem, np.dtype(problem.dtype).itemsize
    lanes = machine.isa.lanes(itemsize)
    products = (GemmProblem(p.m, p.n, p.d, dtype=p.dtype), GemmProblem(p.m, p.e, p.n, dtype=p.dtype))
    rows, vectors = min(_tiles(machine), key=lambda t: sum(estimated_cycles(g, machine, t, lanes) for g in products))
    variant = AttentionVariant(rows, vectors, lanes, p.dtype, scale, mask, no_nan)
    panels = ceil_div(p.n, variant.columns)
    tile_size = panels * rows * variant.columns
    row_tiles = ceil_div(p.m, rows)
    most = max(1, int(machine.l2_bytes * L2_SHARE) // (itemsize * (tile_size + rows * p.d)))
    per_task = min(row_tiles, max(most, 1))
    if threads > 1 and p.batch * p.heads < 4 * threads:
        wanted = ceil_div(row_tiles * p.batch * p.heads, 4 * threads)
        per_task = min(per_task, max(wanted, ceil_div(WORTH_PACKING, rows)))
    row_tasks = ceil_div(row_tiles, per_task)
    per_task = ceil_div(row_tiles, row_tasks)
    steps = max(p.d, min(p.n, variant.panels_per_chunk * variant.columns))
    packed_size = steps * variant.columns
    scores_size = per_task * tile_size
    scratch = packed_size + scores_size + per_task * rows * (variant.columns + lanes + 1)
    return AttentionSchedule(
        variant, per_task, row_tasks, p.batch * p.heads * row_tasks, packed_size, scores_size, scratch
    )
