"""Matrix products by Strassen's algorithm as data: seven products of half the size in place of eight.

Rows, columns and steps are cut in halves, A = [[A11, A12], [A21, A22]] and B likewise. Winograd's form of the algorithm
(Strassen, Gaussian elimination is not optimal, 1969; Huss-Lederman et al., SC 1996):

    left:   A11    A12    S4 = A12 - S2    A22    S1 = A21 + A22    S2 = S1 - A11    S3 = A11 - A21
    right:  B11    B21    B22              T4     T1 = B12 - B11    T2 = B22 - T1    T3 = B22 - B12     T4 = T2 - B21

    C11 = P1 + P2                 C12 = P1 + P6 + P5 + P3
    C21 = P1 + P6 + P7 - P4       C22 = P1 + P6 + P7 + P5

A product of half the size can be made so again: two levels, 49 products in place of 64. A *group* is 2 (or 4) tiles of
rows and as many panels of columns, neighbours; the steps are cut into as many *parts*. Steps are the channels of a
pointwise convolution, or the columns of a dense matrix; parts are whole rounds, and of an odd number the first of two has
one more. The right operand is constant, so all its matrices are made when it is packed.

A level saves an eighth of the multiplications and costs a few passes over vectors that stay in L2; the error grows by a
small factor with each, which `tests/kernels/test_strassen.py` bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.kernels.contraction import ContractionVariant, Schedule, pressure, product_cycles, register_tiles
from graphc.kernels.machine import Machine
from graphc.ops.strassen import matrices

__all__ = [
    "ADDRESSES",
    "LEVELS",
    "NUMBERS",
    "PRODUCTS",
    "RATIO",
    "SUMS",
    "StrassenPlan",
    "StrassenProblem",
    "StrassenVariant",
    "arguments",
    "column_scales",
    "inner_steps",
    "plan",
    "worthwhile",
]  # fmt: skip

PRODUCTS = 7
#: how often a product may be cut in halves
LEVELS = (1, 2)
#: the largest quotient of the largest elements of two halves that are added: its logarithm is what may be lost
RATIO = 64.0
#: left operands of a level that are sums, kept in scratch memory: S1, S2, S3, S4
SUMS = 4

#: The argument block: addresses, then numbers, as in `contraction`.
ADDRESSES = (
    "x",                                      # address of the left operand
    "w",                                      # address of the packed right operand
)  # fmt: skip
NUMBERS = (
    "x_batch", "row_stride", "step_stride",   # of the left operand: between batches, rows, and rounds of steps
    "rows_total", "columns_total",            # of y in a batch
    "rounds", "all_rounds",                   # rounds of the first part of the steps, and of all
    "panel_groups",
    "groups_per_task", "row_tasks", "panels_per_task", "column_tasks",  # of rows and panels: groups
)  # fmt: skip

#: estimated gain below which the plain product is taken: the model is not exact, and plain is simpler
MUST_SAVE = 0.97
#: and a second level's, below which one is taken
SECOND_MUST_SAVE = 0.98
#: cycles a vector: of bringing the left operand together, of a level's left sums, of the sums behind a level's products,
#: and of a result; and how much more where rows are guarded
GATHER_CYCLES, LEFT_CYCLES, COMBINE_CYCLES, RESULT_CYCLES = 2.0, 3.5, 3.0, 1.5
GUARDED_LEFT_CYCLES, GUARDED_RESULT_CYCLES = 1.0, 3.0
#: the addresses of more rows do not stay in registers beside those of two levels, and LLVM spills vectors then
ROWS_OF_TWO_LEVELS = 11
#: bytes a cycle of weights that tasks read again from beyond L2: hidden but for so much
AGAIN_BYTES_PER_CYCLE = 80.0
#: what weights cost beyond those of the plain product, which come from memory at each run of a model: they are not
#: hidden behind the arithmetic as well as in a loop over one layer
MORE_BYTES_PER_CYCLE_MATRIX, MORE_BYTES_PER_CYCLE_IMAGE = 40.0, 10.0  # measured on MiniLM, and on resnet50


@dataclass(frozen=True, slots=True)
class StrassenProblem:
    """y[b] = x[b] @ w with `m` rows, `n` columns and `k` steps for `batch` images or matrices.

    A round is `inner` steps that lie side by side. `guarded`: rows are independent of each other (those of a matrix, not
    the pixels of an image), and one must not spoil another.
    """

    m: int
    n: int
    k: int
    batch: int = 1
    inner: int = 16
    dtype: str = "float32"
    guarded: bool = True

    def applies(self, levels: int) -> bool:
        """Whether the parts of the steps are whole rounds, and those of two levels equal."""
        return self.k % (self.inner * (4 if levels == 2 else 1)) == 0 and self.k >= 2 * self.inner

    def rounds(self, levels: int) -> int:
        """Rounds of the first part of the steps."""
        return ceil_div(self.k // self.inner, 2**levels)

    @property
    def flops(self) -> int:
        """Of the plain product."""
        return 2 * self.batch * self.m * self.n * self.k


@dataclass(frozen=True, slots=True)
class StrassenVariant:
    """What a kernel is compiled for: the micro-kernel of its products, mode "rows".

    `guarded`: groups of row tiles whose rows differ too much in size to be added, or are not finite, take all products that
    the sum is defined by.
    """

    product: ContractionVariant
    guarded: bool
    levels: int = 1

    @property
    def tiles(self) -> int:
        """Row tiles and panels of a group, parts of the steps."""
        return int(2**self.levels)

    @property
    def count(self) -> int:
        """Products of a group."""
        return int(PRODUCTS**self.levels)

    def scratch_elements(self, groups: int, part: int) -> int:
        """Scratch memory for so many groups of rows and parts of `part` elements, as
        `graphc.codegen.cpu.templates.halves.scratch_lines` lays it out."""
        v, tiles = self.product, self.tiles
        first = tiles // 2
        left = SUMS * (first * v.rows * first * part + v.lanes)
        if self.levels == 2:
            left += tiles * v.rows * (tiles * part + v.lanes) + SUMS * PRODUCTS * (v.rows * part + v.lanes)
        tops = groups + 4 * first * first * v.rows
        return groups * left + self.count * (groups * v.rows * v.columns + v.lanes) + tops


@dataclass(frozen=True, slots=True)
class StrassenPlan:
    """How a product is computed; rows and panels of a task count groups. `part` are the steps of a part, `cycles` is the
    model's estimate for the busiest thread."""

    variant: StrassenVariant
    groups_per_task: int
    row_tasks: int
    panels_per_task: int
    column_tasks: int
    tasks: int
    part: int
    cycles: float

    @property
    def channels(self) -> int:
        """Steps, filled up to whole parts."""
        return self.variant.tiles * self.part

    @property
    def scratch_bytes(self) -> int:
        elements = self.variant.scratch_elements(self.groups_per_task, self.part)
        return elements * np.dtype(self.variant.product.dtype).itemsize


