"""How a convolution or a matrix product is computed: as estimated, or as measured on this machine.

The estimates are those of `graphc.kernels.contraction` and `graphc.kernels.winograd`. A `Choice` replaces them for one
problem; `graphc.runtime.tuning` measures choices and keeps them. Layout and lowering both ask here, so that the weights
are packed for the kernel that reads them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from graphc.kernels.contraction import ConvProblem, GemmProblem, Problem, Schedule, schedule
from graphc.kernels.machine import Machine
from graphc.kernels.winograd import WinogradPlan, affordable_tiles, plan, worthwhile

__all__ = [
    "Asked", "Choice", "Questions", "asking", "choose_convolution", "choose_product", "filtering_plan", "install", "key_of", "using",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """The tile held in registers, `rows` x `vectors`, and the output tile of a minimal filtering (None: the plain sum)."""

    rows: int
    vectors: int
    tile: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem that a compilation asked about. `weight_bytes` is None where minimal filtering is not allowed."""

    problem: Problem
    machine: Machine
    threads: int
    weight_bytes: int | None = None


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
        parts += [f"{p.batch} images" * (p.batch > 1), f"blocks of {p.block}"]
    parts += [p.dtype * (p.dtype != "float32"), machine.isa.name, f"{threads} thread{'s' * (threads != 1)}"]
    return ", ".join(filter(None, parts))


def _measured(problem: Problem, machine: Machine, threads: int) -> Choice | None:
    table = _table.get()
    if table is None:
        table = _kept()
    return table.get(key_of(problem, machine, threads)) if table else None


def choose_product(problem: Problem, machine: Machine, threads: int, vectors: int | None = None) -> Schedule:
    """The schedule of a product, or of a convolution as the sum that it is; `vectors` when the weights are packed."""
    if (q := _questions.get()) is not None:
        q.note(Asked(problem, machine, threads), lowered=vectors is not None)
    found = _measured(problem, machine, threads)
    if found is not None and found.tile is None and vectors in (None, found.vectors):
        return schedule(problem, machine, threads, rows=found.rows, vectors=found.vectors)
    return schedule(problem, machine, threads, vectors=vectors)


def choose_convolution(
    problem: ConvProblem, machine: Machine, threads: int, weight_bytes: int | None
) -> Schedule | WinogradPlan:
    """How to compute a convolution: the plain sum, or by minimal filtering where that is allowed (`weight_bytes`, those
    of the plain weights, is not None) and faster."""
    if (q := _questions.get()) is not None:
        q.note(Asked(problem, machine, threads, weight_bytes), lowered=False)
    found = _measured(problem, machine, threads)
    if found is not None and found.tile is None:
        return schedule(problem, machine, threads, rows=found.rows, vectors=found.vectors)
    tiles = affordable_tiles(problem, weight_bytes, machine) if weight_bytes is not None else ()
    if found is not None and found.tile is not None and found.tile in tiles:
        return plan(problem, found.tile, machine, threads, rows=found.rows, vectors=found.vectors)
    direct = schedule(problem, machine, threads)
    filtered = worthwhile(problem, weight_bytes, direct, machine, threads) if weight_bytes is not None else None
    return filtered or direct


def filtering_plan(
    problem: ConvProblem, tile: tuple[int, int], machine: Machine, threads: int, vectors: int
) -> WinogradPlan:
    """The plan of a minimal filtering whose weights are packed."""
    if (q := _questions.get()) is not None:
        q.note(Asked(problem, machine, threads), lowered=True)
    found = _measured(problem, machine, threads)
    rows = found.rows if found is not None and (found.tile, found.vectors) == (tile, vectors) else None
    return plan(problem, tile, machine, threads, rows=rows, vectors=vectors)
