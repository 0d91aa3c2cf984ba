"""`graphc profile`: where the time of a run goes, launch by launch, and how near each comes to what the machine does.

The clock is read between the launches of real runs, by the plan itself, so caches are in the state that the run leaves
them in. Rates are set against loops measured beside them (`graphc.measure.roofs`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.cli import show
from graphc.cli.feeds import feeds_for
from graphc.errors import InputError
from graphc.kernels.ir import Launch, LoopNest
from graphc.kernels.machine import host_machine
from graphc.measure.machine import describe_machine
from graphc.measure.roofs import Roofs, measure_roofs
from graphc.options import Options
from graphc.runtime.assemble import CompiledGraph
from graphc.runtime.executable import Executable

__all__ = ["Row", "profile"]


@dataclass(frozen=True)
class Row:
    """A launch. Figures are of one run (medians over all), in which it is launched `calls` times.

    operations   scalar operations: those of a contraction's definition, a rough count for other kernels
    nbytes       of its operands, each counted once; a bound for kernels that read only part of one
    """

    kernel: str
    family: str
    nodes: str
    calls: float
    tasks: int
    ms: float
    share: float
    operations: float
    nbytes: float
    gflops: float
    gbytes: float
    peak: float  # of the operations that the machine could have done meanwhile
    bandwidth: float  # of the bytes that it could have moved: between registers and `level`
    level: str  # "cache" where the operands fit into the level 2 caches together, else "memory"

    @property
    def roof(self) -> str:
        """Which of the two is nearer."""
        return "compute" if self.peak >= self.bandwidth else self.level


@dataclass(frozen=True)
class Profile:
    """What was measured: launches, the longest first, and ms: in launches, of a run without and with the clock."""

    rows: list[Row]
    roofs: Roofs
    runs: int
    inside: float
    plain: float
    clocked: float

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        ms = {"in launches": self.inside, "without the clock": self.plain, "with the clock": self.clocked}
        launches = [{**asdict(r), "roof": r.roof} for r in self.rows]
        return {
            "threads": self.roofs.threads, "runs": self.runs, "ms": ms, "roofs": asdict(self.roofs), "launches": launches
        }  # fmt: skip


def profile(arguments: argparse.Namespace) -> int:
    """The command; returns its exit code."""
    from graphc.api import source_of

    if arguments.save:
        from graphc.measure.picture import ENDINGS, check_matplotlib

        show.check_file("--save", arguments.save, ENDINGS)
        check_matplotlib()
    if arguments.json:
        show.check_file("--json", arguments.json)
    options = Options.of(
        threads=arguments.threads, level=arguments.level, disable=arguments.disable, precision=arguments.precision,
        progress=sys.stderr.isatty(),
    )  # fmt: skip
    exe = Executable(source_of(arguments.model), options)
    feeds = feeds_for(exe.inputs, shapes=arguments.shape, inputs=arguments.input)
    measured = _measure(exe, feeds, arguments.seconds, options.thread_count)
    _show(measured, arguments.top)
    if arguments.json:
        record = {"machine": describe_machine(), "model": arguments.model, **measured.record}
        Path(arguments.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        show.note(f"wrote {arguments.json}")
    if arguments.save:
        from graphc.measure.picture import Dot, draw_roofline

        dots = [Dot(r.operations / r.nbytes, r.gflops, r.share, r.family, r.nodes) for r in measured.rows if r.nbytes]
        title = f"{exe.source.name}: {measured.inside:.3g} ms in launches"
        draw_roofline(arguments.save, title, dots, measured.roofs)
        show.note(f"wrote {arguments.save}")
    return 0


# --- measuring -------------------------------------------------------------------------------------------------------


def _measure(exe: Executable, feeds: dict[str, np.ndarray], seconds: float, threads: int) -> Profile:
    exe.run(None, feeds)  # also finds out the sizes that only a run knows, and plans for them
    plans = exe.specialisation(feeds).plans
    if not plans:
        raise InputError("nothing of this model runs in kernels; graphc inspect --host says why")
    plain = _run_for(lambda: exe.run(None, feeds), seconds / 2)
    clocks = [plan.profile() for plan in plans]
    history = [np.concatenate([c.read() for c in clocks])]

    def read() -> None:
        history.append(np.concatenate([c.read() for c in clocks]))

    clocked = _run_for(lambda: exe.run(None, feeds), seconds, read)
    roofs = measure_roofs(threads)
    taken, calls = np.median(np.diff(history, axis=0), axis=0).T
    launches = [(plan, launch) for plan, c in zip(plans, clocks, strict=True) for launch in c.launches]
    rows = [
        _row(plan, launch, calls[k], taken[k], taken.sum(), roofs)
        for k, (plan, launch) in enumerate(launches)
        if calls[k]
    ]
    rows.sort(key=lambda r: -r.ms)
    whole = (statistics.median(times) * 1e3 for times in (plain, clocked))
    return Profile(rows, roofs, len(clocked), float(taken.sum()) * 1e3, *whole)


def _run_for(run: Callable[[], object], seconds: float, after: Callable[[], None] = lambda: None) -> list[float]:
    """Seconds of each of the runs that fit, 3 to 5,000; `after` each of them something that is not timed."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 3 or (len(taken) < 5_000 and time.perf_counter() < until):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
        after()
    return taken


