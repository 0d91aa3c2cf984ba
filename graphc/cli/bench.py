"""`graphc bench`: a model against other runtimes, on equal terms: time, start, memory, and whether the outputs agree.

Each subject first comes up in a process of its own, which tells how long that takes and how much memory it holds, and
keeps one that crashes from taking the others along. Then they take turns, together in this process or each in its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphc.cli import show
from graphc.cli.agree import Agreement, compare
from graphc.cli.feeds import feeds_for
from graphc.errors import GraphcError
from graphc.measure.machine import describe_machine
from graphc.measure.peers import Unavailable, check_names, load_subject
from graphc.measure.turns import PAUSE, ROUNDS, Figures, figures, turn
from graphc.measure.worker import Loaded, Worker
from graphc.options import Options

__all__ = ["Outcome", "bench"]


@dataclass
class Outcome:
    """All that was found out. `reference` is the peer whose outputs the others' are compared with."""

    loaded: dict[str, Loaded] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=dict)
    figures: dict[str, Figures] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    reference: str = ""
    agreement: dict[str, Agreement] = field(default_factory=dict)

    def ratio(self, name: str) -> float:
        """graphc's median over this subject's: below 1, graphc is faster."""
        return self.figures["graphc"].median / self.figures[name].median

    @property
    def fastest(self) -> str | None:
        """The fastest peer; None where there is none."""
        peers = [n for n in self.figures if n != "graphc"]
        return min(peers, key=lambda n: self.figures[n].median, default=None)


