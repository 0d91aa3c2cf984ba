"""How a convolution or a matrix product is computed: as estimated, or as measured on this machine.

The estimates are those of `graphc.kernels.contraction`, `graphc.kernels.winograd` and `graphc.kernels.strassen`. A
`Choice` replaces them for one problem; `graphc.runtime.tuning` measures choices and keeps them. Layout and lowering both
ask here, so that the weights are packed for the kernel that reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from graphc.ir.dims import ceil_div
from graphc.kernels.contraction import Schedule, schedule
from graphc.kernels.machine import Machine
from graphc.kernels.problems import ConvProblem, GemmProblem, Problem
from graphc.kernels.strassen import StrassenPlan, StrassenProblem, inner_steps
from graphc.kernels.strassen import plan as plan_strassen
from graphc.kernels.strassen import worthwhile as worthwhile_strassen
from graphc.kernels.winograd import WinogradPlan, affordable_tiles
from graphc.kernels.winograd import plan as plan_winograd
from graphc.kernels.winograd import worthwhile as worthwhile_winograd

__all__ = [
    "ALGORITHMS", "Asked", "Choice", "Questions", "as_halves", "asking", "choose", "choose_product", "estimated",
    "filtering_plan", "install", "key_of", "strassen_plan", "using",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """The tile held in registers, `rows` x `vectors`; the output tile of a minimal filtering, or the levels of Strassen's
    algorithm. With neither it is the plain sum."""

    rows: int
    vectors: int
    tile: tuple[int, int] | None = None
    levels: int = 0

    @property
    def plain(self) -> bool:
        """Whether the sum is computed as it is."""
        return self.tile is None and not self.levels


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem that a compilation asked about, and the `algorithms` allowed beside the plain sum; `weight_bytes` are
    those of the plain weights."""

    problem: Problem
    machine: Machine
    threads: int
    algorithms: frozenset[str] = frozenset()
    weight_bytes: int = 0


#: algorithms that do less arithmetic and round otherwise than the plain sum
ALGORITHMS = frozenset({"strassen", "winograd"})


@dataclass
class Questions:
    """The problems that a compilation asked about, by key, and how many kernels of it compute each."""

    asked: dict[str, Asked] = field(default_factory=dict)
    lowered: Counter[str] = field(default_factory=Counter)

    def note(self, question: Asked, *, lowered: bool) -> None:
        """Remember a question, asked by the layout pass or, once it is settled, while lowering."""
        key = key_of(question.problem, question.machine, question.threads)
        self.lowered[key] += lowered
        self.asked.setdefault(key, question)


Table = Mapping[str, Choice]

_kept: Callable[[], Table] = dict
_table: ContextVar[Table | None] = ContextVar("graphc_choices", default=None)
_questions: ContextVar[Questions | None] = ContextVar("graphc_questions", default=None)


def install(kept: Callable[[], Table]) -> None:
    """Say where measured choices are kept: a function that gives the table, called whenever one is needed."""
    global _kept
    _kept = kept


@contextmanager
def using(table: Table | None) -> Iterator[None]:
    """Inside the block these choices hold; None: those that are kept."""
    token = _table.set(table)
    try:
        yield
    finally:
        _table.reset(token)


@contextmanager
def asking() -> Iterator[Questions]:
    """Collect the problems that compilations inside the block ask about."""
    questions = Questions()
    token = _questions.set(questions)
    try:
        yield questions
    finally:
        _questions.reset(token)


def key_of(problem: Problem, machine: Machine, threads: int) -> str:
    """A problem as text, the same for equal work: what a choice is kept under. What goes without saying is left out."""
    p = problem
    if isinstance(p, GemmProblem):
        count = p.batch * p.groups
        parts = [f"product {p.m}x{p.k} by {p.k}x{p.n}", f"{count} of them" * (count > 1)]
        parts.append(f"step {p.step_stride}" * (p.step_stride != 1))
    else:
        parts = [f"conv {p.channels}x{p.height}x{p.width} to {p.filters} by {p.kernel[0]}x{p.kernel[1]}"]
        named = {"stride": p.stride, "dilation": p.dilation}
        parts += [f"{name} {n[0]}x{n[1]}" for name, n in named.items() if n != (1, 1)]
        parts += [f"pads {' '.join(map(str, p.pads))}" * any(p.pads), f"{p.groups} groups" * (p.groups > 1)]
        parts += [f"{p.batch} images" * (p.batch > 1), f"blocks of {p.block}", "picked channels" * p.picked]
    parts += [p.dtype * (p.dtype != "float32"), machine.isa.name, f"{threads} thread{'s' * (threads != 1)}"]
    return ", ".join(filter(None, parts))


def _measured(problem: Problem, machine: Machine, threads: int) -> Choice | None:
    table = _table.get()
    if table is None:
        table = _kept()
    return table.get(key_of(problem, machine, threads)) if table else None


