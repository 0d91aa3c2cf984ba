"""How fast, against onnxruntime and openvino: `python -m bench.speed [--threads 2 1] [--only NAME ...] [--seconds 2]`.

Every model runs in all three in one process, in turns of a fraction of a second with pauses between them so that the
threads of the one that just ran have come to rest; each gets the same number of threads. Reported are medians, half of
the spread between the quartiles, and the ratio of graphc's median to that of the faster peer (below 1: graphc is
faster). Only ratios within one run mean anything. The outputs are compared in the same run, and planned memory is
shown against its lower bound (the largest set of buffers alive at once).

The figures also go into bench/results/speed.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.models import Case, cases
from graphc.cli.agree import compare
from graphc.measure.machine import describe_machine
from graphc.measure.peers import Unavailable, onnxruntime_runner, openvino_runner
from graphc.measure.turns import take_turns

__all__ = ["Result", "main", "measure"]

RESULTS = Path(__file__).parent / "results"
PEERS = ("onnxruntime", "openvino")


@dataclass
class Result:
    """One model at one thread count. Times in ms: median and half the interquartile range by subject."""

    model: str
    threads: int
    median: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    agrees: bool = False
    disagreement: str = ""
    arena: int = 0
    lower_bound: int = 0
    launches: int = 0

    @property
    def ratio(self) -> float:
        """graphc's median over the faster peer's."""
        return self.median["graphc"] / min(self.median[p] for p in PEERS if p in self.median)


def measure(case: Case, threads: int, seconds: float) -> Result:
    """Time one model in all runtimes."""
    import graphc

    feeds = case.feeds()
    result = Result(case.name, threads)
    exe = graphc.compile(case.model, threads=threads)
    for plan in exe.specialisation(feeds).plans:
        result.arena += plan.memory.arena
        result.lower_bound += plan.memory.lower_bound
        result.launches += len(plan.program.launches)
    subjects: dict[str, Callable[[], Any]] = {"graphc": lambda: exe.run(None, feeds)}
    for name, make in (("onnxruntime", onnxruntime_runner), ("openvino", openvino_runner)):
        try:
            subjects[name] = make(case.file, feeds, threads)
        except Unavailable as e:
            result.missing[name] = str(e)
    parts = [compare(g, w) for g, w in zip(subjects["graphc"](), subjects["onnxruntime"](), strict=True)]
    result.agrees = all(parts)
    result.disagreement = next((p.reason for p in parts if not p), "")
    for name, times in take_turns(subjects, seconds).items():
        low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
        result.median[name], result.spread[name] = middle, (high - low) / 2
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 when a model fails or disagrees."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed", description="Time graphc against onnxruntime and openvino."
    )
    parser.add_argument(
        "--models", type=Path, help="the folder of fetched models (default: $GRAPHC_MODELS, or models/)"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1], metavar="N")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="measuring time for each runtime and model (default 2)"
    )
    parser.add_argument("--save", type=Path, default=RESULTS / "speed.json", help="where the figures go")
    arguments = parser.parse_args(argv)
    try:
        chosen = list(cases(arguments.models, arguments.only))
    except (FileNotFoundError, ValueError) as e:
        print(f"bench.speed: {e}", file=sys.stderr)
        return 2

    results, failures = [], 0
    for threads in arguments.threads:
        print(f"\n{threads} thread{'s' if threads > 1 else ''}; medians in ms, ± half the interquartile range")
        print(
            f"{'model':24s} {'graphc':>16s} {'onnxruntime':>16s} {'openvino':>16s} "
            f"{'ratio':>6s} {'memory':>7s} {'launches':>8s}  agrees"
        )
        for case in chosen:
            print(f"{case.name:24s} ", end="", flush=True)
            try:
                r = measure(case, threads, arguments.seconds)
            except Exception as e:  # one model that fails must not hide the others
                failures += 1
                print(f"FAILS  {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}", flush=True)
                continue
            results.append(r)
            failures += not r.agrees
            print(_row(r), flush=True)
        _summary([r for r in results if r.threads == threads])
    if results:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        rows = [{**asdict(r), "ratio": r.ratio} for r in results]
        arguments.save.write_text(
            json.dumps({"machine": describe_machine(), "results": rows}, indent=1) + "\n", encoding="utf-8"
        )
        print(f"\nwrote {arguments.save}")
    return 1 if failures else 0


def _row(r: Result) -> str:
    cells = [f"{r.median[n]:9.3f} ±{r.spread[n]:5.2f}" if n in r.median else f"{'-':>16s}" for n in ("graphc", *PEERS)]
    memory = f"{r.arena / r.lower_bound:7.3f}" if r.lower_bound else f"{'-':>7s}"
    return (
        f"{' '.join(cells)} {r.ratio:6.2f} {memory} {r.launches:8d}  {'yes' if r.agrees else 'NO: ' + r.disagreement}"
    )


def _summary(results: Sequence[Result]) -> None:
    if not results:
        return
    mean = math.exp(statistics.fmean(math.log(r.ratio) for r in results))
    worst = max(results, key=lambda r: r.ratio)
    memory = max((r.arena / r.lower_bound for r in results if r.lower_bound), default=float("nan"))
    print(
        f"ratio to the faster peer: geometric mean {mean:.2f}, worst {worst.ratio:.2f} ({worst.model}); "
        f"within 2.5: {sum(r.ratio <= 2.5 for r in results)} of {len(results)}; "
        f"memory at most {memory:.3f} of the lower bound"
    )
    for r in results:
        if r.model == "silero_vad_16k_op15":
            print(f"one call of {r.model}: {r.median['graphc']:.3f} ms")


if __name__ == "__main__":
    sys.exit(main())
