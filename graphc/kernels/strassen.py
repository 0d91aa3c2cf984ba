"""Matrix products by Strassen's algorithm as data: seven products of half the size in place of eight.

Rows, columns and steps are cut in halves, A = [[A11, A12], [A21, A22]] and B likewise. Winograd's form of the algorithm
(Strassen, Gaussian elimination is not optimal, 1969; Huss-Lederman et al., SC 1996):

    left:   A11    A12    S4 = A12 - S2    A22    S1 = A21 + A22    S2 = S1 - A11    S3 = A11 - A21
    right:  B11    B21    B22              T4     T1 = B12 - B11    T2 = B22 - T1    T3 = B22 - B12     T4 = T2 - B21

    C11 = P1 + P2                 C12 = P1 + P6 + P5 + P3
    C21 = P1 + P6 + P7 - P4       C22 = P1 + P6 + P7 + P5

The right operand is constant, so its seven matrices are made when it is packed. Pairs are neighbours: two tiles of rows,
two panels of columns. Steps are the channels of a pointwise convolution, or the columns of a dense matrix; halves are
whole rounds, and of an odd number the first half has one more. One level of it saves an eighth of the multiplications and costs a few passes over vectors that stay
in L2; its error grows by a small factor, which `tests/kernels/test_strassen.py` bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.kernels.contraction import ContractionVariant, Schedule, register_tiles
from graphc.kernels.machine import Machine

__all__ = [
    "MATRICES",
    "PRODUCTS",
    "RATIO",
    "SLOTS",
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
#: what is packed where rows are guarded: B12 too, which no product reads
MATRICES = 8
#: the largest quotient of the largest elements of two halves that are added: its logarithm is what may be lost
RATIO = 64.0
#: left operands that are sums, kept in scratch memory: S1, S2, S3, S4
SUMS = 4

#: The argument block: int64 slots in this order, then those of the epilogue. Distances count elements.
SLOTS = (
    "x",                                      # address of the left operand
    "w",                                      # address of the packed right operand
    "x_batch", "row_stride", "step_stride",   # of the left operand: between batches, rows, and rounds of steps
    "rows_total", "columns_total",            # of y in a batch
    "rounds", "second_rounds",                # rounds in the first half of the steps, and in the second
    "panel_pairs",
    "pairs_per_task", "row_tasks", "panels_per_task", "column_tasks",
    "sum_stride", "product_stride",           # distances in scratch memory: between left sums, between products
)  # fmt: skip

#: estimated gain below which the plain product is taken: the model is not exact, and plain is simpler
MUST_SAVE = 0.97
#: cycles a vector: of making the left sums, and of the sums of products behind a result; and how much more where rows are
#: guarded. Measured: a matrix of 64 steps loses up to 8 %, one of 128 gains nothing, one of 256 a tenth
LEFT_CYCLES, RESULT_CYCLES = 3.5, 4.0
GUARDED_LEFT_CYCLES, GUARDED_RESULT_CYCLES = 1.0, 6.0
#: what weights cost beyond those of the plain product, which come from memory at each run of a model: they are not
#: hidden behind the arithmetic as well as in a loop over one layer
MORE_BYTES_PER_CYCLE_MATRIX, MORE_BYTES_PER_CYCLE_IMAGE = 10.0, 6.0  # measured on MiniLM, and on resnet50


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

    @property
    def applies(self) -> bool:
        """Whether both halves of the steps are whole rounds."""
        return self.k % self.inner == 0 and self.k >= 2 * self.inner

    @property
    def rounds(self) -> int:
        """Rounds of the first half of the steps."""
        return ceil_div(self.k // self.inner, 2)

    @property
    def flops(self) -> int:
        """Of the plain product."""
        return 2 * self.batch * self.m * self.n * self.k


@dataclass(frozen=True, slots=True)
class StrassenVariant:
    """What a kernel is compiled for: the micro-kernel of its products, mode "rows".

    `guarded`: pairs of row tiles whose rows differ too much in size to be added, or are not finite, take all eight products.
    """

    product: ContractionVariant
    guarded: bool


@dataclass(frozen=True, slots=True)
class StrassenPlan:
    """How a product is computed. `steps` are those of the first half; `cycles` is the model's estimate for the busiest
    thread."""

    variant: StrassenVariant
    pairs_per_task: int
    row_tasks: int
    panels_per_task: int
    column_tasks: int
    tasks: int
    steps: int
    sum_stride: int
    product_stride: int
    cycles: float

    @property
    def scratch_bytes(self) -> int:
        elements = SUMS * self.sum_stride + PRODUCTS * self.product_stride + self.pairs_per_task
        return elements * np.dtype(self.variant.product.dtype).itemsize


def column_scales(w: np.ndarray, columns: int) -> np.ndarray | None:
    """Powers of two for the columns of a right operand w[K, N] to be divided by first.

    Columns that are added must be of like size, or one spoils the other. Those of weights often differ by much, but
    dividing by powers of two is exact, and so is multiplying the results. All 1 where the columns are alike as they
    are; None where some are not finite.
    """
    n = w.shape[1]
    top = np.maximum(w.max(axis=0, initial=0), -w.min(axis=0, initial=0)).astype(np.float64)
    if not (top < 1e30).all():
        return None
    pairs = np.zeros((ceil_div(n, 2 * columns), 2, columns))
    pairs.reshape(-1)[:n] = top
    used = (pairs > 0).all(axis=1)  # a column beside zeros has nothing to lose
    if (pairs.max(axis=1) <= RATIO * pairs.min(axis=1))[used].all():
        return np.ones(n, w.dtype)
    scales: np.ndarray = np.exp2(np.round(np.log2(np.where(top > 0, top, 1.0)))).astype(w.dtype)
    return scales


def inner_steps(lanes: int) -> int:
    """Steps of a round of a dense matrix: whole vectors, and enough to unroll."""
    return max(16, lanes)


def worthwhile(problem: StrassenProblem, direct: Schedule, machine: Machine, threads: int) -> StrassenPlan | None:
    """The plan that is estimated to beat the plain product, or None."""
    if not problem.applies:
        return None
    best = plan(problem, machine, threads)
    return best if best.cycles < MUST_SAVE * direct.cycles else None


def plan(
    problem: StrassenProblem, machine: Machine, threads: int, rows: int | None = None, vectors: int | None = None
) -> StrassenPlan:
    """The plan with the least estimated time; `rows` and `vectors` force the tile that is held in registers."""
    choices = [t for t in register_tiles(machine) if t[0] > 1 and rows in (None, t[0]) and vectors in (None, t[1])]
    if rows is not None and vectors is not None:
        choices = [(rows, vectors)]
    plans = [_plan(problem, machine, max(1, threads), *t) for t in choices]
    # A tile that loads more for its arithmetic waits more for caches.
    return min(plans, key=lambda p: p.cycles * pressure(p.variant.product))


def pressure(tile: ContractionVariant) -> float:
    """What a tile's loads make its time count for when tiles are compared."""
    return 1 + 0.15 * (tile.rows + 2 * tile.vectors) / (tile.rows * tile.vectors)


