"""Pictures of measurements, with matplotlib (extra `bench`), which is imported when a picture is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import OptionError
from graphc.measure.roofs import Roofs

_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1}

__all__ = ["Dot", "check_picture", "draw_roofline"]

ENDINGS = (".svg", ".png", ".pdf")
COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#9c755f", "#edc948", "#bab0ac")


def check_picture(file: str) -> None:
    """Raise OptionError for a picture that could not be drawn: before the work and not after it."""
    path = Path(file)
    if path.suffix not in ENDINGS:
        raise OptionError(f"--save {file}: expected a name that ends in {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise OptionError(f"--save {file}: there is no folder {str(path.parent)!r}")
    _pyplot()


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise OptionError("--save needs matplotlib, which is not installed; pip install 'graphc[bench]'") from None
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
