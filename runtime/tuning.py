"""Tuning: the convolutions and products of a model measured on this machine, and the best choices kept.

A `Tuner` compiles a model once to learn which problems it has, then compiles and times candidates for each, the costliest
problem first, until a budget of time is spent. What beats the estimate is kept on disk, for this processor, and used by
every later compilation (`graphc.kernels.choice`). Candidates run alone, with their data in the caches where it fits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphc import ops
from graphc.errors import CompileError
from graphc.ir.dims import ceil_div
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.types import TensorType
from graphc.kernels import strassen
from graphc.kernels.choice import Asked, Choice, Questions, as_halves, asking, choose, using
from graphc.kernels.contraction import Schedule, schedule, tiles
from graphc.kernels.problems import ConvProblem, GemmProblem
from graphc.kernels.strassen import StrassenPlan
from graphc.kernels.winograd import WinogradPlan, affordable_tiles, plan
from graphc.ops.minimal import points
from graphc.ops.strassen import matrices
from graphc.options import Options
from graphc.runtime.assemble import CompiledGraph
from graphc.runtime.measured import keep, kept

__all__ = ["Finding", "Tuner", "candidates", "graph_of"]

#: candidates are estimated to take at most this many times the best estimate, and there are at most so many
WITHIN, CANDIDATES = 1.35, 8
#: a candidate must be measured to take this share of the time of the one that is estimated to be best
MUST_SAVE = 0.97
#: element types of the problems that are measured
MEASURED = ("float32", "float64")
#: seconds of running a candidate, and the runs that are at least made
RUN_SECONDS, RUNS = 0.03, 5


@dataclass(frozen=True)
class Finding:
    """What was measured of one problem: seconds a run as estimated best and as measured best."""

    key: str
    kernels: int
    estimated: float
    best: float
    choice: Choice | None  # None: the estimate was right

    @property
    def saved(self) -> float:
        """Seconds saved in one run of the model."""
        return self.kernels * (self.estimated - self.best)


# -- candidates ------------------------------------------------------------------------------------------------------


def candidates(asked: Asked) -> list[Choice]:
    """Choices worth measuring, by estimated time; the first is the one that would be taken unmeasured."""
    p, machine, threads = asked.problem, asked.machine, asked.threads
    halved = as_halves(p, machine) if "strassen" in asked.algorithms else None
    filters = isinstance(p, ConvProblem) and "winograd" in asked.algorithms
    estimates: dict[Choice, float] = {}
    for rows, vectors in tiles(p, machine):
        estimates[Choice(rows, vectors)] = schedule(p, machine, threads, rows=rows, vectors=vectors).cycles
        for levels in strassen.LEVELS if halved is not None and rows > 1 else ():
            if halved is not None and halved.applies(levels):
                found = strassen.plan(halved, machine, threads, levels, rows=rows, vectors=vectors)
                estimates[Choice(rows, vectors, levels=levels)] = found.cycles
        if isinstance(p, ConvProblem) and filters and rows > 1:
            for tile in affordable_tiles(p, asked.weight_bytes, machine):
                filtered = plan(p, tile, machine, threads, rows=rows, vectors=vectors)
                estimates[Choice(rows, vectors, tile)] = filtered.cycles * filtered.variant.handicap
    order = sorted(estimates, key=estimates.__getitem__)
    first = _unmeasured(asked)
    order = [first, *(c for c in order if c != first and estimates[c] <= WITHIN * estimates[first])]
    return order[:CANDIDATES]


def _unmeasured(asked: Asked) -> Choice:
    with using({}):
        found = _chosen(asked)
    if isinstance(found, Schedule):
        return Choice(found.variant.rows, found.variant.vectors)
    product = found.variant.product
    if isinstance(found, StrassenPlan):
        return Choice(product.rows, product.vectors, levels=found.variant.levels)
    return Choice(product.rows, product.vectors, found.variant.tile)


def _chosen(asked: Asked) -> Schedule | WinogradPlan | StrassenPlan:
    return choose(asked.problem, asked.machine, asked.threads, asked.algorithms, asked.weight_bytes)


def graph_of(asked: Asked, chosen: Choice) -> Graph:
    """A graph that computes the problem as chosen, of blocked images and random packed weights."""
    p, rng = asked.problem, np.random.default_rng(0)
    dtype = dtype_of(p.dtype)
    lanes = asked.machine.isa.lanes(dtype.itemsize)
    columns = chosen.vectors * lanes
    halved = as_halves(p, asked.machine)

    def weights(*shape: int) -> Value:
        return constant(rng.standard_normal(shape, np.float32).astype(dtype.numpy))

    def halves(columns_total: int, guarded: bool) -> Value:
        assert halved is not None
        groups, part = ceil_div(columns_total, 2**chosen.levels * columns), halved.rounds(chosen.levels) * halved.inner
        return weights(groups, matrices(chosen.levels, guarded), part, columns)

    if isinstance(p, GemmProblem):
        batch = () if p.shared else (p.batch * p.groups,)
        rows = p.m * (p.batch * p.groups if p.shared else 1)
        x = input_value("x", TensorType(dtype, (*batch, rows, p.k)))
        if chosen.levels and halved is not None:
            w = halves(p.n, guarded=True)
            return Graph([x], [ops.dot_strassen(x, w, columns_total=p.n, levels=chosen.levels)])
        w = weights(*batch, ceil_div(p.n, columns), p.k, columns)
        return Graph([x], [ops.dot_packed(x, w, columns_total=p.n)])
    blocks = ceil_div(p.groups * p.channels, p.block) if p.picked else p.groups * p.blocks
    x = input_value("x", TensorType(dtype, (p.batch, blocks, p.height, p.width, p.block)))
    panels, filters = ceil_div(p.filters, columns), p.groups * p.filters
    padding = ((p.pads[0], p.pads[2]), (p.pads[1], p.pads[3]))
    if p.picked:
        places = tuple(tuple(range(g, p.groups * p.channels, p.groups)) for g in range(p.groups))
        w = weights(p.groups, panels, 1, 1, 1, p.channels, columns)
        y = ops.conv_picked(x, w, places=places, filters=filters, lanes=lanes)
    elif chosen.levels and halved is not None:
        w = halves(p.filters, guarded=False)
        y = ops.conv_strassen(x, w, filters=filters, lanes=lanes, levels=chosen.levels)
    elif chosen.tile is None:
        w = weights(p.groups, panels, p.blocks, *p.kernel, p.block, columns)
        y = ops.conv_blocked(x, w, strides=p.stride, padding=padding, dilation=p.dilation, filters=filters, lanes=lanes)
    else:
        w = weights(p.groups, panels, points(chosen.tile, p.kernel, p.stride), p.blocks * p.block, columns)
        y = ops.conv_winograd(
            x, w, kernel=p.kernel, tile=chosen.tile, strides=p.stride, padding=padding, filters=filters, lanes=lanes
        )
    return Graph([x], [y])


# -- measuring -------------------------------------------------------------------------------------------------------


def _seconds(compiled: CompiledGraph) -> float:
    """The shortest run of several."""
    rng = np.random.default_rng(1)
    arguments = [
        rng.standard_normal(v.tensor.static_shape, np.float32).astype(v.dtype.numpy) for v in compiled.graph.inputs
    ]
    compiled.run(arguments)
    best, runs, until = float("inf"), 0, time.perf_counter() + RUN_SECONDS
    while runs < RUNS or time.perf_counter() < until:
        started = time.perf_counter()
        compiled.run(arguments)
        best, runs = min(best, time.perf_counter() - started), runs + 1
    return best


def _measure(
    asked: Asked, key: str, choices: Sequence[Choice], options: Options, time_left: Callable[[], float]
) -> Iterator[tuple[Choice, float]]:
    for chosen in choices:
        if time_left() <= 0:
            return
        with using({key: chosen}), contextlib.suppress(CompileError):
            yield chosen, _seconds(CompiledGraph(graph_of(asked, chosen), options))


class Tuner:
    """Measures what compilations ask about, and keeps what is better.

    Args:
        options: of the compilations; their threads are used for measuring.
        again: measure also what has been measured before.

    `findings` grows while `run` works, so that an interrupted run loses nothing. `known` counts the model's problems that
    had been measured before; `left` are the keys of those that still have to be: all, until they are done.
    """

    def __init__(self, options: Options, again: bool = False) -> None:
        self.options, self.again = options, again
        self.findings: list[Finding] = []
        self.known = 0
        self.left: list[str] = []

    def run(
        self,
        compile_model: Callable[[], object],
        budget: float,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        """Measure for about `budget` seconds; the measurement under way is finished.

        Args:
            compile_model: compiles the model, in any way that ends in kernels.
            budget: seconds.
            progress: called with problems done, problems to do, and the key of the one that comes.
        """
        ends = time.perf_counter() + budget
        with asking() as questions, using({}):
            compile_model()
        known = {} if self.again else kept()
        problems = _costliest(questions)
        order = [key for key in problems if key not in known]
        self.known, self.left = len(problems) - len(order), list(order)
        for done, key in enumerate(order):
            if progress is not None:
                progress(done, len(order), key)
            if time.perf_counter() >= ends:
                break
            asked = questions.asked[key]
            choices = candidates(asked)
            times = dict(_measure(asked, key, choices, self.options, lambda: ends - time.perf_counter()))
            if times:
                finding = _decided(key, questions.lowered[key], times)
                if finding.choice is not None or len(times) == len(choices):
                    keep({key: finding.choice or choices[0]})
                    self.left.remove(key)
                self.findings.append(finding)


def _decided(key: str, kernels: int, times: dict[Choice, float]) -> Finding:
    """The estimate's choice is the first; another one must be faster by more than noise."""
    first, estimated = next(iter(times.items()))
    best = min(times, key=times.__getitem__)
    if times[best] >= MUST_SAVE * estimated:
        best = first
    return Finding(key, kernels, estimated, times[best], best if best != first else None)


def _costliest(questions: Questions) -> list[str]:
    """The problems that kernels compute, by estimated time in all."""

    def cycles(key: str) -> float:
        return questions.lowered[key] * _chosen(questions.asked[key]).cycles

    with using({}):
        measurable = (k for k, n in questions.lowered.items() if n and questions.asked[k].problem.dtype in MEASURED)
        return sorted(measurable, key=cycles, reverse=True)
