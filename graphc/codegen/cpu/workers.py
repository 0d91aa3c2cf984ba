"""Compile many kernels at once, in helper processes.

Numba compiles under one lock and the interpreter's, so threads gain nothing; processes do, once there is enough to
compile to pay for starting them (a helper spends about half a second on importing Numba). A helper is a fresh
interpreter running this module, not a `multiprocessing` child: it neither imports the caller's `__main__` again nor
inherits locks of a forked process. It reads one JSON request a line from its standard input, answers one a line, and
ends when its input does, so that it cannot outlive its parent.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

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
    """A process that compiles: one request at a time is written to it, and its answer read."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        # -P: modules that lie in the current directory, which may be anybody's, are not to be imported.
        command = [sys.executable, "-P", "-m", "graphc.codegen.cpu.workers"]
        # Ctrl-C reaches the parent alone, which ends its helpers quietly.
        group = 0 if os.name == "posix" else None
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment,
            process_group=group,
        )  # fmt: skip
        #: what it compiles, until the answer is read
        self.source: Source | None = None

    def begin(self, source: Source) -> None:
        """Write a request; one that fits into a pipe (64 KB, and texts are a tenth of it) does not wait to be read."""
        assert self.process.stdin
        self.source = source
        with contextlib.suppress(OSError):  # `answer` says that the process has ended
            self.process.stdin.write(json.dumps(source) + "\n")
            self.process.stdin.flush()

    def answer(self) -> KernelObject | CompileError:
        """Wait for the answer to what was begun."""
        assert self.process.stdout
        assert self.source
        name, self.source = self.source[0], None
        try:
            answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            return CompileError(
                f"the helper process that compiled kernel {name!r} ended; GRAPHC_COMPILE_JOBS=0 compiles in this process"
            )
        if "error" in answer:
            return CompileError(answer["error"])
        return KernelObject.from_bytes(base64.b64decode(answer["object"]))

    def kill(self) -> None:
        """End it, whatever it is doing."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Close the pipes, once no thread reads them."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with contextlib.suppress(OSError):  # what was written last has nobody to read it
                pipe.close()


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
    wanted = min(helpers, len(sources))
    ready = _take(wanted)
    yield from _compile_in_helpers(sources, ready + _start(wanted - len(ready)))


#: helpers that were started before the sources were known
_ready: list[_Helper] = []


def get_ready(first: Source) -> None:
    """Start helpers now, to compile soon: importing Numba takes them as long as a model takes to be planned. One of them
    begins with `first`, which will be needed in any case."""
    if not _ready:
        with contextlib.suppress(CompileError):  # the one who compiles will say it
            _ready.extend(_start(_default_helpers(2 * _MOST_HELPERS)))
        for helper in _ready[-1:]:  # the one that is taken first
            helper.begin(first)


def _take(most: int) -> list[_Helper]:
    """Some of the helpers that are ready; no other thread gets the same ones."""
    taken: list[_Helper] = []
    with contextlib.suppress(IndexError):
        while len(taken) < most:
            taken.append(_ready.pop())
    return taken


def dismiss() -> None:
    """End the helpers of `get_ready` that nobody needed."""
    for helper in _take(len(_ready)):
        helper.kill()
        helper.close()


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


def _compile_in_helpers(sources: Sequence[Source], helpers: Sequence[_Helper]) -> Iterator[tuple[int, KernelObject]]:
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
    try:
        for thread in threads:
            thread.start()
        for _ in sources:
            index, outcome = finished.get()
            if isinstance(outcome, CompileError):
                raise outcome
            yield index, outcome
    finally:
        for helper in helpers:
            helper.kill()
        for thread in threads:
            thread.join()
        for helper in helpers:
            helper.close()


def _start(helpers: int) -> list[_Helper]:
    started: list[_Helper] = []
    try:
        started.extend(_Helper() for _ in range(helpers))
    except OSError as error:
        for helper in started:
            helper.kill()
            helper.close()
        raise CompileError(
            f"cannot start helper processes to compile kernels: {error}; GRAPHC_COMPILE_JOBS=0 compiles in this process"
        ) from error
    return started


def _serve() -> None:
    """A helper's life: answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing that a kernel's text prints may get between the answers
    compile_source("warm_up", _WARM_UP)  # imports what every kernel needs, while the parent prepares its first request
    # Numba's many objects make the collector look again and again, for an eighth of the time: it looks now and then.
    gc.disable()
    for count, line in enumerate(sys.stdin, 1):
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
        _serve()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)
