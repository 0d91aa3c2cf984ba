"""What the suites share: cases measured at several thread counts, a table, and a record (`bench.record`).

A suite names its cases and says how to make the subjects of one; the first subject is graphc.

`python -m bench.suite bench/results/speed.json` prints a record as the table that the README shows.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import record
from graphc.cli.agree import compare
from graphc.cli.arguments import duration, thread_number
from graphc.errors import OptionError
from graphc.measure.machine import describe_machine
from graphc.measure.peers import PEERS, Subject, Unavailable
from graphc.measure.picture import draw_ratios
from graphc.measure.turns import Figures, figures, take_turns

__all__ = ["Make", "Result", "draw", "main", "markdown", "measure", "parser", "run_suite", "summary"]

#: how to make each subject of a case at a number of threads; a maker raises Unavailable where there is none
Make = Mapping[str, Callable[[int], Subject]]


@dataclass
class Result:
    """One case at one thread count. Times in ms, by subject; `facts` are graphc's.

    `disagreement` says of subjects how their outputs differ from those of `reference`, the first peer that there is.
    """

    case: str
    threads: int
    figures: dict[str, Figures] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    disagreement: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """graphc's median over the fastest peer's; NaN where there is no peer."""
        peers = [f.median for name, f in self.figures.items() if name != "graphc"]
        return self.figures["graphc"].median / min(peers) if peers else math.nan

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        ratio = None if math.isnan(self.ratio) else self.ratio
        return {**asdict(self), "ratio": ratio}


def measure(case: str, make: Make, threads: int, seconds: float) -> Result:
    """Time one case: all subjects in this process, in turns. Outputs are compared in the same run."""
    result = Result(case, threads)
    subjects: dict[str, Subject] = {}
    for name, maker in make.items():
        try:
            subjects[name] = maker(threads)
        except Unavailable as e:
            result.missing[name] = str(e)
    outputs = {name: s.arrays(s.run()) for name, s in subjects.items()}
    result.reference = next((name for name in subjects if name != "graphc"), "graphc")
    for name in subjects:
        if not (agreement := compare(outputs[name], outputs[result.reference])):
            result.disagreement[name] = agreement.reason
    times = take_turns({name: s.run for name, s in subjects.items()}, seconds)
    result.figures = {name: figures(t) for name, t in times.items()}
    result.facts.update(subjects["graphc"].facts())
    return result


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The options that all suites have, but for `--save`, which `record.parse` adds."""
    out = argparse.ArgumentParser(
        prog=f"python -m bench.{name}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("--threads", type=thread_number, nargs="+", default=[2, 1], metavar="N")
    out.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="cases whose names contain one of these")
    out.add_argument(
        "--seconds",
        type=duration,
        default=1.0,
        metavar="TIME",
        help="measuring time for each subject of a case (default 1)",
    )
    return out


def run_suite(
    options: argparse.Namespace,
    cases: Mapping[str, Callable[[], Make]],
    subjects: Sequence[str],
    columns: Mapping[str, Callable[[Result], str]] | None = None,
) -> int:
    """Measure the cases chosen by `options` (see `parser`), print a table, keep the record and beside it a picture.

    `columns` stand behind the ratio. The exit code: 1 when a case fails or its outputs differ, 2 when there is none.
    """
    columns = columns or {}
    chosen = {n: c for n, c in cases.items() if not options.only or any(text in n for text in options.only)}
    if not chosen:
        print(f"no case of {', '.join(options.only)}; there are {', '.join(cases)}", file=sys.stderr)
        return 2
    results, failures = [], 0
    missing: dict[tuple[str, str], list[str]] = {}
    width = max(map(len, chosen))
    for threads in options.threads:
        print(f"\n{threads} thread{'s' if threads > 1 else ''}; medians in ms, ± half the interquartile range")
        print(
            f"{'':{width}s} {' '.join(f'{n:>16s}' for n in subjects)} {'ratio':>6s} {_join(columns)} agrees", flush=True
        )
        for name, case in chosen.items():
            print(f"{name:{width}s} ", end="", flush=True)
            try:
                result = measure(name, case(), threads, options.seconds)
            except Exception as e:  # one case that fails must not hide the others
                failures += 1
                print(f"FAILS  {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}", flush=True)
                continue
            results.append(result)
            for absent in result.missing.items():
                missing.setdefault(absent, []).append(name)
            failures += "graphc" in result.disagreement
            print(_row(result, subjects, columns), flush=True)
        print(summary([r for r in results if r.threads == threads]))
    for (peer, why), names in missing.items():
        print(f"{peer}, {'all cases' if len(names) == len(results) else ', '.join(dict.fromkeys(names))}: {why}")
    if results:
        record.write(options.save, {"results": [r.record for r in results]})
        if options.save is not None:
            draw(options.save.with_suffix(".svg"), results)
    return 1 if failures else 0


