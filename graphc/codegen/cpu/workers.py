"""Compile many kernels at once, in helper processes.

Numba compiles under one lock and the interpreter's, so threads gain nothing; processes do, once there is enough to
compile to pay for starting them (importing Numba takes most of a second, so helpers fork from one that has done it). The first
is a fresh interpreter running this module, not a `multiprocessing` child: it neither imports the caller's `__main__`
again nor inherits locks of a forked process. A helper reads one JSON request a line, answers one a line, and ends when
its requests do, so that it cannot outlive its parent.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Any

from graphc.codegen.cpu.compile import KernelObject, compile_source
from graphc.errors import CompileError, OptionError
from graphc.ir.garbage import collector_waits

__all__ = ["compile_all", "dismiss", "get_ready"]

_WORTH_HELPERS = 4  # kernels; measured: python -m bench.driver --compile
_MOST_HELPERS = 8
_WARM_UP = """
from graphc.codegen.cpu import intrinsics, microkernel, vector

def warm_up(block, first, last, scratch):
    for task in range(first, last):
        block[task] = min(block[task] * task, block[first] // 2)
"""
_COLLECT_EVERY = 16  # kernels, which leave 2 to 3 MB each


Source = tuple[str, str]
"""The name of a function, and the text of the module that defines it."""


class _Helper:
    """One that compiles: one request at a time is written to it, and its answer read."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self._requests, self._answers = requests, answers
        #: what it compiles, until the answer is read
        self.source: Source | None = None

    def begin(self, source: Source) -> None:
        """Write a request; one that fits into a pipe (64 KB, and texts are a tenth of it) does not wait to be read."""
        self.source = source
        with contextlib.suppress(OSError):  # `answer` says that the process has ended
            self._requests.write(json.dumps(source) + "\n")
            self._requests.flush()

    def answer(self) -> KernelObject | CompileError:
        """Wait for the answer to what was begun."""
        assert self.source
        name = self.source[0]
        try:
            answer: dict[str, Any] = json.loads(self._answers.readline())
        except (OSError, ValueError):
            return CompileError(
                f"the helper process that compiled kernel {name!r} ended; GRAPHC_COMPILE_JOBS=0 compiles in this process"
            )
        finally:
            self.source = None
        if "error" in answer:
            return CompileError(answer["error"])
        return KernelObject.from_bytes(base64.b64decode(answer["object"]))

    def close(self) -> None:
        """Close the pipes, once no thread reads them: a helper ends when its requests do."""
        for pipe in (self._requests, self._answers):
            with contextlib.suppress(OSError):  # what was written last has nobody to read it
                pipe.close()


class _Team:
    """Helpers of one process, and of the processes that it becomes once Numba is imported, where it can fork."""

    def __init__(self, size: int) -> None:
        pipes = [(*os.pipe(), *os.pipe()) for _ in range(size - 1)]
        theirs = [fd for requests, _, _, answers in pipes for fd in (requests, answers)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OPENBLAS_NUM_THREADS": "1",  # a process with one thread can fork, and nothing is multiplied there
        }
        # -P: modules that lie in the current directory, which may be anybody's, are not to be imported.
        command = [sys.executable, "-P", "-m", "graphc.codegen.cpu.workers", *map(str, theirs)]
        try:
            # Ctrl-C reaches the parent alone, which ends its helpers quietly.
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment,
                pass_fds=theirs, process_group=0 if os.name == "posix" else None,
            )  # fmt: skip
        except OSError:
            for _, requests, answers, _ in pipes:
                os.close(requests)
                os.close(answers)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        assert self.process.stdin
        assert self.process.stdout
        self.helpers = [_Helper(self.process.stdin, self.process.stdout)]
        for _, requests, answers, _ in pipes:
            ends = os.fdopen(requests, "w", encoding="utf-8"), os.fdopen(answers, encoding="utf-8")
            self.helpers.append(_Helper(*ends))

    def kill(self) -> None:
        """End all of them, whatever they are doing."""
        if len(self.helpers) > 1:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Close the pipes, once no thread reads them, and wait for those to end that were not killed."""
        for helper in self.helpers:
            helper.close()
        self.process.wait()


def compile_all(sources: Sequence[Source], helpers: int | None = None) -> Iterator[tuple[int, KernelObject]]:
    """Compile (function name, module text) pairs for this processor; yields (index, object) as they finish.

    Args:
        sources: see `compile_source`.
        helpers: processes to use, 0 for none. Default: $GRAPHC_COMPILE_JOBS, else as many as pay for themselves.

    Raises:
        CompileError: from the first kernel that does not compile.
    """
    if helpers is None:
        helpers = _default_helpers(len(sources))
    if helpers == 0:
        for index, (name, text) in enumerate(sources):
            with collector_waits():
                compiled = compile_source(name, text)
            yield index, compiled
        return
    teams = _take()
    missing = min(helpers, len(sources)) - sum(len(team.helpers) for team in teams)
    yield from _compile_in_helpers(sources, teams + _start(missing))


#: teams that were started before the sources were known
_ready: list[_Team] = []


def get_ready(first: Source) -> None:
    """Start helpers now, to compile soon: importing Numba takes them as long as a model takes to be planned. One of them
    begins with `first`, which will be needed in any case."""
    if not _ready:
        with contextlib.suppress(CompileError):  # the one who compiles will say it
            _ready.extend(_start(_default_helpers(2 * _MOST_HELPERS)))
        for team in _ready[:1]:
            team.helpers[0].begin(first)


def _take() -> list[_Team]:
    """The teams that are ready; no other thread gets the same ones."""
    taken: list[_Team] = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(_ready.pop())
    return taken


def dismiss() -> None:
    """End the helpers of `get_ready` that nobody needed."""
    for team in _take():
        team.kill()
        team.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ready.clear)  # they are the parent's


def _default_helpers(kernels: int) -> int:
    chosen = os.environ.get("GRAPHC_COMPILE_JOBS")
    if chosen is not None:
        if not chosen.isdigit():
            raise OptionError(
                f"GRAPHC_COMPILE_JOBS is {chosen!r}; it takes a number of processes, 0 to compile in this one"
            )
        return int(chosen)
    if not sys.executable:  # Python inside another program
        return 0
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, _MOST_HELPERS, kernels // 2) if available > 1 and kernels >= _WORTH_HELPERS else 0


def _compile_in_helpers(sources: Sequence[Source], teams: Sequence[_Team]) -> Iterator[tuple[int, KernelObject]]:
    helpers = [helper for team in teams for helper in team.helpers]
    begun = {source: index for index, source in enumerate(sources) if source in {h.source for h in helpers}}
    # Long texts first: the last one to finish should be a short one.
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in sorted(set(range(len(sources))) - set(begun.values()), key=lambda i: -len(sources[i][1])):
        waiting.put(index)
    finished: queue.SimpleQueue[tuple[int, KernelObject | CompileError]] = queue.SimpleQueue()

    def feed(helper: _Helper) -> None:
        if helper.source in begun:
            finished.put((begun[helper.source], helper.answer()))
        elif helper.source is not None:
            helper.answer()
        with contextlib.suppress(queue.Empty):
            while True:
                index = waiting.get_nowait()
                helper.begin(sources[index])
                outcome = helper.answer()
                finished.put((index, outcome))
                if isinstance(outcome, CompileError):
                    return

    threads = [threading.Thread(target=feed, args=(helper,), daemon=True) for helper in helpers]
    all_done = False
    try:
        for thread in threads:
            thread.start()
        for _ in sources:
            index, outcome = finished.get()
            if isinstance(outcome, CompileError):
                raise outcome
            yield index, outcome
        all_done = True
    finally:
        if not all_done or any(helper.source for helper in helpers):
            for team in teams:
                team.kill()
        for thread in threads:
            thread.join()
        for team in teams:
            team.close()


def _start(helpers: int) -> list[_Team]:
    """So many helpers, in one team where processes can fork (not on macOS, whose frameworks do not survive it)."""
    sizes = [helpers] if sys.platform == "linux" else [1] * helpers
    started: list[_Team] = []
    try:
        started.extend(_Team(size) for size in sizes if size > 0)
    except OSError as error:
        for team in started:
            team.kill()
            team.close()
        raise CompileError(
            f"cannot start helper processes to compile kernels: {error}; GRAPHC_COMPILE_JOBS=0 compiles in this process"
        ) from error
    return started


def _serve(pipes: Sequence[int]) -> None:
    """A helper's life. `pipes`: for each further helper to become, where its requests come from and its answers go."""
    requests, answers = sys.stdin, os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing that a kernel's text prints may get between the answers
    compile_source("warm_up", _WARM_UP)  # imports what every kernel needs, while the parent prepares its first request
    # Numba's many objects make the collector look again and again, for an eighth of the time: it looks now and then.
    gc.disable()
    gc.freeze()  # what forked processes share stays as it is
    for source, target in zip(pipes[::2], pipes[1::2], strict=True):
        if os.fork() == 0:
            for mine in (requests, answers):
                mine.close()
            requests, answers = os.fdopen(source, encoding="utf-8"), os.fdopen(target, "w", encoding="utf-8")
            for later in pipes[pipes.index(source) + 2 :]:
                os.close(later)
            _answer(requests, answers)
            os._exit(0)
        os.close(source)
        os.close(target)
    _answer(requests, answers)
    for _ in pipes[::2]:
        os.wait()


def _answer(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until the input ends."""
    for count, line in enumerate(requests, 1):
        if count % _COLLECT_EVERY == 0:
            gc.collect()
        name, text = json.loads(line)
        try:
            answer = {"object": base64.b64encode(compile_source(name, text).to_bytes()).decode()}
        except CompileError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    try:
        _serve([int(fd) for fd in sys.argv[1:]])
        os._exit(0)  # the interpreter would take a tenth of a second to end
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)
