"""Peak memory on 21 models: `python -m bench.memory [--threads 2] [--only NAME ...]`.

The most resident memory that a process holds which loads a model and runs it three times, Python and its inputs
included, graphc with a warm kernel cache. Each runtime has a process of its own. Prints MB (10**6 bytes).

The figures also go into bench/results/memory.json.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.models import Case, cases
from bench.record import parse, write
from graphc.cli.arguments import thread_number
from graphc.measure.peers import Unavailable
from graphc.measure.worker import Worker

__all__ = ["main", "peaks"]

SUBJECTS = ("graphc", "onnxruntime")


def peaks(case: Case, threads: int) -> dict[str, int]:
    """Bytes by runtime. Raises Unavailable when one cannot run the model."""
    feeds: dict[str, np.ndarray] = case.feeds()
    with Worker("graphc", case.file, feeds, threads):
        pass  # whatever was not in the cache is now
    found = {}
    for name in SUBJECTS:
        with Worker(name, case.file, feeds, threads) as worker:
            found[name] = worker.loaded.peak
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 when graphc takes more than onnxruntime on a model, or a model fails."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=thread_number, default=2, metavar="N")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument(
        "--models", type=Path, help="the folder of fetched models (default: $GRAPHC_MODELS, or models/)"
    )
    arguments = parse(parser, "memory", argv, places=["models"])
    try:
        chosen = list(cases(arguments.models, arguments.only))
    except (FileNotFoundError, ValueError) as e:
        print(f"bench.memory: {e}", file=sys.stderr)
        return 2
    results: list[dict[str, Any]] = []
    failures = 0
    print(f"{'MB':24s} {'graphc':>12s} {'onnxruntime':>12s} {'ratio':>6s}")
    for case in chosen:
        try:
            found = peaks(case, arguments.threads)
        except Unavailable as e:
            failures += 1
            print(f"{case.name:24s} FAILS  {e}", flush=True)
            continue
        ratio = found["graphc"] / found["onnxruntime"]
        results.append({"model": case.name, "threads": arguments.threads, "bytes": found, "ratio": ratio})
        print(
            f"{case.name:24s} {found['graphc'] / 1e6:12.1f} {found['onnxruntime'] / 1e6:12.1f} {ratio:6.2f}", flush=True
        )
    if results:
        mean = math.exp(sum(math.log(r["ratio"]) for r in results) / len(results))
        more = [r["model"] for r in results if r["ratio"] > 1]
        print(
            f"geometric mean {mean:.2f}; more than onnxruntime on {len(more)} of {len(results)}: {', '.join(more) or '-'}"
        )
        write(arguments.save, {"results": results})
        failures += len(more)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