def _row(plan: CompiledGraph, launch: Launch, calls: float, seconds: float, total: float, roofs: Roofs) -> Row:
    once = _bytes(plan, launch)
    operations, nbytes = float(calls * launch.work), float(calls * once)
    gflops, gbytes = (float(n / max(seconds, 1e-9) * 1e-9) for n in (operations, nbytes))
    level = "cache" if once <= roofs.threads * host_machine().l2_bytes else "memory"
    return Row(
        plan.sources[launch.kernel].name, launch.kernel.family, ", ".join(launch.nodes), float(calls), launch.tasks,
        float(seconds) * 1e3, float(seconds / total), operations, nbytes, gflops, gbytes,
        gflops / roofs.gflops, gbytes / (roofs.cache if level == "cache" else roofs.memory), level,
    )  # fmt: skip


def _bytes(plan: CompiledGraph, launch: Launch) -> int:
    """Bytes that a launch reads and writes. A loop nest takes at most a number an operation from each operand."""
    most = 8 * launch.work if isinstance(launch.kernel, LoopNest) else sys.maxsize
    return sum(min(o.nbytes, plan.program.buffers[o.buffer].nbytes, most) for o in launch.operands)


# --- what it says ----------------------------------------------------------------------------------------------------


def _show(measured: Profile, top: int) -> None:
    rows, roofs, out = measured.rows, measured.roofs, show.console().print
    _show_rows(rows, top)
    _show_families(rows, roofs)
    out(
        f"{measured.inside:.4g} ms in {sum(r.calls for r in rows):.6g} launches of a run of {measured.clocked:.4g} ms "
        f"(medians of {measured.runs} runs); without the clock a run takes {measured.plain:.4g} ms"
    )
    out(
        f"measured on {roofs.threads} thread{'s' if roofs.threads > 1 else ''}: {roofs.gflops:.4g} GFLOP/s in registers, "
        f"{roofs.memory:.3g} GB/s from memory, {roofs.cache:.3g} GB/s from the level 2 cache"
    )
    out(
        "of bandwidth: of the level 2 cache where a launch's operands fit into it, else of memory; more than 100% came from "
        "a larger cache, or only part of an operand was read"
    )


def _show_rows(rows: Sequence[Row], top: int) -> None:
    head = ["kernel", "calls", "tasks", "ms", "share", "GFLOP/s", "GB/s", "of peak", "of bandwidth", "roof", "computes"]
    table = [
        (
            r.kernel, f"{r.calls:.6g}", r.tasks, f"{r.ms:.4f}", f"{r.share:.1%}", f"{r.gflops:.1f}", f"{r.gbytes:.1f}",
            f"{r.peak:.0%}", f"{r.bandwidth:.0%}", r.roof, _short(r.nodes),
        )
        for r in rows[:top]
    ]  # fmt: skip
    show.table(head, table, right=["calls", "tasks", "ms", "share", "GFLOP/s", "GB/s", "of peak", "of bandwidth"])
    if len(rows) > top:
        rest = sum(r.ms for r in rows[top:])
        show.console().print(f"and {len(rows) - top} more launches of {rest:.4g} ms together (--top N shows more)")


def _show_families(rows: Sequence[Row], roofs: Roofs) -> None:
    """Sums by family; of the nearer roof: a mean over the launches, weighted by their time."""
    families: dict[str, list[Row]] = {}
    for r in rows:
        families.setdefault(r.family, []).append(r)
    table = []
    for name, own in families.items():
        ms, operations, nbytes = (sum(getattr(r, what) for r in own) for what in ("ms", "operations", "nbytes"))
        gflops, gbytes = operations / ms * 1e-6, nbytes / ms * 1e-6
        share, nearer = sum(r.share for r in own), sum(r.ms * min(1, max(r.peak, r.bandwidth)) for r in own) / ms
        table.append(
            (name, len(own), f"{ms:.4f}", f"{share:.1%}", f"{gflops:.1f}", f"{gbytes:.1f}", f"{gflops / roofs.gflops:.0%}",
             f"{nearer:.0%}")
        )  # fmt: skip
    numbers = ["launches", "ms", "share", "GFLOP/s", "GB/s", "of peak", "of the nearer roof"]
    show.table(["family", *numbers], table, right=numbers)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