def choose_product(problem: Problem, machine: Machine, threads: int, vectors: int) -> Schedule:
    """The schedule of the plain sum with weights packed for panels of so many vectors."""
    if (q := _questions.get()) is not None:
        q.note(Asked(problem, machine, threads), lowered=True)
    found = _measured(problem, machine, threads)
    if found is not None and found.plain and vectors == found.vectors:
        return schedule(problem, machine, threads, rows=found.rows, vectors=found.vectors)
    return schedule(problem, machine, threads, vectors=vectors)


def choose(
    problem: Problem,
    machine: Machine,
    threads: int,
    algorithms: frozenset[str] = frozenset(),
    weight_bytes: int = 0,
) -> Schedule | WinogradPlan | StrassenPlan:
    """How to compute a convolution or a product: as the sum that it is, or by whichever of the `algorithms` is faster.

    `weight_bytes` are those of the plain weights, which bound what packed ones may take.
    """
    if (q := _questions.get()) is not None:
        q.note(Asked(problem, machine, threads, algorithms, weight_bytes), lowered=False)
    found = _measured(problem, machine, threads)
    halved = as_halves(problem, machine) if "strassen" in algorithms else None
    filters = isinstance(problem, ConvProblem) and "winograd" in algorithms
    if found is not None and found.plain:
        return schedule(problem, machine, threads, rows=found.rows, vectors=found.vectors)
    if found is not None and found.levels and halved is not None and halved.applies(found.levels):
        return plan_strassen(halved, machine, threads, found.levels, rows=found.rows, vectors=found.vectors)
    if isinstance(problem, ConvProblem) and filters:
        tiles = affordable_tiles(problem, weight_bytes, machine)
        if found is not None and found.tile is not None and found.tile in tiles:
            return plan_winograd(problem, found.tile, machine, threads, rows=found.rows, vectors=found.vectors)
    best = estimated(problem, machine, algorithms, weight_bytes)
    if isinstance(problem, ConvProblem) and isinstance(best, WinogradPlan):
        return plan_winograd(problem, best.variant.tile, machine, threads)
    if halved is not None and isinstance(best, StrassenPlan):
        v = best.variant
        return plan_strassen(halved, machine, threads, v.levels, rows=v.product.rows, vectors=v.product.vectors)
    return schedule(problem, machine, threads)


@lru_cache(maxsize=4096)
def estimated(
    problem: Problem, machine: Machine, algorithms: frozenset[str] = frozenset(), weight_bytes: int = 0
) -> Schedule | WinogradPlan | StrassenPlan:
    """What one thread would take least time for. The algorithm is chosen by this, whatever the number of threads is, so
    that results do not depend on it."""
    direct = schedule(problem, machine, 1)
    if isinstance(problem, ConvProblem) and "winograd" in algorithms:
        filtered = worthwhile_winograd(problem, weight_bytes, direct, machine, 1)
        if filtered is not None:
            return filtered
    halved = as_halves(problem, machine) if "strassen" in algorithms else None
    return (worthwhile_strassen(halved, direct, machine, 1) if halved is not None else None) or direct


def as_halves(problem: Problem, machine: Machine) -> StrassenProblem | None:
    """The problem as Strassen's algorithm takes it: a product with one right operand, or a pointwise convolution."""
    lanes = machine.isa.lanes(np.dtype(problem.dtype).itemsize)
    if isinstance(problem, ConvProblem):
        if not problem.pointwise or problem.picked or problem.groups > 1 or problem.block != lanes:
            return None
        columns = ceil_div(problem.filters, lanes) * lanes
        halved = StrassenProblem(
            problem.rows, columns, problem.steps, problem.batch, lanes, problem.dtype, guarded=False
        )
    else:
        if problem.batch * problem.groups > 1 or problem.step_stride != 1:
            return None
        halved = StrassenProblem(problem.m, problem.n, problem.k, 1, inner_steps(lanes), problem.dtype)
    return halved if halved.applies(1) else None


def filtering_plan(
    problem: ConvProblem, tile: tuple[int, int], machine: Machine, threads: int, vectors: int
) -> WinogradPlan:
    """The plan of a minimal filtering whose weights are packed."""
    if (q := _questions.get()) is not None:
        q.note(Asked(problem, machine, threads), lowered=True)
    found = _measured(problem, machine, threads)
    rows = found.rows if found is not None and (found.tile, found.vectors) == (tile, vectors) else None
    return plan_winograd(problem, tile, machine, threads, rows=rows, vectors=vectors)


def strassen_plan(
    problem: Problem, halved: StrassenProblem, machine: Machine, threads: int, levels: int, vectors: int
) -> StrassenPlan:
    """The plan of a product by Strassen's algorithm whose right operand is packed."""
    if (q := _questions.get()) is not None:
        q.note(Asked(problem, machine, threads), lowered=True)
    found = _measured(problem, machine, threads)
    if found is not None and (found.levels, found.vectors) == (levels, vectors):
        rows = found.rows
    else:  # which rows are added does not depend on the number of threads
        rows = plan_strassen(halved, machine, 1, levels, vectors=vectors).variant.product.rows
    return plan_strassen(halved, machine, threads, levels, rows=rows, vectors=vectors)
