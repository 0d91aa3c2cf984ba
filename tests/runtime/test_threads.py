"""The thread team: many runs, many callers, forks, sleep and shutdown."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from graphc.errors import OptionError
from graphc.options import Options, default_threads
from graphc.runtime import threads as module
from graphc.runtime.plan import Plan, PlanBuilder
from graphc.runtime.threads import Team


@pytest.fixture
def team() -> Iterator[Team]:
    team = Team()
    yield team
    team.close()


class Counting:
    """A plan of `phases` launches with `tasks` tasks each, and how often each task has been counted."""

    def __init__(self, kernels: SimpleNamespace, phases: int, tasks: int) -> None:
        self.phases = phases
        self.out = np.zeros(tasks, np.int64)
        self.block = np.array([self.out.ctypes.data], np.int64)
        builder = PlanBuilder()
        for i in range(phases):
            builder.launch(kernels.count, int(self.block.ctypes.data), tasks if i % 3 else 1)
            if not i % 3:
                builder.launch(kernels.count, int(self.block.ctypes.data), tasks)
        self.plan: Plan = builder.build()

    def check(self, runs: int) -> None:
        expected = np.arange(1, len(self.out) + 1) * self.phases
        expected[0] += -(-self.phases // 3)
        np.testing.assert_array_equal(self.out, expected * runs)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_thousands_of_runs(kernels: SimpleNamespace, team: Team, threads: int) -> None:
    """Four threads on two cores, or on one, are more than there are: nobody may wait for a thread without a core."""
    counting = Counting(kernels, 10, 37)
    for _ in range(2000):
        team.run(counting.plan, threads)
    counting.check(2000)


def test_runs_that_find_the_workers_asleep(kernels: SimpleNamespace) -> None:
    for spin in (0, 20):
        team = Team(spin_us=spin)
        counting = Counting(kernels, 4, 64)
        for _ in range(100):
            team.run(counting.plan, 3)
            time.sleep(0.0005)
        counting.check(100)
        team.close()


def test_workers_do_part_of_the_work_each_with_its_own_scratch(kernels: SimpleNamespace, team: Team) -> None:
    tasks, size = 256, 2000
    out = np.zeros(tasks, np.int64)
    block = np.array([out.ctypes.data, size], np.int64)
    builder = PlanBuilder()
    builder.launch(kernels.fill, int(block.ctypes.data), tasks, scratch_bytes=8 * size)
    plan = builder.build()
    for threads in (1, 2, 4, 2):
        most = 0
        for _ in range(200):  # a busy machine may give the workers no core for a while
            out[:] = 0
            team.run(plan, threads)
            assert (out > 0).all(), "two threads had the same scratch memory"
            assert (out % 64 == 0).all()
            most = max(most, len(np.unique(out)))
            if most >= min(threads, 2):
                break
        assert min(threads, 2) <= most <= threads


def test_the_number_of_threads_may_change(kernels: SimpleNamespace, team: Team) -> None:
    counting = Counting(kernels, 6, 50)
    for i in range(120):
        team.run(counting.plan, (2, 1, 5, 3)[i % 4])
    counting.check(120)
    assert team.threads == 5


def test_a_launch_may_ask_for_fewer_threads(kernels: SimpleNamespace, team: Team) -> None:
    out = np.zeros(40, np.int64)
    block = np.array([out.ctypes.data], np.int64)
    builder = PlanBuilder()
    for limit in (0, 1, 2, 9):
        builder.launch(kernels.count, int(block.ctypes.data), 40, threads=limit)
    team.run(builder.build(), 3)
    np.testing.assert_array_equal(out, 4 * np.arange(1, 41))


def test_callers_take_turns(kernels: SimpleNamespace, team: Team) -> None:
    countings = [Counting(kernels, 5, 30) for _ in range(6)]

    def work(counting: Counting, threads: int) -> None:
        for _ in range(200):
            team.run(counting.plan, threads)

    callers = [threading.Thread(target=work, args=(c, 1 + i % 3)) for i, c in enumerate(countings)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    for counting in countings:
        counting.check(200)


def test_close_ends_the_workers_and_a_run_brings_them_back(kernels: SimpleNamespace, team: Team) -> None:
    counting = Counting(kernels, 5, 30)
    before = threading.active_count()
    for runs in (1, 2, 3):
        team.run(counting.plan, 3)
        counting.check(runs)
        assert threading.active_count() == before + 2
        team.close()
        assert threading.active_count() == before
    team.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_a_team_of_its_own(kernels: SimpleNamespace) -> None:
    counting = Counting(kernels, 5, 30)
    module.run(counting.plan, 3)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            module.run(counting.plan, 3)
            counting.check(2)
            module.team().close()
            status = 0
        finally:
            os._exit(status)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert os.waitstatus_to_exitcode(status) == 0
    module.run(counting.plan, 3)
    counting.check(2)  # the child counted in its own copy


EXIT_SCRIPT = """
import sys, os, threading
import numpy as np
from graphc.runtime.native import kernel_addresses
from graphc.runtime.plan import PlanBuilder
from graphc.runtime.threads import run
text = '''
from graphc.codegen.cpu.atomics import cells
def touch(block, first, last, scratch):
    for task in range(first, last):
        cells(block[0])[task] += 1
'''
(address,) = kernel_addresses([("touch", text)])
out = np.zeros(100, np.int64)
block = np.array([out.ctypes.data], np.int64)
builder = PlanBuilder()
builder.launch(address, int(block.ctypes.data), 100)
plan = builder.build()
run(plan, 3)
assert (out == 1).all()
"""


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "sys.exit(0)",
        "if os.fork() == 0: run(plan, 3); sys.exit(0)\nassert os.waitstatus_to_exitcode(os.wait()[1]) == 0",
        "threading.Thread(target=lambda: [run(plan, 2) for _ in range(2000)]).start()",
    ],
    ids=["end", "exit", "fork", "while running"],
)
def test_the_interpreter_ends_cleanly(own_cache: None, ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT_SCRIPT + ending], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_warm_run_does_not_import_numba(own_cache: None) -> None:
    check = "\nassert 'numba' not in sys.modules, 'numba was imported'\n"
    for ending in ("", check):
        done = subprocess.run(
            [sys.executable, "-c", EXIT_SCRIPT + ending], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_two_threads_on_one_core(own_cache: None) -> None:
    """Oversubscribed: slower is fine, a time slice for every phase is not."""
    script = EXIT_SCRIPT + (
        "import time\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "many = PlanBuilder()\n"
        "for _ in range(200): many.launch(address, int(block.ctypes.data), 100)\n"
        "many = many.build()\n"
        "out[:] = 0\n"
        "start = time.perf_counter()\n"
        "for _ in range(50): run(many, 2)\n"
        "assert (out == 10_000).all()\n"
        "assert time.perf_counter() - start < 10, time.perf_counter() - start\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_options_are_checked(monkeypatch: pytest.MonkeyPatch, team: Team) -> None:
    with pytest.raises(OptionError, match="threads is 0"):
        team.run(PlanBuilder().build(), 0)
    team.run(PlanBuilder().build(), 2)
    with pytest.raises(OptionError, match="threads is 0"):
        team.run(PlanBuilder().build(), 0)
    with pytest.raises(OptionError, match="threads is 5000"):
        team.run(PlanBuilder().build(), 5000)
    monkeypatch.setenv("GRAPHC_SPIN_US", "-1")
    with pytest.raises(OptionError, match="GRAPHC_SPIN_US is '-1'"):
        Team().run(PlanBuilder().build(), 2)
    monkeypatch.setenv("GRAPHC_THREADS", "many")
    with pytest.raises(OptionError, match="GRAPHC_THREADS is 'many'"):
        default_threads()
    monkeypatch.setenv("GRAPHC_THREADS", "3")
    assert Options.of().thread_count == 3
