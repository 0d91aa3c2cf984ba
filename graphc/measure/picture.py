"""Pictures of measurements, with matplotlib (extra `bench`), which is imported when a picture is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import OptionError
from graphc.measure.roofs import Roofs

_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}

__all__ = ["ENDINGS", "Dot", "check_matplotlib", "draw_bars", "draw_ratios", "draw_roofline"]

ENDINGS = (".svg", ".png", ".pdf")
"""What a picture's name may end in."""

COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948", "#bab0ac")


def check_matplotlib() -> None:
    """Raise OptionError when nothing could be drawn: before the work and not after it."""
    _pyplot()


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise OptionError("a picture needs matplotlib, which is not installed; pip install 'graphc[bench]'") from None
    matplotlib.use("agg")
    matplotlib.rcParams.update(
        {"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
    )
    from matplotlib import pyplot

    return pyplot


@dataclass(frozen=True)
class Dot:
    """A launch in a roofline: operations a byte, 10**9 operations a second, its share of the time, family, a name."""

    intensity: float
    gflops: float
    share: float
    family: str
    name: str


def draw_roofline(file: str, title: str, dots: Sequence[Dot], roofs: Roofs, labels: int = 5) -> None:
    """A dot a launch under the roofs of this machine, its area the share of time; the largest few are named."""
    pyplot = _pyplot()
    shown = [d for d in dots if d.intensity > 0 and d.gflops > 0]
    figure, axes = pyplot.subplots(figsize=(10, 6), layout="constrained")
    low = min([0.1, *(d.intensity / 2 for d in shown)])
    high = max([1000.0, *(d.intensity * 2 for d in shown)])
    x = np.geomspace(low, high, 200)
    for bandwidth, style, name in ((roofs.memory, "-", "memory"), (roofs.cache, "--", "level 2 cache")):
        axes.plot(x, np.minimum(x * bandwidth, roofs.gflops), style, color="#555555", linewidth=1.2, zorder=1)
        axes.annotate(
            f"{name}, {bandwidth:.0f} GB/s", (low, low * bandwidth), textcoords="offset points", xytext=(12, 2),
            ha="left", va="bottom", color="#555555", fontsize=9, bbox=_WHITE,
        )  # fmt: skip
    axes.annotate(
        f"{roofs.gflops:.0f} GFLOP/s in registers, {roofs.threads} thread{'s' if roofs.threads > 1 else ''}",
        (high, roofs.gflops), textcoords="offset points", xytext=(0, 4), ha="right", va="bottom", color="#555555",
        fontsize=9,
    )  # fmt: skip
    for colour, family in zip(COLOURS * 4, dict.fromkeys(d.family for d in shown), strict=False):
        own = [d for d in shown if d.family == family]
        share = sum(d.share for d in own)
        axes.scatter(
            [d.intensity for d in own], [d.gflops for d in own], s=[12 + 3000 * d.share for d in own], color=colour,
            alpha=0.55, linewidths=0.5, edgecolors="white", label=f"{family}, {share:.0%} of the time", zorder=2,
        )  # fmt: skip
    named: list[Dot] = []
    for d in sorted(shown, key=lambda d: -d.share):
        if len(named) == labels:
            break
        if all(
            max(abs(np.log10(d.intensity / n.intensity)) / 4, abs(np.log10(d.gflops / n.gflops))) > 0.09 for n in named
        ):
            named.append(d)  # one name where several dots lie on each other
            axes.annotate(
                f"{d.name[:40]} {d.share:.0%}", (d.intensity, d.gflops), textcoords="offset points", xytext=(9, -3),
                fontsize=8, zorder=3,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), xlabel="operations a byte", ylabel="GFLOP/s")
    axes.set_title(title, loc="left")
    if shown:
        legend = axes.legend(frameon=False, loc="lower right")
        for handle in legend.legend_handles:
            handle.set_sizes([40])
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def draw_bars(file: str, title: str, note: str, times: Mapping[str, Sequence[float]], points: int = 300) -> None:
    """A bar a subject up to its median, a whisker between its quartiles, and a point a run (at most `points` of them).

    `times` are ms; the first subject is the one that the others are set against.
    """
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(1.6 + 1.8 * max(len(times), 2), 5), layout="constrained")
    rng = np.random.default_rng(0)
    top = 1.1 * max(float(np.quantile(t, 0.95)) for t in times.values())
    first = float(np.median(next(iter(times.values()))))
    beyond, total = 0, 0
    for at, taken in enumerate(times.values()):
        t = np.asarray(taken)
        low, middle, high = np.quantile(t, (0.25, 0.5, 0.75))
        colour = COLOURS[0] if at == 0 else COLOURS[-1]
        axes.bar(at, middle, width=0.6, color=colour, alpha=0.75, zorder=1)
        shown = t[np.linspace(0, len(t) - 1, min(len(t), points)).astype(int)]
        axes.plot(
            at + rng.uniform(-0.22, 0.22, len(shown)), shown, ".", color="#333333", alpha=0.35, markersize=4,
            markeredgewidth=0, zorder=2,
        )  # fmt: skip
        axes.errorbar(at, middle, [[middle - low], [high - middle]], color="black", capsize=10, linewidth=1.5, zorder=3)
        text = f"{middle:.3g} ms" if at == 0 else f"{middle:.3g} ms\n{middle / first:.2f} × graphc's"
        axes.text(at, 0.02 * top, text, ha="center", va="bottom", fontsize=9, zorder=4)
        beyond, total = beyond + int((t > top).sum()), total + len(t)
    axes.set(ylim=(0, top), ylabel="ms a run", xticks=range(len(times)), xticklabels=list(times))
    axes.set_title(title, loc="left")
    legend = "bars: medians; whiskers: quartiles; points: runs" + (f" ({beyond} of {total} above)" if beyond else "")
    axes.set_xlabel(f"{legend}\n{note}", fontsize=8, color="#555555", loc="left")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def draw_ratios(file: str, title: str, note: str, ratios: Mapping[str, Mapping[str, float]]) -> None:
    """How many times faster than the fastest peer, a row a case and a mark a series (`ratios[series][case]`, time over
    the peer's time); cases in their order, and a line where the two are equal."""
    pyplot = _pyplot()
    cases = list(dict.fromkeys(case for series in ratios.values() for case in series))
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.27 * len(cases)), layout="constrained")
    axes.axvline(1, color="#555555", linewidth=1.2, zorder=1)
    for k, (series, of) in enumerate(ratios.items()):
        colour, lower = COLOURS[k % len(COLOURS)], 0.28 * (k - (len(ratios) - 1) / 2)
        faster = [1 / r for r in of.values()]
        rows = [cases.index(case) + lower for case in of]
        mean = float(np.exp(np.mean(np.log(faster))))
        axes.hlines(rows, 1, faster, color=colour, alpha=0.3, linewidth=2, zorder=2)
        axes.plot(faster, rows, "o", color=colour, label=f"{series}: geometric mean {mean:.2f}", markersize=6, zorder=3)
    axes.set(xscale="log", yticks=range(len(cases)), yticklabels=cases, ylim=(len(cases) - 0.4, -0.6))
    low, high = axes.get_xlim()
    wide, narrow = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 20), np.arange(5, 21) / 10
    marks = [m for m in (wide if high > 2 * low else narrow) if low <= m <= high]
    axes.set_xticks(marks, [f"{m:g}" for m in marks])
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color="#eeeeee", zorder=0)
    axes.set_title(title, loc="left")
    axes.set_xlabel(f"times as fast as the fastest peer: right of 1, graphc is faster\n{note}", fontsize=8, loc="left")
    figure.legend(frameon=False, fontsize=9, loc="outside lower right")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
