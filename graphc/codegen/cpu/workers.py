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
_COLLECT_EVERY = 16  # kernels, which leave 2 to 3 MB each


def compile_all(sources: Sequence[tuple[str, str]], helpers: int | None = None) -> Iterator[tuple[int, KernelObject]]:
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


#: helpers that were started before there was anything to compile
_ready: list[subprocess.Popen[str]] = []


def get_ready() -> None:
    """Start helpers now, to compile soon: importing Numba takes them as long as a model takes to be planned."""
    if not _ready:
        with contextlib.suppress(CompileError):  # the one who compiles will say it
            _ready.extend(_start(_default_helpers(2 * _MOST_HELPERS)))


def _take(most: int) -> list[subprocess.Popen[str]]:
    """Some of the helpers that are ready; no other thread gets the same ones."""
    taken: list[subprocess.Popen[str]] = []
    with contextlib.suppress(IndexError):
        while len(taken) < most:
            taken.append(_ready.pop())
    return taken


def dismiss() -> None:
    """End the helpers of `get_ready` that nobody needed."""
    for process in _take(len(_ready)):
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe
            pipe.close()


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


def _compile_in_helpers(
    sources: Sequence[tuple[str, str]], processes: Sequence[subprocess.Popen[str]]
) -> Iterator[tuple[int, KernelObject]]:
    # Long texts first: the last one to finish should be a short one.
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in sorted(range(len(sources)), key=lambda i: -len(sources[i][1])):
        waiting.put(index)
    finished: queue.SimpleQueue[tuple[int, KernelObject | CompileError]] = queue.SimpleQueue()

    def feed(process: subprocess.Popen[str]) -> None:
        while True:
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                return
            outcome = _ask(process, *sources[index])
            finished.put((index, outcome))
            if isinstance(outcome, CompileError):
                return

    threads = [threading.Thread(target=feed, args=(process,), daemon=True) for process in processes]
    try:
        for thread in threads:
            thread.start()
        for _ in sources:
            index, outcome = finished.get()
            if isinstance(outcome, CompileError):
                raise outcome
            yield index, outcome
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()
        for pipe in [pipe for process in processes for pipe in (process.stdin, process.stdout) if pipe]:
            with contextlib.suppress(OSError):  # what was written last has nobody to read it
                pipe.close()


def _start(helpers: int) -> list[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    # -P: modules that lie in the current directory, which may be anybody's, are not to be imported.
    command = [sys.executable, "-P", "-m", "graphc.codegen.cpu.workers"]
    pipe = subprocess.PIPE
    own_group = 0 if os.name == "posix" else None  # Ctrl-C reaches the parent alone, which ends its helpers quietly
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(helpers):
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", env=environment, process_group=own_group
            )
            started.append(process)
    except OSError as error:
        for process in started:
            process.kill()
        raise CompileError(
            f"cannot start helper processes to compile kernels: {error}; GRAPHC_COMPILE_JOBS=0 compiles in this process"
        ) from error
    return started


def _ask(process: subprocess.Popen[str], name: str, text: str) -> KernelObject | CompileError:
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps((name, text)) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
    except (OSError, ValueError):
        return CompileError(
            f"the helper process that compiled kernel {name!r} ended; GRAPHC_COMPILE_JOBS=0 compiles in this process"
        )
    if "error" in answer:
        return CompileError(answer["error"])
    return KernelObject.from_bytes(base64.b64decode(answer["object"]))


def _serve() -> None:
    """A helper's life: answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing that a kernel's text prints may get between the answers
    import numba  # noqa: F401  # while the parent is still preparing its first request

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
