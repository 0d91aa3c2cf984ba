"""How fast, on 21 models: `python -m bench.speed [--threads 2 1] [--only NAME ...] [--seconds 2]`.

Every model runs in all runtimes in one process, in turns with pauses (see `graphc.measure.turns`), each with the same
number of threads. Reported are medians, half of the distance between the quartiles, and the ratio of graphc's median to
that of the fastest peer (below 1: graphc is faster). Only ratios within one run mean anything. The outputs are compared
in the same run, and planned memory is shown against its lower bound (the largest set of buffers alive at once).

The figures also go into bench/results/speed.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.models import Case, cases
from bench.record import parse
from bench.suite import Make, Result, parser, run_suite
from graphc.measure.peers import PEERS, load_subject

__all__ = ["main"]


def subjects(case: Case, names: Sequence[str]) -> Make:
    """The model in these runtimes."""
    feeds = case.feeds()
    return {name: lambda threads, name=name: load_subject(name, case.file, feeds, threads) for name in names}  # type: ignore[misc]


def memory(result: Result) -> str:
    """Planned memory over its lower bound."""
    bound = result.facts["lower bound"]
    return f"{result.facts['arena'] / bound:.3f}" if bound else "-"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 when a model fails or disagrees."""
    options = parser("speed", __doc__)
    options.add_argument(
        "--models", type=Path, help="the folder of fetched models (default: $GRAPHC_MODELS, or models/)"
    )
    options.add_argument(
        "--against", nargs="+", choices=PEERS, default=["onnxruntime", "openvino"], help="torch needs onnx2torch"
    )
    options.set_defaults(seconds=2.0)
    arguments = parse(options, "speed", argv, places=["models"])
    names = ["graphc", *arguments.against]
    try:
        chosen: dict[str, Callable[[], Make]] = {
            case.name: lambda case=case: subjects(case, names)  # type: ignore[misc]
            for case in cases(arguments.models, arguments.only)
        }
    except (FileNotFoundError, ValueError) as e:
        print(f"bench.speed: {e}", file=sys.stderr)
        return 2
    columns = {"memory": memory, "launches": lambda r: str(r.facts["launches"])}
    return run_suite(arguments, chosen, names, columns)


if __name__ == "__main__":
    sys.exit(main())
