"""How long until the first result: `python -m bench.startup [--model onnx:resnet50] [--repeat 5]`.

Each figure is the wall-clock time of a whole new process: importing graphc; compiling and running a model with an empty
kernel cache; the same again with the cache that this left. Says whether a warm process stayed clear of Numba.
The figures also go into bench/results/startup.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from graphc.measure.machine import describe_machine

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"

_IMPORT = "import graphc"
_RUN = """
import json, sys, time
started = time.perf_counter()
import graphc
imported = time.perf_counter()
import numpy as np
exe = graphc.compile(sys.argv[1])
compiled = time.perf_counter()
feeds = {p.name: np.random.default_rng(0).random(p.shape, np.float32) for p in exe.inputs}
exe.run(None, feeds)
ended = time.perf_counter()
print(json.dumps({"import": imported - started, "compile": compiled - imported, "first run": ended - compiled,
                  "numba": "numba" in sys.modules}))
"""


def _process(program: str, *arguments: str, cache: str | None = None) -> tuple[float, str]:
    """Seconds that a Python process takes from start to end, and what it prints. Raises CalledProcessError."""
    environment = {**os.environ, **({"GRAPHC_CACHE": cache} if cache else {})}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - started, done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description="Time imports, cold and warm starts.")
    parser.add_argument("--model", default="onnx:resnet50", help="a model whose inputs have fixed shapes")
    parser.add_argument(
        "--repeat", type=int, default=5, help="processes to take the median of (the cold start runs once)"
    )
    parser.add_argument("--save", type=Path, default=RESULTS / "startup.json", help="where the figures go")
    arguments = parser.parse_args(argv)

    figures: dict[str, object] = {"model": arguments.model}
    bare = statistics.median(_process("pass")[0] for _ in range(arguments.repeat))
    importing = statistics.median(_process(_IMPORT)[0] for _ in range(arguments.repeat))
    figures["python"], figures["import"] = bare, importing - bare
    print(f"{'python, nothing imported':36s} {bare:8.3f} s")
    print(f"{'import graphc, on top of that':36s} {importing - bare:8.3f} s", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        cold, printed = _process(_RUN, arguments.model, cache=cache)
        figures["cold"], figures["cold stages"] = cold, json.loads(printed)
        print(f"{arguments.model + ', cold cache':36s} {cold:8.3f} s   {_stages(printed)}", flush=True)
        warm = [_process(_RUN, arguments.model, cache=cache) for _ in range(arguments.repeat)]
    seconds, printed = sorted(warm)[len(warm) // 2]
    figures["warm"], figures["warm stages"] = seconds, json.loads(printed)
    print(f"{arguments.model + ', warm cache':36s} {seconds:8.3f} s   {_stages(printed)}")
    arguments.save.parent.mkdir(parents=True, exist_ok=True)
    arguments.save.write_text(json.dumps({"machine": describe_machine(), **figures}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {arguments.save}")
    return 0


def _stages(printed: str) -> str:
    stages = json.loads(printed)
    numba = stages.pop("numba")
    return (
        ", ".join(f"{name} {seconds:.3f}" for name, seconds in stages.items())
        + f"; numba {'was' if numba else 'not'} imported"
    )


if __name__ == "__main__":
    sys.exit(main())