def _row(result: Result, subjects: Sequence[str], columns: Mapping[str, Callable[[Result], str]]) -> str:
    """The figures of one case, behind its name."""
    cells = [
        f"{result.figures[n].median:9.3f} ±{result.figures[n].spread:5.2f}" if n in result.figures else f"{'-':>16s}"
        for n in subjects
    ]
    differs = [f"NO: {why}" for name, why in result.disagreement.items() if name == "graphc"] or ["yes"]
    differs += [f"({name} does not: {why})" for name, why in result.disagreement.items() if name != "graphc"]
    more = _join({name: text(result) for name, text in columns.items()}.values())
    return f"{' '.join(cells)} {result.ratio:6.2f} {more} {' '.join(differs)}"


def _join(cells: Iterable[str]) -> str:
    return "".join(f"{cell:>10s} " for cell in cells)


def summary(results: Sequence[Result]) -> str:
    """The geometric mean of the ratios, and the worst."""
    ratios = {r.case: r.ratio for r in results if not math.isnan(r.ratio)}
    if not ratios:
        return "nothing to compare with"
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    worst = max(ratios, key=lambda name: ratios[name])
    return f"ratio to the fastest peer: geometric mean {mean:.2f}, worst {ratios[worst]:.2f} ({worst})"


def draw(path: Path, results: Sequence[Result]) -> None:
    """A picture of the ratios; a remark where matplotlib is not installed."""
    series: dict[str, dict[str, float]] = {}
    for r in results:
        if not math.isnan(r.ratio):
            series.setdefault(f"{r.threads} thread{'s' if r.threads > 1 else ''}", {})[r.case] = r.ratio
    if not series:
        return
    machine = describe_machine()
    versions = machine["versions"]
    assert isinstance(versions, dict)
    peers = ", ".join(f"{n} {versions[n]}" for n in PEERS if any(n in r.figures for r in results) and n in versions)
    try:
        draw_ratios(str(path), path.stem, f"{machine['processor']}, {machine['date']}; against {peers}", series)
        print(f"wrote {path}")
    except OptionError as e:
        print(f"no picture: {e}")


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """A record's results as a table: times at its first thread count, and the ratio at every one."""
    threads = list(dict.fromkeys(r["threads"] for r in results))
    found = {(r["case"], r["threads"]): r for r in results}
    subjects = list(dict.fromkeys(name for r in results for name in r["figures"]))
    ratios = ["ratio", *(f"ratio, {n} thread{'s' if n > 1 else ''}" for n in threads[1:])]
    lines = [f"| | {' | '.join([*subjects, *ratios])} |", "|---" * (1 + len(subjects) + len(ratios)) + "|"]
    for case in dict.fromkeys(r["case"] for r in results):
        figures = found[case, threads[0]]["figures"] if (case, threads[0]) in found else {}
        cells = [_milliseconds(figures[n]["median"]) if n in figures else "-" for n in subjects]
        values = [found.get((case, n), {}).get("ratio") for n in threads]
        cells += ["-" if r is None else f"{r:.2f}" for r in values]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    means = []
    for n in threads:
        logs = [math.log(r["ratio"]) for r in results if r["threads"] == n and r["ratio"] is not None]
        means.append(f"{math.exp(sum(logs) / len(logs)):.2f}" if logs else "-")
    lines.append(f"| geometric mean | {' | '.join([*[''] * len(subjects), *means])} |")
    return "\n".join(lines)


def _milliseconds(ms: float) -> str:
    return f"{ms:.3f}" if ms < 1 else f"{ms:.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print a record as a table."""
    options = argparse.ArgumentParser(prog="python -m bench.suite", description="Print a suite's record as a table.")
    options.add_argument("record", type=Path, metavar="FILE.json")
    kept = json.loads(options.parse_args(argv).record.read_text(encoding="utf-8"))
    machine = kept["machine"]
    versions = ", ".join(f"{n} {machine['versions'][n]}" for n in PEERS if n in machine["versions"])
    print(f"{machine['processor']}, {machine['cpus']} CPUs, {machine['date']}; {versions}\n")
    print(markdown(kept["results"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