def column_scales(w: np.ndarray, columns: int, levels: int = 1) -> np.ndarray | None:
    """Powers of two for the columns of a right operand w[K, N] to be divided by first.

    Columns that are added must be of like size, or one spoils the other. Those of weights often differ by much, but
    dividing by powers of two is exact, and so is multiplying the results. All 1 where the columns are alike as they
    are; None where some are not finite.
    """
    n = w.shape[1]
    top = np.maximum(w.max(axis=0, initial=0), -w.min(axis=0, initial=0)).astype(np.float64)
    if not (top < 1e30).all():
        return None
    groups = np.zeros((ceil_div(n, 2**levels * columns), 2**levels, columns))
    groups.reshape(-1)[:n] = top
    least = np.where(groups > 0, groups, np.inf).min(axis=1)  # a column beside zeros has nothing to lose
    if (groups.max(axis=1) <= RATIO * least).all():
        return np.ones(n, w.dtype)
    scales: np.ndarray = np.exp2(np.round(np.log2(np.where(top > 0, top, 1.0)))).astype(w.dtype)
    return scales


def inner_steps(lanes: int) -> int:
    """Steps of a round of a dense matrix: whole vectors, and enough to unroll."""
    return max(16, lanes)


def worthwhile(problem: StrassenProblem, direct: Schedule, machine: Machine, threads: int) -> StrassenPlan | None:
    """The plan that is estimated to beat the plain product, or None.

    Images get one level: the weights of two, three times the plain ones, come from memory at each run of a model, and an
    image has too few rows to make up for that and for one more kernel to compile (measured on resnet50).
    """
    tried = LEVELS if problem.guarded else LEVELS[:1]
    plans = [plan(problem, machine, threads, levels) for levels in tried if problem.applies(levels)]
    best = min(plans, key=lambda p: p.cycles * SECOND_MUST_SAVE ** (1 - p.variant.levels), default=None)
    return best if best is not None and best.cycles < MUST_SAVE * direct.cycles else None


