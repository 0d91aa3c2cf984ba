"""`graphc run`: compile a model, run it, say what came out and how long it took."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphc.cli import show
from graphc.cli.agree import compare
from graphc.cli.feeds import feeds_for
from graphc.errors import InputError, OptionError
from graphc.options import Options
from graphc.runtime.footprint import Footprint
from graphc.runtime.stored import StoredSpecialisation

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """The command; returns its exit code."""
    from graphc.api import executable_of, resolve

    options = Options.of(
        threads=arguments.threads,
        precision=arguments.precision,
        level=arguments.level,
        disable=arguments.disable,
        progress=sys.stderr.isatty(),
    )
    if arguments.output:
        show.check_file("--output", arguments.output, [".npz"])
    if arguments.check:
        _reference_runtime()
    times: dict[str, float] = {}
    started = time.perf_counter()
    path = resolve(arguments.model)
    exe = executable_of(arguments.model, options)
    times["load"] = time.perf_counter() - started

    feeds = feeds_for(exe.inputs, shapes=arguments.shape, inputs=arguments.input, seed=arguments.seed)
    started = time.perf_counter()
    specialisation = exe.specialisation(feeds)
    is_stored = isinstance(specialisation, StoredSpecialisation)
    times["find compiled" if is_stored else "compile"] = time.perf_counter() - started

    started = time.perf_counter()
    results = exe.run(None, feeds)
    times["first run"] = time.perf_counter() - started
    repeats = []
    for _ in range(arguments.repeat):
        started = time.perf_counter()
        exe.run(None, feeds)
        repeats.append(time.perf_counter() - started)
    times[f"median of {len(repeats)}"] = statistics.median(repeats)

    _show_values(
        "inputs",
        [p.name for p in exe.inputs if p.name in feeds],
        [feeds[p.name] for p in exe.inputs if p.name in feeds],
    )
    names = [p.name for p in exe.outputs]
    _show_values("outputs", names, results)
    _show_top(names, results)
    show.table(["time", ""], [(name, show.seconds_text(t)) for name, t in times.items()], right=[""])
    _show_memory(specialisation.footprint)
    if arguments.output:
        _save(Path(arguments.output), dict(zip(names, results, strict=True)))
    return _check(path, names, feeds, results) if arguments.check else 0


def _show_values(title: str, names: Sequence[str], values: Sequence[Any]) -> None:
    rows = []
    for name, value in zip(names, values, strict=True):
        shape, low, mean, high = show.summary_of(value)
        rows.append((name, getattr(value, "dtype", "-"), shape, low, mean, high))
    show.table([title, "type", "shape", "min", "mean", "max"], rows, right=["min", "mean", "max"])


def _show_top(names: Sequence[str], values: Sequence[Any], count: int = 5) -> None:
    """The largest elements of outputs that look like scores of classes: one long axis, everything else 1."""
    for name, value in zip(names, values, strict=True):
        if (
            isinstance(value, np.ndarray)
            and value.dtype.kind == "f"
            and value.size >= 10
            and max(value.shape) == value.size
        ):
            flat = value.ravel()
            best = np.argsort(-flat, kind="stable")[:count]
            show.console().print(f"{name}: top {count}: " + ", ".join(f"{i} ({flat[i]:.4g})" for i in best))


def _show_memory(takes: Footprint) -> None:
    if takes.launches:
        show.console().print(
            f"{takes.launches} kernel launches; {show.bytes_text(takes.arena)} of planned memory "
            f"(lower bound {show.bytes_text(takes.lower_bound)}), {show.bytes_text(takes.constants)} of constants"
        )


def _save(path: Path, results: Mapping[str, Any]) -> None:
    """All outputs in one file, written aside and moved into place."""
    for name, value in results.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind in "OV":
            raise InputError(f"--output: output {name!r} is not an array that a .npz file can hold")
    aside = path.with_name(f".{path.name}.part")
    try:
        with aside.open("wb") as file:
            np.savez(file, **results)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    show.note(f"wrote {len(results)} outputs to {path}")


def _reference_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise OptionError("--check onnxruntime: onnxruntime is not installed; pip install onnxruntime") from None
    return onnxruntime


def _check(path: Path, names: Sequence[str], feeds: Mapping[str, np.ndarray], results: Sequence[Any]) -> int:
    """Compare with onnxruntime and print a table; 1 when an output differs."""
    runtime = _reference_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        expected = runtime.InferenceSession(str(path), options).run(list(names), dict(feeds))
    except Exception as e:  # its errors have no common base
        raise InputError(f"--check: onnxruntime cannot run this model: {e}") from None
    agreements = [compare(got, want) for got, want in zip(results, expected, strict=True)]
    rows = [
        (name, "agrees" if a else f"differs: {a.reason}", f"{a.difference:.3g}", f"{a.worst:.3g}")
        for name, a in zip(names, agreements, strict=True)
    ]
    show.table(
        ["against onnxruntime", "", "largest error", "of tolerance"], rows, right=["largest error", "of tolerance"]
    )
    return 0 if all(agreements) else 1
