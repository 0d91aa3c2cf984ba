"""How long until the first result, and how much memory that takes, in new processes, beside onnxruntime.

    python -m bench.startup [--models resnet50 ...] [--repeat 5] [--threads 1]

For each model new processes take turns: graphc (with what a former process left in its cache) and onnxruntime. Each
starts Python, imports, loads the model from its file, and runs once on inputs read from disk. `time` is from the start of
the process to that result, `cpu` the processor time spent by then (steadier on a busy machine), `memory` the most that
was resident. The fastest of the repetitions counts, as everything else only adds to it.

Before that, for `--cold`: an import, and the same process with an empty cache. Figures go into bench/results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.record import parse, write
from graphc.cli.arguments import thread_number

__all__ = ["main"]

_LOAD = {
    "graphc": """
import graphc
model = graphc.compile(sys.argv[1], threads=int(sys.argv[3]))
""",
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = int(sys.argv[3]), 3
model = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
""",
}
# The peak is VmHWM: ru_maxrss starts with what the parent had when it made the process.
_PROGRAM = """
import sys
import numpy as np
{load}
feeds = {{name: np.load(f"{{sys.argv[2]}}/{{k}}.npy") for k, name in enumerate(sys.argv[4:])}}
model.run(None, feeds)
import time
ended, used = time.perf_counter(), time.process_time()
try:
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
except OSError:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(ended, used, peak, *(name for name in ("numba", "onnx", "llvmlite") if name in sys.modules))
"""
_FEEDS = """
import json, sys
import numpy as np
from bench.models import cases
(case,) = cases(only=[sys.argv[1]])
feeds = case.feeds()
for k, array in enumerate(feeds.values()):
    np.save(f"{sys.argv[2]}/{k}.npy", array)
print(json.dumps([str(case.file), list(feeds)]))
"""


def _process(program: str, *arguments: str, cache: str | None = None) -> tuple[float, list[str]]:
    """When a new Python process was started (`time.perf_counter`, a clock all processes share), and the words that it
    prints last. Raises CalledProcessError."""
    environment = os.environ | ({"GRAPHC_CACHE": cache} if cache else {})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code, and so do the peers
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return started, done.stdout.splitlines()[-1].split() if done.stdout else []


def _first_result(subject: str, arguments: Sequence[str], cache: str | None = None) -> dict[str, Any]:
    started, (ended, used, peak, *imported) = _process(_PROGRAM.format(load=_LOAD[subject]), *arguments, cache=cache)
    return {
        "seconds": float(ended) - started,
        "cpu seconds": float(used),
        "peak MB": int(peak) * 1024 / 1e6,
        "imported": imported,
    }


def _best(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The least of each figure."""
    best = {key: min(r[key] for r in runs) for key in ("seconds", "cpu seconds", "peak MB")}
    return best | {"imported": runs[-1]["imported"]}


def _feeds(name: str, folder: str) -> tuple[str, list[str]]:
    """Writes a model's inputs into the folder; the model's file, and the names of the inputs."""
    printed = subprocess.run(
        [sys.executable, "-c", _FEEDS, name, folder],
        cwd=Path(__file__).parent.parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    file, names = json.loads(printed)
    return file, names


def _cold(name: str, threads: str, repeat: int) -> dict[str, float]:
    """Seconds of Python alone, of `import graphc` on top, and until the first result with an empty cache."""

    def least(program: str) -> float:
        return min(-started + time.perf_counter() for started, _ in (_process(program) for _ in range(repeat)))

    bare = least("pass")
    figures = {"python": bare, "import": least("import graphc") - bare}
    print(f"python {bare:.3f} s, import graphc {figures['import']:.3f} s on top of that", flush=True)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        file, names = _feeds(name, folder)
        figures["cold"] = _first_result("graphc", [file, folder, threads, *names], cache)["seconds"]
    print(f"{name} with an empty cache: first result after {figures['cold']:.2f} s\n", flush=True)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    from bench.models import SHIPPED, TRAINED, cases

    parser = argparse.ArgumentParser(prog="python -m bench.startup", description="Time and memory of a first result.")
    parser.add_argument("--models", nargs="*", default=[*SHIPPED, *TRAINED], metavar="NAME", help="default: all")
    parser.add_argument("--cold", default="resnet50", metavar="NAME", help="the model of the cold start; '' for none")
    parser.add_argument("--repeat", type=int, default=5, help="processes of each kind")
    parser.add_argument("--threads", type=thread_number, default=1, help="threads of both")
    arguments = parse(parser, "startup", argv)
    try:
        list(cases(only=[*arguments.models, *filter(None, [arguments.cold])]))
    except (FileNotFoundError, ValueError) as e:
        print(f"bench.startup: {e}", file=sys.stderr)
        return 2
    threads = str(arguments.threads)

    figures: dict[str, Any] = {"threads": arguments.threads}
    if arguments.cold:
        figures["cold"] = {"model": arguments.cold} | _cold(arguments.cold, threads, arguments.repeat)
    columns = "".join(f"{what:>28s}" for what in ("time, s", "cpu, s", "memory, MB"))
    print(f"{'':24s}{columns}\n{'model':24s}" + f"{'graphc':>10s}{'ort':>10s}{'ratio':>8s}" * 3)
    table: dict[str, Any] = {}
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            file, names = _feeds(name, folder)
            given = [file, folder, threads, *names]
            _first_result("graphc", given)  # leaves in the cache what the others find
            runs: dict[str, list[dict[str, Any]]] = {subject: [] for subject in _LOAD}
            for _ in range(arguments.repeat):
                for subject, kept in runs.items():
                    kept.append(_first_result(subject, given))
        row = table[name] = {subject: _best(kept) for subject, kept in runs.items()}
        ours, theirs = row["graphc"], row["onnxruntime"]
        cells = [
            f"{ours[key]:10.{digits}f}{theirs[key]:10.{digits}f}{ours[key] / theirs[key]:8.2f}"
            for key, digits in (("seconds", 3), ("cpu seconds", 2), ("peak MB", 0))
        ]
        print(f"{name:24s}{''.join(cells)}  {' '.join(ours['imported'])}", flush=True)
    figures["warm"] = table
    write(arguments.save, figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
