"""The thread team that runs plans: one a process, shared by all models.

Workers are Python threads that enter native code once and stay there (see `walk.py`), so a run costs no Python but its
one call. Between phases they spin for a short time ($GRAPHC_SPIN_US, 200 by default), which makes the next phase begin
in under a microsecond, and then sleep in the kernel until one begins. A run with one thread touches no other.
"""

from __future__ import annotations

import atexit
import os
import platform
import sys
import threading
from typing import TYPE_CHECKING

import numpy as np

from graphc.errors import OptionError
from graphc.options import MOST_THREADS
from graphc.runtime import driver as block
from graphc.runtime.plan import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Team", "run", "team"]

_ALIGNMENT = 128  # bytes: a cache line pair
_SPIN_US = 200
_JOIN_S = 5.0
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98}  # Linux's futex system call


class Team:
    """Threads that run plans together.

    `run` may be called by any thread, at any time: runs that share the workers take turns, runs with one thread do not
    wait for anybody.

    Args:
        spin_us: microseconds a worker spins for the next phase before it sleeps; default: $GRAPHC_SPIN_US, else 200.
    """

    def __init__(self, spin_us: int | None = None) -> None:
        self._spin_us = spin_us
        self._turn = threading.Lock()
        self._block: NDArray[np.int64] | None = None
        self._workers: list[threading.Thread] = []
        self._address = 0  # of the block
        self._scratch: list[NDArray[np.uint8]] = []
        self._scratch_bytes = 0  # of each thread
        self._first_scratch = 0  # address of the caller's
        self._own = _OwnScratch()

    @property
    def threads(self) -> int:
        """Threads of the largest run so far: the caller's and the workers there are."""
        return 1 + len(self._workers)

    def run(self, plan: Plan, threads: int = 1) -> None:
        """Run a plan to its end.

        Args:
            plan: its memory must not be in use by another run.
            threads: threads to run it with, the calling one included.
        """
        if threads == 1:
            own = self._own
            if own.size < plan.scratch_bytes:
                own.grow(plan.scratch_bytes)
            block.driver().walk(0, plan.address, 1, own.address)
            return
        if not 1 < threads <= MOST_THREADS:
            raise OptionError(f"threads is {threads}; it takes 1 to {MOST_THREADS}")
        with self._turn:
            address = self._prepare(threads, plan.scratch_bytes)
            block.driver().walk(address, plan.address, threads, self._first_scratch)

    def close(self) -> None:
        """Let the workers end and wait for them. The next parallel run starts new ones."""
        with self._turn:
            self._stop()

    def _prepare(self, threads: int, scratch_bytes: int) -> int:
        """Have workers and scratch memory for a run; the address of the team's block."""
        if threads > self.threads:
            self._stop()  # the block grows, and workers know its address
            self._start(threads)
        if scratch_bytes > self._scratch_bytes:
            self._grow_scratch(scratch_bytes)
        return self._address

    def _start(self, threads: int) -> None:
        serve = block.driver().serve
        spin_us = _spin_from_environment() if self._spin_us is None else self._spin_us
        words = _aligned(8 * (block.THREADS + block.LINE * threads)).view(np.int64)
        words[:] = 0
        words[block.SPIN_NS] = spin_us * 1000
        words[block.FUTEX] = _FUTEX_NUMBERS.get(platform.machine(), 0) if sys.platform == "linux" else 0
        self._block, self._address = words, int(words.ctypes.data)
        self._workers = [
            threading.Thread(target=serve, args=(self._address, thread), name=f"graphc-{thread}", daemon=True)
            for thread in range(1, threads)
        ]
        self._grow_scratch(self._scratch_bytes)
        for worker in self._workers:
            worker.start()

    def _grow_scratch(self, size: int) -> None:
        # Untouched memory is not there yet: threads that never run a hungry kernel cost nothing.
        assert self._block is not None
        self._scratch = [_aligned(size) for _ in range(self.threads)]
        self._scratch_bytes = size
        for thread, memory in enumerate(self._scratch):
            self._block[block.THREADS + block.LINE * thread + block.SCRATCH] = memory.ctypes.data
        self._first_scratch = int(self._scratch[0].ctypes.data)

    def _stop(self) -> None:
        if self._block is None:
            return
        block.driver().dismiss(self._address, self.threads)
        for worker in self._workers:
            worker.join(_JOIN_S)
        if any(worker.is_alive() for worker in self._workers):
            _abandoned.append(self._block)  # a stopped machine: the thread may yet look at its block
        self._workers, self._block, self._address = [], None, 0


_abandoned: list[NDArray[np.int64]] = []


class _OwnScratch(threading.local):
    """Scratch memory of each thread that calls `run` with one thread."""

    size = 0
    address = 0

    def grow(self, size: int) -> None:
        self._memory = _aligned(size)
        self.size, self.address = size, int(self._memory.ctypes.data)


def team() -> Team:
    """The process's team."""
    return _team


def run(plan: Plan, threads: int = 1) -> None:
    """Run a plan with the process's team; see `Team.run`."""
    _team.run(plan, threads)


def _aligned(size: int) -> NDArray[np.uint8]:
    """Uninitialised bytes that begin a cache line."""
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size]


def _spin_from_environment() -> int:
    chosen = os.environ.get("GRAPHC_SPIN_US", str(_SPIN_US))
    if not chosen.isdigit():
        raise OptionError(f"GRAPHC_SPIN_US is {chosen!r}; it takes a number of microseconds, 0 to sleep at once")
    return int(chosen)


_team = Team()


def _leave() -> None:
    # Workers must not run native code while the interpreter takes its memory back.
    _team.close()


def _begin_anew() -> None:
    # A forked child has the parent's memory but not its threads, and perhaps a lock that a lost thread held.
    global _team
    _team = Team(_team._spin_us)


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
