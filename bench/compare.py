"""All 21 models against onnxruntime: `python -m bench.compare [--models DIR] [--threads 1 2] [--only NAME ...]`.

Outputs agree within 1e-3 of each element plus 1e-4 of the output's largest magnitude. Prints a row a model and
"21 of 21 agree"; the exit code is 1 otherwise.

With --random-weights: the nine shipped topologies only, whose own weights are all the same number, with weights that
tell channels apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.models import SHIPPED, Case, cases
from graphc.cli.agree import Agreement, compare
from graphc.cli.arguments import thread_number
from graphc.measure.peers import onnxruntime_session

__all__ = ["check", "main"]


def check(case: Case, threads: int) -> tuple[Agreement, float, float]:
    """The worst agreement over the outputs, seconds to compile, and milliseconds of the second run."""
    import graphc

    feeds = case.feeds()
    started = time.perf_counter()
    exe = graphc.compile(case.model, threads=threads)
    exe.specialisation(feeds)
    compiling = time.perf_counter() - started
    before = {name: array.copy() for name, array in feeds.items()}
    exe.run(None, feeds)
    started = time.perf_counter()
    got = exe.run(None, feeds)
    running = time.perf_counter() - started
    if any((before[name] != array).any() for name, array in feeds.items()):
        return Agreement(float("inf"), float("inf"), "an input was overwritten"), compiling, running * 1e3
    want: list[Any] = onnxruntime_session(case.file, threads).run(None, feeds)
    return compare(got, want), compiling, running * 1e3


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Compare all models with onnxruntime.")
    parser.add_argument(
        "--models", type=Path, help="the folder of fetched models (default: $GRAPHC_MODELS, or models/)"
    )
    parser.add_argument("--threads", type=thread_number, nargs="+", default=[2], metavar="N")
    parser.add_argument("--random-weights", action="store_true", help="the shipped topologies with random weights")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    arguments = parser.parse_args(argv)
    try:
        if arguments.random_weights:
            chosen = [case.with_random_weights() for case in cases(only=arguments.only or SHIPPED)]
        else:
            chosen = list(cases(arguments.models, arguments.only))
    except (FileNotFoundError, ValueError) as e:
        print(f"bench.compare: {e}", file=sys.stderr)
        return 2

    agreed, total = 0, len(chosen) * len(arguments.threads)
    print(f"{'model':26s} {'threads':>7s} {'compile':>9s} {'run':>11s} {'error':>9s} {'of tolerance':>12s}")
    for threads in arguments.threads:
        for case in chosen:
            print(f"{case.name:26s} {threads:7d} ", end="", flush=True)
            try:
                agreement, compiling, running = check(case, threads)
            except Exception as e:  # one model that fails must not hide the others
                print(f"FAILS  {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}")
                continue
            agreed += bool(agreement)
            print(
                f"{compiling:7.2f} s {running:8.2f} ms {agreement.difference:9.2e} {agreement.worst:12.4f}"
                + ("" if agreement else f"  DIFFERS  {agreement.reason}"),
                flush=True,
            )
    print(f"{agreed} of {total} agree")
    return 0 if agreed == total else 1


if __name__ == "__main__":
    sys.exit(main())
