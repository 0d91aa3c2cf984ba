"""Do two runtimes agree? One definition, used by `graphc run --check` and by the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["RELATIVE", "SCALED", "Agreement", "compare"]

RELATIVE = 1e-3
"""Tolerance relative to each element."""

SCALED = 1e-4
"""Tolerance relative to the largest magnitude of the output: a sum near zero keeps the rounding errors of its terms."""


@dataclass(frozen=True)
class Agreement:
    """How two arrays compare.

    `worst` is the largest error over its tolerance (at most 1 where all is well), `difference` the largest absolute
    error, `reason` says what is wrong and is empty when they agree.
    """

    worst: float
    difference: float
    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


def compare(got: Any, want: Any, relative: float = RELATIVE, scaled: float = SCALED) -> Agreement:
    """Compare an output with the expected one: element type, shape, then values.

    Floats agree when |got - want| <= scaled * max|want| + relative * |want|, NaN with NaN and an infinity with itself;
    everything else must be equal. Lists (sequences) compare element by element.
    """
    if isinstance(want, list | tuple):
        if not isinstance(got, list | tuple) or len(got) != len(want):
            return _differ(f"expected a sequence of {len(want)}")
        parts = [compare(g, w, relative, scaled) for g, w in zip(got, want, strict=True)]
        return max(parts, key=lambda p: (not p, p.worst), default=Agreement(0.0, 0.0))
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        return _differ(f"shape {got.shape}, expected {want.shape}")
    if got.dtype != want.dtype and not (got.dtype.kind in "OU" and want.dtype.kind in "OU"):
        return _differ(f"{got.dtype}, expected {want.dtype}")
    if want.dtype.kind in "biuOUS" or not want.size:
        wrong = int(np.sum(got != want))
        return Agreement(0.0, 0.0) if not wrong else _differ(f"{wrong} of {want.size} elements differ")
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    a, b = got.astype(wide), want.astype(wide)
    finite = np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not np.all(same[~finite]) or not np.all(np.isfinite(a[finite])):
        return _differ("NaN or infinity in different places")
    if not finite.any():
        return Agreement(0.0, 0.0)
    error, size = np.abs(a[finite] - b[finite]), np.abs(b[finite])
    allowed = scaled * size.max() + relative * size
    worst = float(np.max(np.where(error == 0, 0.0, error / np.where(allowed == 0, np.finfo(float).tiny, allowed))))
    difference = float(error.max())
    return Agreement(
        worst, difference, "" if worst <= 1 else f"an error of {difference:.3g} is {worst:.3g} times the tolerance"
    )


def _differ(reason: str) -> Agreement:
    return Agreement(float("inf"), float("inf"), reason)