def plan(
    problem: StrassenProblem,
    machine: Machine,
    threads: int,
    levels: int,
    rows: int | None = None,
    vectors: int | None = None,
) -> StrassenPlan:
    """The plan with the least estimated time; `rows` and `vectors` force the tile that is held in registers."""
    most = ROWS_OF_TWO_LEVELS if levels == 2 else max(t[0] for t in register_tiles(machine))
    choices = [
        t for t in register_tiles(machine) if 1 < t[0] <= most and rows in (None, t[0]) and vectors in (None, t[1])
    ]
    if rows is not None and vectors is not None:
        choices = [(rows, vectors)]
    plans = [_plan(problem, machine, max(1, threads), levels, *t) for t in choices]
    return min(plans, key=lambda p: p.cycles * pressure(p.variant.product.rows, p.variant.product.vectors))


def overhead(levels: int, guarded: bool) -> tuple[float, float]:
    """Cycles besides the products, on all levels: of a vector of the left operand, and of a vector of the result."""
    growth = [(PRODUCTS / 4) ** level for level in range(levels)]
    left = GATHER_CYCLES + LEFT_CYCLES * sum(growth) + guarded * GUARDED_LEFT_CYCLES
    return left, COMBINE_CYCLES * sum(growth) + RESULT_CYCLES + guarded * GUARDED_RESULT_CYCLES


def _plan(
    problem: StrassenProblem, machine: Machine, threads: int, levels: int, rows: int, vectors: int
) -> StrassenPlan:
    itemsize = np.dtype(problem.dtype).itemsize
    lanes = machine.isa.lanes(itemsize)
    v = ContractionVariant(rows, vectors, lanes, "rows", problem.inner, problem.n % lanes != 0, problem.dtype)
    variant = StrassenVariant(v, problem.guarded, levels)
    tiles, count = variant.tiles, variant.count
    row_groups, panel_groups = ceil_div(problem.m, tiles * rows), ceil_div(problem.n, tiles * v.columns)
    part = problem.rounds(levels) * problem.inner
    # What a task multiplies and one group of panels' products stay in L2.
    most = max(1, machine.l2_bytes * 5 // 8 // (itemsize * variant.scratch_elements(1, part)))
    tile = count * product_cycles(machine.isa, rows, vectors, part)
    more_a_cycle = MORE_BYTES_PER_CYCLE_MATRIX if problem.guarded else MORE_BYTES_PER_CYCLE_IMAGE
    more = panel_groups * (matrices(levels, problem.guarded) - tiles**2) * part * v.columns * itemsize / more_a_cycle
    left_cycles, result_cycles = overhead(levels, problem.guarded)
    best: tuple[float, int, int] | None = None
    for row_cuts in {ceil_div(row_groups, most) * k for k in (1, 2, 3, 4)} | {2 * threads, 4 * threads}:
        each = ceil_div(row_groups, min(row_groups, row_cuts))
        if each > most:
            continue
        for column_cuts in range(1, min(panel_groups, 4 * threads) + 1):
            wide = ceil_div(panel_groups, column_cuts)
            tasks = problem.batch * ceil_div(row_groups, each) * ceil_div(panel_groups, wide)
            left = each * tiles * rows * problem.k / lanes * left_cycles
            results = each * wide * tiles**2 * rows * vectors * result_cycles
            weights = wide * count * part * v.columns * itemsize
            products = max(each * wide * tile, weights / machine.shared_bytes_per_cycle)
            again = weights / AGAIN_BYTES_PER_CYCLE
            cycles = (left + products + results + again + 400) * ceil_div(tasks, threads) + more
            if best is None or cycles < best[0]:
                best = cycles, each, wide
    assert best is not None
    cycles, each, wide = best
    row_tasks, column_tasks = ceil_div(row_groups, each), ceil_div(panel_groups, wide)
    variant = StrassenVariant(v.shared_by(each), problem.guarded, levels)
    return StrassenPlan(
        variant, each, row_tasks, wide, column_tasks, problem.batch * row_tasks * column_tasks, part, cycles
    )


def arguments(problem: StrassenProblem, p: StrassenPlan) -> dict[str, int]:
    """The `NUMBERS` that are sizes; the caller adds the addresses and the strides of the left operand."""
    v = p.variant.product
    return {
        "rows_total": problem.m, "columns_total": problem.n,
        "rounds": p.part // problem.inner, "all_rounds": problem.k // problem.inner,
        "panel_groups": ceil_div(problem.n, p.variant.tiles * v.columns),
        "groups_per_task": p.groups_per_task, "row_tasks": p.row_tasks,
        "panels_per_task": p.panels_per_task, "column_tasks": p.column_tasks,
    }  # fmt: skip