def bench(arguments: argparse.Namespace) -> int:
    """The command; returns its exit code: 1 when graphc's outputs differ from those of the first peer."""
    from graphc.api import executable_of, resolve

    peers = [name.strip() for name in arguments.against.split(",") if name.strip()]
    check_names(peers)
    if arguments.save:
        from graphc.measure.picture import ENDINGS, check_matplotlib

        show.check_file("--save", arguments.save, ENDINGS)
        check_matplotlib()
    if arguments.json:
        show.check_file("--json", arguments.json)
    options = Options.of(threads=arguments.threads, precision=arguments.precision, progress=sys.stderr.isatty())
    file = resolve(arguments.model)
    exe = executable_of(arguments.model, options)
    feeds = feeds_for(exe.inputs, shapes=arguments.shape, inputs=arguments.input, seed=arguments.seed)
    exe.specialisation(feeds)  # so that it is in the cache, and what is wrong with the model is said now
    outcome = _measure(["graphc", *peers], file, feeds, options, arguments.processes, arguments.seconds)
    _compare(outcome)
    _show(outcome, options.thread_count, arguments.processes)
    if arguments.json:
        record = _record(outcome, arguments, feeds, options)
        Path(arguments.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        show.note(f"wrote {arguments.json}")
    if arguments.save:
        _draw(outcome, arguments, options)
    return 1 if "graphc" in outcome.agreement and not outcome.agreement["graphc"] else 0


# --- measuring -------------------------------------------------------------------------------------------------------


def _measure(
    names: Sequence[str], file: Path, feeds: Mapping[str, np.ndarray], options: Options, processes: str, seconds: float
) -> Outcome:
    outcome = Outcome()
    turns: dict[str, Callable[[float], list[float]]] = {}
    with ExitStack() as stack:
        for name in names:
            try:
                worker = Worker(name, file, feeds, options.thread_count, options.precision)
                stack.callback(worker.close)
                loaded = worker.loaded
                if processes == "one":
                    worker.close()
                    subject = load_subject(name, file, feeds, options.thread_count, options.precision)
                    loaded = _replaced(loaded, subject.arrays(subject.run()))
                    turns[name] = lambda s, run=subject.run: turn(run, s)  # type: ignore[misc]
                else:
                    turns[name] = worker.turn
            except Unavailable as e:
                if name == "graphc":  # came up in this process, and not in its own
                    raise GraphcError(f"graphc in a process of its own: {e}") from None
                outcome.missing[name] = str(e)
                continue
            outcome.loaded[name] = loaded
        needed = len(turns) * (seconds + ROUNDS * PAUSE)
        show.note(f"measuring {', '.join(turns)} in turns: about {needed:.0f} s")
        outcome.times = {name: [] for name in turns}
        for _ in range(ROUNDS):
            for name, take in turns.items():
                outcome.times[name] += take(seconds / ROUNDS)
    outcome.figures = {name: figures(times) for name, times in outcome.times.items()}
    return outcome


def _replaced(loaded: Loaded, outputs: list[Any]) -> Loaded:
    """The same start, with outputs of the process that is measured."""
    return Loaded(loaded.importing, loaded.loading, loaded.first, loaded.peak, outputs)


def _compare(outcome: Outcome) -> None:
    """Everyone's outputs against those of the first peer that there is."""
    outcome.reference = next((name for name in outcome.loaded if name != "graphc"), "")
    if outcome.reference:
        expected = outcome.loaded[outcome.reference].outputs
        for name, loaded in outcome.loaded.items():
            if name != outcome.reference:
                outcome.agreement[name] = compare(loaded.outputs, expected)


# --- what it says ----------------------------------------------------------------------------------------------------


def _show(outcome: Outcome, threads: int, processes: str) -> None:
    numbers = ["median", "p10", "p90", "±", "ratio", "import", "load", "first run", "peak memory"]
    rows = [_row(outcome, name) for name in outcome.figures]
    rows += [(name, *["-"] * len(numbers), f"skipped: {why}") for name, why in outcome.missing.items()]
    where = "one process" if processes == "one" else "a process each"
    title = f"{threads} thread{'s' if threads > 1 else ''}, {where}; ratio: graphc's time over this one's"
    show.table(["", *numbers, "outputs"], rows, title=title, right=numbers)
    fastest = outcome.fastest
    if fastest is not None:
        ratio = outcome.ratio(fastest)
        word = "faster" if ratio < 1 else "slower"
        show.console().print(f"graphc is {max(ratio, 1 / ratio):.2f} times {word} than the fastest peer, {fastest}")


def _row(outcome: Outcome, name: str) -> tuple[str, ...]:
    f, loaded = outcome.figures[name], outcome.loaded[name]
    if name == outcome.reference:
        outputs = "the reference"
    elif name not in outcome.agreement:
        outputs = "nothing to compare with"
    else:
        a = outcome.agreement[name]
        outputs = f"agree with {outcome.reference} ({a.difference:.2g})" if a else f"DIFFER: {a.reason}"
    times = (f.median * 1e-3, f.p10 * 1e-3, f.p90 * 1e-3, f.spread * 1e-3)
    return (
        name, *map(show.seconds_text, times), "" if name == "graphc" else f"{outcome.ratio(name):.2f}",
        *map(show.seconds_text, (loaded.importing, loaded.loading, loaded.first)), show.bytes_text(loaded.peak), outputs,
    )  # fmt: skip


def _record(
    outcome: Outcome, arguments: argparse.Namespace, feeds: Mapping[str, np.ndarray], options: Options
) -> dict[str, Any]:
    subjects = {}
    for name, f in outcome.figures.items():
        loaded, agreement = outcome.loaded[name], outcome.agreement.get(name)
        subjects[name] = {
            **asdict(f), "ratio": outcome.ratio(name), "import": loaded.importing, "load": loaded.loading,
            "first run": loaded.first, "peak bytes": loaded.peak, "agrees": None if agreement is None else bool(agreement),
            "difference": None if agreement is None or not np.isfinite(agreement.difference) else agreement.difference,
        }  # fmt: skip
    return {
        "machine": describe_machine(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": arguments.model, "threads": options.thread_count, "processes": arguments.processes,
        "precision": options.precision, "seconds": arguments.seconds,
        "inputs": {name: [str(a.dtype), list(a.shape)] for name, a in feeds.items()},
        "units": "ms for runs, s for import, load and first run", "reference": outcome.reference,
        "subjects": subjects, "missing": outcome.missing,
    }  # fmt: skip


def _draw(outcome: Outcome, arguments: argparse.Namespace, options: Options) -> None:
    from graphc.measure.picture import draw_bars

    machine = describe_machine()
    threads = f"{options.thread_count} thread{'s' if options.thread_count > 1 else ''}"
    title = f"{Path(arguments.model).name}, {threads}"
    note = f"{machine['processor']}, {machine['cpus']} CPUs; {machine['date']}; {options.precision}"
    draw_bars(arguments.save, title, note, outcome.times)
    show.note(f"wrote {arguments.save}")
