"""What running a plan costs besides its kernels: `python -m bench.driver [--threads 1 2 4] [--repeat 300]`.

Kernels that do nothing are launched a thousand times a plan. "first" is the smallest time, as of a machine with nothing
else to do; "median" what a run sees. A phase is a launch whose tasks are shared out; "one each" has as many tasks as
threads, and a thread that wakes finds its task taken, since an empty kernel is over before anybody comes. The filled
phase therefore gives every thread ten microseconds of work, and reports what goes beyond them.
`--compile` times compiling twelve small kernels in this process and in helper processes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from graphc.cli.arguments import positive, thread_number
from graphc.codegen.cpu.workers import compile_all
from graphc.runtime.native import kernel_addresses
from graphc.runtime.plan import Plan, PlanBuilder
from graphc.runtime.threads import Team

__all__ = ["main"]

_KERNELS = """
from graphc.codegen.cpu.atomics import clock_ns
from time import CLOCK_MONOTONIC


def nothing(block, first, last, scratch):
    pass


def work(block, first, last, scratch):
    # block[0] nanoseconds a task
    for _ in range(first, last):
        end = clock_ns(CLOCK_MONOTONIC) + block[0]
        while clock_ns(CLOCK_MONOTONIC) < end:
            pass
"""
_LAUNCHES = 1000
_WORK_NS = 10_000

_SMALL = """
from graphc.codegen.cpu.atomics import cells


def small(block, first, last, scratch):
    x, y = cells(block[0]), cells(block[1])
    for task in range(first, last):
        for i in range(block[2]):
            y[task * block[2] + i] = x[task * block[2] + i] * {number} + (x[i] if x[i] > task else task)
"""


def _plan(kernel: int, block: np.ndarray, launches: int, tasks: int) -> Plan:
    builder = PlanBuilder(keep=[block])
    for _ in range(launches):
        builder.launch(kernel, int(block.ctypes.data), tasks)
    return builder.build()


def _time(call: Callable[[], None], repeat: int) -> tuple[float, float]:
    """Smallest and median seconds of a call."""
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return min(taken), statistics.median(taken)


def _report(what: str, figures: tuple[float, float], scale: float, unit: str) -> None:
    print(f"{what:44s} {figures[0] * scale:9.1f} {figures[1] * scale:9.1f} {unit}", flush=True)


def _time_driver(threads: Sequence[int], repeat: int) -> None:
    nothing, work = kernel_addresses([("nothing", _KERNELS), ("work", _KERNELS)])
    team = Team()
    empty, block = PlanBuilder().build(), np.array([_WORK_NS], np.int64)
    print(f"{'':44s} {'first':>9s} {'median':>9s}")
    for n in threads:
        _report(f"a call from Python, {n} threads", _time(lambda n=n: team.run(empty, n), 20 * repeat), 1e9, "ns")  # type: ignore[misc]
    alone = _plan(nothing, block, _LAUNCHES, 1)
    _report("a launch with one task", _time(lambda: team.run(alone, 1), repeat), 1e9 / _LAUNCHES, "ns")
    for n in threads:
        if n == 1:
            continue
        each = _plan(nothing, block, _LAUNCHES, n)
        _report(
            f"a phase on {n} threads, empty", _time(lambda n=n, p=each: team.run(p, n), repeat), 1e9 / _LAUNCHES, "ns"
        )  # type: ignore[misc]
        filled = _plan(work, block, 100, n)
        least, median = _time(lambda n=n, p=filled: team.run(p, n), repeat // 3)  # type: ignore[misc]
        beyond = (least / 100 - _WORK_NS / 1e9, median / 100 - _WORK_NS / 1e9)
        _report(f"a phase on {n} threads, beyond 10 us of work", beyond, 1e9, "ns")
        one = _plan(work, block, 1, n)

        def asleep(n: int = n, plan: Plan = one) -> None:
            team.run(plan, n)

        taken = []
        for _ in range(50):
            time.sleep(0.002)
            taken.append(_time(asleep, 1)[0])
        beyond = (min(taken) - _WORK_NS / 1e9, statistics.median(taken) - _WORK_NS / 1e9)
        _report(f"the same, {n - 1} of them asleep", beyond, 1e6, "us")
    team.close()


def _time_compiling() -> None:
    # A number of this run: nothing of it is in a cache.
    sources = [("small", _SMALL.format(number=time.time_ns() + i)) for i in range(12)]
    for helpers in (0, 1, 2):
        started = time.perf_counter()
        list(compile_all(sources, helpers))
        where = f"in {helpers} helper process{'es' if helpers > 1 else ''}" if helpers else "in this process"
        print(f"{'12 small kernels ' + where:44s} {time.perf_counter() - started:9.2f} s", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.driver", description="Time the plan driver.")
    parser.add_argument("--threads", type=thread_number, nargs="+", default=[1, 2, 4])
    parser.add_argument("--repeat", type=positive, default=300)
    parser.add_argument("--compile", action="store_true", help="time compiling in helper processes, too")
    arguments = parser.parse_args(argv)
    _time_driver(arguments.threads, arguments.repeat)
    if arguments.compile:
        _time_compiling()
    return 0


if __name__ == "__main__":
    sys.exit(main())
