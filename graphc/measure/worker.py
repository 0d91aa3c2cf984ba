"""A subject in a process of its own: what loading it takes, its peak memory, and turns on request.

Parent and child talk through pipes, in pickles, which no other process can write. The child first says how its
subject came up, and then takes turns until its input ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from graphc.measure.peers import SUBJECTS, Unavailable, load_subject
from graphc.measure.turns import turn

__all__ = ["Loaded", "Worker", "peak_bytes"]

RUNS = 3
"""Runs before the peak of memory is read: some runtimes plan memory in the first and settle in the second."""

#: what a subject imports, apart from what its model needs
_MODULES = {"graphc": "graphc.api", **{name: name for name in SUBJECTS if name != "graphc"}}


@dataclass(frozen=True)
class Loaded:
    """How a subject came up in a process of its own.

    importing   seconds to import the runtime
    loading     seconds from the model's file to ready for the first run
    first       seconds of the first run
    peak        bytes, the most memory the process held: Python, the runtime, the model, the inputs and three runs
    outputs     of a run
    """

    importing: float
    loading: float
    first: float
    peak: int
    outputs: list[Any]


def peak_bytes() -> int:
    """The most memory that this process has held (resident), in bytes."""
    try:  # what getrusage says counts what the parent held when it forked, too
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held if sys.platform == "darwin" else held << 10


class Worker:
    """A child process with one subject. Close it, or use it in `with`.

    Args: as `load_subject` takes them, in `file` a path or bytes.

    Raises Unavailable when the subject cannot be loaded, or when its process ends.
    """

    def __init__(
        self, name: str, file: Path | bytes, feeds: Mapping[str, np.ndarray], threads: int, precision: str = "float32"
    ) -> None:
        self.name = name
        # what a runtime says goes aside, and is shown if it is the last thing that it says
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115  (close() closes it)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "graphc.measure.worker"],  # -P: not what lies in the current folder
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            process_group=0 if os.name == "posix" else None,  # Ctrl-C reaches the parent alone, which ends it
        )  # fmt: skip
        try:
            answer = self._ask((name, file, dict(feeds), threads, precision))
        except BaseException:
            self.close()
            raise
        self.loaded = Loaded(*answer)

    def turn(self, seconds: float) -> list[float]:
        """Run times in ms of a turn in the child; see `graphc.measure.turns.turn`."""
        return list(self._ask(seconds))

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._messages):
            with contextlib.suppress(OSError):  # what was written last has nobody to read it
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, where: TracebackType | None) -> None:
        self.close()

    def _ask(self, request: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send(self._process.stdin, request)
            kind, answer = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise Unavailable(f"its process {self._end()}") from None
        if kind == "unavailable":
            raise Unavailable(answer)
        return answer

    def _end(self) -> str:
        """How the child ended, and the last line that it wrote."""
        status = self._process.wait()
        ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        return f"{ended}: {lines[-1][:200]}" if lines else ended


def _send(pipe: Any, message: object) -> None:
    pickle.dump(message, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """The child's life."""
    name, file, feeds, threads, precision = pickle.load(requests)
    try:
        started = time.perf_counter()
        with contextlib.suppress(ImportError):  # `load_subject` says what is missing
            import_module(_MODULES[name])
        imported = time.perf_counter()
        subject = load_subject(name, file, feeds, threads, precision)
        loaded = time.perf_counter()
        outputs = subject.run()
        ended = time.perf_counter()
        for _ in range(RUNS - 1):
            outputs = subject.run()
    except Unavailable as e:
        _send(answers, ("unavailable", str(e)))
        return
    peak = peak_bytes()
    report = (imported - started, loaded - imported, ended - loaded, peak, subject.arrays(outputs))
    del outputs
    _send(answers, ("loaded", report))
    del report
    while True:
        try:
            seconds = pickle.load(requests)
        except EOFError:
            return
        _send(answers, ("times", turn(subject.run, seconds)))


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a runtime prints may get between the answers
    _serve(sys.stdin.buffer, channel)
