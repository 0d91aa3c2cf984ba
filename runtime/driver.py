"""The native driver, ready to call: `walk.py` compiled (or found in the cache) and loaded.

The team's block, which Python and native code share, is int64 words laid out by the constants below. What several
threads write lies in cache lines of its own; a line counts as 128 bytes, since processors fetch them in pairs.
"""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path

from graphc.runtime import plan

__all__ = ["DRIVER", "Driver", "driver"]

LINE = 16
"""Words in a cache line (pair)."""

# Line 0: the phase that is open, written by the thread that walks the plan.
ROWS = 0  # address of the first row of the group
TASKS = 1  # tasks in the group
WIDTH = 2  # threads that take part
GRAIN = 3  # least tasks to claim at once
PHASE = 4  # number of the phase, 32 bits
# Line 1: what is fixed while workers live, but for STOP.
STOP = LINE  # not 0: workers leave
SPIN_NS = LINE + 1  # how long a worker spins before it sleeps
FUTEX = LINE + 2  # number of the futex system call; 0: there is none, and workers poll
# Line 2.
DONE = 2 * LINE  # tasks done in this phase
# Then a line for each thread.
THREADS = 3 * LINE  # + LINE * thread: its claim word
ASLEEP = 1  # words after the claim word: the ticket of its sleep, 0 while awake
TICKET = 2  # how often it has slept
SCRATCH = 3  # address of its scratch memory
WOKEN = 4  # the last ticket it was woken for


def _source_text() -> str:
    """The driver's source. Its first line names the layouts it is for, which makes them part of the cache key."""
    here = Path(__file__)
    layouts = hashlib.sha256(Path(plan.__file__).read_bytes() + here.read_bytes()).hexdigest()
    return f"# layouts {layouts}\n" + here.with_name("walk.py").read_text(encoding="utf-8")


DRIVER = ("native_driver", _source_text())
"""Function name and source text of the driver, as `kernel_addresses` takes them."""


class Driver:
    """Native entry points; each releases the GIL while it runs. Arguments are addresses and counts."""

    def __init__(self, address: int) -> None:
        entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
        self._enter = entry(address)

    def walk(self, team: int, plan: int, threads: int, scratch: int) -> None:
        """Run a plan with `threads` threads, this one and others of the team (`team` may be 0 when there are none)."""
        self._enter(team, threads, plan, scratch)

    def serve(self, team: int, thread: int) -> None:
        """Be worker `thread` of a team until it is dismissed."""
        self._enter(team, 0, thread, 0)

    def dismiss(self, team: int, threads: int) -> None:
        """Let workers 1 to `threads - 1` return from `serve`."""
        self._enter(team, -1, threads, 0)


_driver: Driver | None = None


def driver() -> Driver:
    """The process's driver, compiled on the first call ever on this machine."""
    global _driver
    if _driver is None:
        from graphc.runtime.native import kernel_addresses

        (address,) = kernel_addresses([DRIVER])
        _driver = Driver(address)
    return _driver


def offer(address: int) -> None:
    """Let the process use the driver at `address`, of a stored model, unless it has one."""
    global _driver
    if _driver is None:
        _driver = Driver(address)
