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

import numpy as np

from graphc.cli import show
from graphc.cli.feeds import choose_shapes, parse_shapes, random_feeds, read_arrays
from graphc.errors import InputError
from graphc.kernels.ir import Launch, LoopNest
from graphc.measure.machine import describe_machine
from graphc.measure.roofs import Roofs, measure_roofs
from graphc.options import Options
from graphc.runtime.assemble import CompiledGraph
from graphc.runtime.executable import Executable

__all__ = ["Row", "profile"]


@dataclass(frozen=True)
class Row:
    """A launch. Figures are of one run (medians over all), in which it is launched `calls` times.

    operations   scalar operations: exact for contractions, a rough count for other kernels
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
    peak: float  # of the roofs: part of the operations, and of the bytes, that the machine could have done meanwhile
    bandwidth: float

    @property
    def roof(self) -> str:
        """Which of the two is nearer."""
        return "compute" if self.peak >= self.bandwidth else "memory"


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
    arrays = read_arrays(arguments.input, exe.inputs)
    shapes, assumed = choose_shapes(exe.inputs, parse_shapes(arguments.shape, exe.inputs), arrays)
    for sentence in assumed:
        show.note(sentence)
    feeds = {**random_feeds(exe.inputs, shapes, seed=0), **arrays}
    exe.run(None, feeds)
    specialisation = exe.specialisation(feeds)
    plans = specialisation.plans
    if not plans:
        raise InputError("nothing of this model runs in kernels; graphc inspect --host says why")
    plain = _run_for(lambda: exe.run(None, feeds), arguments.seconds / 2)
    clocks = [plan.profile() for plan in plans]
    history = [np.concatenate([c.read() for c in clocks])]

    def measured_run() -> None:
        exe.run(None, feeds)
        history.append(np.concatenate([c.read() for c in clocks]))

    runs = len(_run_for(measured_run, arguments.seconds))
    roofs = measure_roofs(options.thread_count)
    seconds, calls = np.median(np.diff(history, axis=0), axis=0).T
    launches = [(plan, launch) for plan, c in zip(plans, clocks, strict=True) for launch in c.launches]
    rows = [
        _row(plan, launch, calls[k], seconds[k], seconds.sum(), roofs)
        for k, (plan, launch) in enumerate(launches)
        if calls[k]
    ]
    rows.sort(key=lambda r: -r.ms)
    whole = statistics.median(plain) * 1e3
    inside = float(seconds.sum()) * 1e3

    _show_rows(rows, arguments.top)
    _show_families(rows, roofs)
    out = show.console().print
    out(
        f"{inside:.4g} ms in {sum(r.calls for r in rows):.6g} launches (medians of {runs} runs, summed); "
        f"without the clock a run takes {whole:.4g} ms (median of {len(plain)})"
    )
    out(
        f"measured on {roofs.threads} thread{'s' if roofs.threads > 1 else ''}: {roofs.gflops:.4g} GFLOP/s in registers, "
        f"{roofs.memory:.3g} GB/s from memory, {roofs.cache:.3g} GB/s from the level 2 cache"
    )
    out("of bandwidth: above 100% the data came from a cache, or only part of an operand was read")
    if arguments.json:
        record = {
            "machine": describe_machine(), "model": arguments.model, "threads": roofs.threads, "runs": runs,
            "ms": {"without the clock": whole, "in launches": inside},
            "roofs": asdict(roofs), "launches": [{**asdict(r), "roof": r.roof} for r in rows],
        }  # fmt: skip
        Path(arguments.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        show.note(f"wrote {arguments.json}")
    if arguments.save:
        from graphc.measure.picture import Dot, draw_roofline

        dots = [Dot(r.operations / r.nbytes, r.gflops, r.share, r.family, r.nodes) for r in rows if r.nbytes]
        draw_roofline(arguments.save, f"{exe.source.name}: {inside:.3g} ms in launches", dots, roofs)
        show.note(f"wrote {arguments.save}")
    return 0


def _run_for(run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each of the runs that fit, at least three."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < until:
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return taken


def _row(plan: CompiledGraph, launch: Launch, calls: float, seconds: float, total: float, roofs: Roofs) -> Row:
    operations, nbytes = float(calls * launch.work), float(calls * _bytes(plan, launch))
    gflops, gbytes = (float(n / max(seconds, 1e-9) * 1e-9) for n in (operations, nbytes))
    return Row(
        plan.sources[launch.kernel].name, launch.kernel.family, ", ".join(launch.nodes), float(calls), launch.tasks,
        float(seconds) * 1e3, float(seconds / total), operations, nbytes, gflops, gbytes,
        gflops / roofs.gflops, gbytes / roofs.memory,
    )  # fmt: skip


def _bytes(plan: CompiledGraph, launch: Launch) -> int:
    """Bytes that a launch reads and writes. A loop nest takes at most a number an operation from each operand."""
    most = 8 * launch.work if isinstance(launch.kernel, LoopNest) else sys.maxsize
    return sum(min(o.nbytes, plan.program.buffers[o.buffer].nbytes, most) for o in launch.operands)


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
    families: dict[str, list[Row]] = {}
    for r in rows:
        families.setdefault(r.family, []).append(r)
    table = []
    for name, own in families.items():
        ms, operations, nbytes = (sum(getattr(r, what) for r in own) for what in ("ms", "operations", "nbytes"))
        gflops, gbytes = operations / ms * 1e-6, nbytes / ms * 1e-6
        share = sum(r.share for r in own)
        table.append(
            (name, len(own), f"{ms:.4f}", f"{share:.1%}", f"{gflops:.1f}", f"{gbytes:.1f}",
             f"{gflops / roofs.gflops:.0%}", f"{gbytes / roofs.memory:.0%}")
        )  # fmt: skip
    numbers = ["launches", "ms", "share", "GFLOP/s", "GB/s", "of peak", "of bandwidth"]
    show.table(["family", *numbers], table, right=numbers)


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
