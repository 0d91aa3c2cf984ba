"""What this machine does at most: operations a second in registers, bytes a second from the caches and from memory.

The loops are kernels like any other, launched through the plan with as many threads as the run that they are held
against. Each figure is the best of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphc.kernels.machine import host_machine
from graphc.runtime.cache import aligned_empty
from graphc.runtime.native import kernel_addresses
from graphc.runtime.plan import PlanBuilder
from graphc.runtime.threads import run

__all__ = ["CHAINS", "Roofs", "measure_roofs", "peak_source"]

CHAINS = 12
"""Independent sums: enough to hide the latency of an FMA (or of an addition) on two units."""

BEYOND_CACHES = 192 << 20
"""Bytes that no cache here holds."""

_PEAK = """
from graphc.codegen.cpu import vector

load, store = vector.loader({lanes}), vector.storer({lanes})
pointer = vector.argument_pointer("float32")


def peak(block, first, last, scratch):
    # block: one vector of numbers, a vector a task for the sums, steps a task
    source, target = pointer(block, 0), pointer(block, 1)
    x = load(source, 0, {lanes})
    for task in range(first, last):
        {init}
        for step in range(block[2]):
            {step}
        store(target, task * {lanes}, {total}, {lanes})
"""

_READ = """
from graphc.codegen.cpu import vector

load, store = vector.loader({lanes}), vector.storer({lanes})
pointer = vector.argument_pointer("float32")


def read(block, first, last, scratch):
    # block: elements to read, a vector a task for the sums, vectors a task, times to read them
    source, target = pointer(block, 0), pointer(block, 1)
    for task in range(first, last):
        {init}
        for again in range(block[3]):
            for i in range(task * block[2], (task + 1) * block[2], {chains}):
                {step}
        store(target, task * {lanes}, {total}, {lanes})
"""

_COPY = """
from graphc.codegen.cpu import vector

load, store = vector.loader({lanes}), vector.storer({lanes})
pointer = vector.argument_pointer("float32")


def copy(block, first, last, scratch):
    # block: source, target, vectors a task
    source, target = pointer(block, 0), pointer(block, 1)
    for task in range(first, last):
        for i in range(task * block[2], (task + 1) * block[2]):
            store(target, i * {lanes}, load(source, i * {lanes}, {lanes}), {lanes})
"""


@dataclass(frozen=True)
class Roofs:
    """The most that `threads` threads do together.

    gflops   10**9 float32 operations a second, an FMA being two, in a loop that touches nothing but registers
    memory   10**9 bytes a second from memory: the better of reading, and of copying (bytes read plus bytes written)
    cache    10**9 bytes a second read from half of the cache that each core has to itself
    """

    threads: int
    gflops: float
    memory: float
    cache: float


def peak_source(lanes: int) -> tuple[str, str]:
    """Name and text of the loop of FMAs on registers; a step does 2 * CHAINS of them, of `lanes` lanes."""
    names = [f"a{n}" for n in range(CHAINS)]
    text = _PEAK.format(
        lanes=lanes,
        init=_lines([f"{a} = x * {n + 1}" for n, a in enumerate(names)], 8),
        step=_lines([f"{a} = vector.fma(x, x, {a})" for a in names * 2], 12),
        total=" + ".join(names),
    )
    return "peak", text


def measure_roofs(threads: int, rounds: int = 5) -> Roofs:
    """Measure them: about a second."""
    machine = host_machine()
    lanes = machine.isa.lanes(4)
    names = [f"a{n}" for n in range(CHAINS)]
    read = _READ.format(
        lanes=lanes,
        chains=CHAINS,
        init=_lines([f"{a} = load(target, task * {lanes}, {lanes})" for a in names], 8),
        step=_lines([f"{a} = {a} + load(source, (i + {n}) * {lanes}, {lanes})" for n, a in enumerate(names)], 16),
        total=" + ".join(names),
    )
    sources = [peak_source(lanes), ("read", read), ("copy", _COPY.format(lanes=lanes))]
    peak, reading, copying = kernel_addresses(sources)
    tasks, steps = 8 * threads, 50_000
    numbers, sums = _floats(lanes), _floats(tasks * lanes)
    flops = 2 * 2 * CHAINS * lanes * steps * tasks
    gflops = flops / _best(_launch(peak, [numbers, sums], [steps], tasks, threads), rounds)

    unit = 4 * lanes * CHAINS * tasks  # bytes of one turn of the reading loop in every task
    large = _floats(2 * (BEYOND_CACHES // unit // 2) * unit // 4)
    half = large.nbytes // 2
    vectors = large.nbytes // (4 * lanes * tasks)
    bandwidths = [
        large.nbytes / _best(_launch(reading, [large, sums], [vectors, 1], tasks, threads), rounds),
        2 * half / _best(_launch(copying, [large, large[half // 4 :]], [vectors // 2], tasks, threads), rounds),
    ]
    # one task a thread, so that each finds its own part in its own cache again
    vectors = max(1, machine.l2_bytes // 2 // (4 * lanes * CHAINS)) * CHAINS
    again = 200
    small = _launch(reading, [large, sums], [vectors, again], threads, threads)
    cached = 4 * lanes * vectors * again * threads / _best(small, rounds)
    return Roofs(threads, gflops * 1e-9, max(bandwidths) * 1e-9, cached * 1e-9)


def _lines(statements: list[str], indent: int) -> str:
    return ("\n" + " " * indent).join(statements)


def _floats(count: int) -> np.ndarray:
    """Numbers at an aligned address, every page of them in memory, none of them subnormal."""
    array = aligned_empty(4 * count).view(np.float32)
    array[:] = 0.5
    return array


def _launch(kernel: int, arrays: list[np.ndarray], integers: list[int], tasks: int, threads: int) -> Callable[[], None]:
    block = np.array([*(a.ctypes.data for a in arrays), *integers], np.int64)
    builder = PlanBuilder(keep=[block, *arrays])
    builder.launch(kernel, int(block.ctypes.data), tasks)
    plan = builder.build()
    return lambda: run(plan, threads)


def _best(call: Callable[[], None], rounds: int) -> float:
    """Seconds of the fastest of several calls, after one that warms up."""
    call()
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best
