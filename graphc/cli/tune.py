"""`graphc tune`: measure how to compute a model's convolutions and products, and say what that saves."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

from graphc.cli import show
from graphc.cli.feeds import feeds_for
from graphc.kernels.choice import using
from graphc.options import Options
from graphc.runtime.executable import Executable
from graphc.runtime.tuning import Finding, Tuner

__all__ = ["tune"]

#: seconds that the whole model is run for, as estimated and as tuned, in turns
COMPARE_SECONDS, TURNS = 1.0, 6


def tune(arguments: argparse.Namespace) -> int:
    """The command; returns its exit code."""
    from graphc.api import source_of

    options = Options.of(
        threads=arguments.threads, precision=arguments.precision, level=arguments.level, disable=arguments.disable
    )
    source = source_of(arguments.model)

    def compiled() -> Executable:
        exe = Executable(source, options)
        exe.specialisation(feeds)
        return exe

    feeds = feeds_for(Executable(source, options).inputs, shapes=arguments.shape)
    tuner = Tuner(options, again=arguments.forget)
    why = f"the budget of {arguments.budget:g} s is spent"
    try:
        with _progress() as report:
            tuner.run(compiled, arguments.budget, report)
    except KeyboardInterrupt:
        why = "interrupted"
    if tuner.findings:
        _show(tuner.findings)
    show.note(_summary(tuner, why))
    if any(f.choice is not None for f in tuner.findings):
        with using({}):
            estimated = compiled()
        before, after = _in_turns(estimated, compiled(), feeds)
        show.console().print(
            f"{source.name}: {show.seconds_text(before)} as estimated, {show.seconds_text(after)} as tuned"
        )
    return 0


def _summary(tuner: Tuner, why: str) -> str:
    """What was measured, what had been before, and what was not and `why`."""
    done, left = len([f for f in tuner.findings if f.key not in tuner.left]), len(tuner.left)
    before = f", {tuner.known} had been measured before" if tuner.known else ""
    if left:
        return f"{why}: {done} of {done + left} problems measured{before}; the same command goes on with the others"
    if done:
        return f"{done} of {done} problems measured{before}"
    if tuner.known:
        return f"nothing to measure: all {tuner.known} problems have been measured before; --forget measures them again"
    if why == "interrupted":
        return "interrupted before anything was measured"
    return "nothing to measure: no kernel of this model is a convolution or product of float32 or float64"


def _show(findings: list[Finding]) -> None:
    rows = [
        (
            f.key,
            f.kernels,
            show.seconds_text(f.estimated),
            show.seconds_text(f.best),
            "-" if f.choice is None else _described(f),
        )
        for f in sorted(findings, key=lambda f: -f.saved)
    ]
    show.table(["problem", "kernels", "estimated", "best", "tile"], rows, right=["kernels", "estimated", "best"])


def _described(f: Finding) -> str:
    assert f.choice is not None
    tile = f"{f.choice.rows}x{f.choice.vectors}"
    if f.choice.levels:
        return f"{tile}, Strassen{' twice' * (f.choice.levels == 2)}"
    return tile if f.choice.tile is None else f"{tile}, Winograd in tiles of {f.choice.tile[0]}x{f.choice.tile[1]}"


def _in_turns(first: Executable, second: Executable, feeds: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The median time of a run of each, measured in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for exe, mine in zip((first, second), times, strict=True):
            time.sleep(0.05)
            exe.run(None, dict(feeds))
            until = time.perf_counter() + COMPARE_SECONDS / TURNS
            while not mine or time.perf_counter() < until:
                started = time.perf_counter()
                exe.run(None, dict(feeds))
                mine.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


class _progress:  # noqa: N801  (used as a function)
    """A bar on standard error, where that is a terminal."""

    def __enter__(self) -> Callable[[int, int, str], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar.start()
        task = self._bar.add_task("compiling", total=None)

        def report(done: int, total: int, key: str) -> None:
            self._bar.update(task, completed=done, total=total, description=key)
            if not console.is_terminal:
                print(f"graphc: measuring {done + 1} of {total}: {key}", file=sys.stderr)

        return report

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