def _plan(problem: StrassenProblem, machine: Machine, threads: int, rows: int, vectors: int) -> StrassenPlan:
    itemsize = np.dtype(problem.dtype).itemsize
    lanes = machine.isa.lanes(itemsize)
    v = ContractionVariant(rows, vectors, lanes, "rows", problem.inner, problem.n % lanes != 0, problem.dtype)
    pairs, panel_pairs = ceil_div(problem.m, 2 * rows), ceil_div(problem.n, 2 * v.columns)
    half = problem.rounds * problem.inner
    # The left sums and one panel pair's products stay in L2.
    most = max(1, machine.l2_bytes * 5 // 8 // (itemsize * rows * (SUMS * half + PRODUCTS * v.columns)))
    isa = machine.isa
    step = max(rows * vectors / isa.fma_per_cycle, isa.fma_latency, (rows + vectors) / isa.loads_per_cycle)
    tile = PRODUCTS * (half * step + 20 + 2 * rows * vectors)
    more = (
        panel_pairs
        * ((MATRICES if problem.guarded else PRODUCTS) - 4)
        * half
        * v.columns
        * itemsize
        / (MORE_BYTES_PER_CYCLE_MATRIX if problem.guarded else MORE_BYTES_PER_CYCLE_IMAGE)
    )
    best: tuple[float, int, int] | None = None
    for row_cuts in {ceil_div(pairs, most) * k for k in (1, 2, 3, 4)} | {2 * threads, 4 * threads}:
        each = ceil_div(pairs, min(pairs, row_cuts))
        if each > most:
            continue
        for column_cuts in range(1, min(panel_pairs, 4 * threads) + 1):
            wide = ceil_div(panel_pairs, column_cuts)
            tasks = problem.batch * ceil_div(pairs, each) * ceil_div(panel_pairs, wide)
            left = each * 2 * rows * problem.k / lanes * (LEFT_CYCLES + problem.guarded * GUARDED_LEFT_CYCLES)
            result = RESULT_CYCLES + problem.guarded * GUARDED_RESULT_CYCLES
            results = each * wide * 4 * rows * vectors * result
            weights = threads * wide * PRODUCTS * half * v.columns * itemsize
            products = max(each * wide * tile, weights / machine.stream_bytes_per_cycle)
            cycles = (left + products + results + 400) * ceil_div(tasks, threads) + more
            if best is None or cycles < best[0]:
                best = cycles, each, wide
    assert best is not None
    cycles, each, wide = best
    return StrassenPlan(
        StrassenVariant(v.shared_by(each), problem.guarded), each, ceil_div(pairs, each), wide, ceil_div(panel_pairs, wide),
        problem.batch * ceil_div(pairs, each) * ceil_div(panel_pairs, wide), half,
        # one line more, so that sums and products of one place do not meet in one set of L1
        each * rows * half + lanes, each * rows * v.columns + lanes, cycles,
    )  # fmt: skip


def arguments(problem: StrassenProblem, p: StrassenPlan) -> dict[str, int]:
    """The slots of `SLOTS` that hold sizes; the caller adds the addresses and the strides of the left operand."""
    v = p.variant.product
    return {
        "rows_total": problem.m, "columns_total": problem.n, "rounds": problem.rounds, "second_rounds": problem.k // problem.inner - problem.rounds,
        "panel_pairs": ceil_div(problem.n, 2 * v.columns),
        "pairs_per_task": p.pairs_per_task, "row_tasks": p.row_tasks,
        "panels_per_task": p.panels_per_task, "column_tasks": p.column_tasks,
        "sum_stride": p.sum_stride, "product_stride": p.product_stride,
    }  # fmt: skip
