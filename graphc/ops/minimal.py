"""Minimal filtering: the matrices of Winograd's short convolutions, F(m, r), made by the Toom-Cook construction.

`m` outputs of a filter of `r` taps need m + r - 1 multiplications instead of m * r:

    y = A^T ((G w) * (B^T x))        x: m + r - 1 inputs, w: r taps, y: m outputs

A filter in two dimensions is the same along each axis. (Winograd, Arithmetic Complexity of Computations, 1980; Lavin and
Gray, arXiv:1509.09308.) B^T and A^T evaluate and interpolate polynomials at m + r - 2 points and at infinity. The points
decide the rounding error: those here are symmetric, so that sums are shared, near 1, so that their powers stay near 1,
and short in binary. Measured over random layers (`tests/kernels/test_winograd.py` holds the bounds), the largest error
relative to the largest output is 3e-7 for 4 points, 2e-6 for 6 and 8e-6 for 8; 3e-7 for the direct sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

__all__ = ["SIZES", "Filtering", "filtering"]

Matrix = tuple[tuple[Fraction, ...], ...]

#: the finite points for each number of multiplications; infinity is the last point of all
POINTS: dict[int, tuple[Fraction, ...]] = {
    n: tuple(Fraction(p) for p in points.split())
    for n, points in {
        1: "",
        4: "0 1 -1",
        6: "0 3/4 -3/4 3/2 -3/2",
        8: "0 1 -1 2 -2 1/2 -1/2",
    }.items()
}
#: how many multiplications there are points for
SIZES = tuple(POINTS)


@dataclass(frozen=True)
class Filtering:
    """F(outputs, taps): exact matrices, `inputs` x ... as tuples of rows."""

    outputs: int
    taps: int
    evaluate: Matrix  # B^T: [inputs, inputs]
    weigh: Matrix  # G: [inputs, taps]
    interpolate: Matrix  # A^T: [outputs, inputs]

    @property
    def inputs(self) -> int:
        """Inputs of a tile, which is also its number of multiplications."""
        return self.outputs + self.taps - 1

    def array(self, name: str) -> np.ndarray:
        """One of the matrices in float64."""
        return np.array(getattr(self, name), np.float64)


@lru_cache(maxsize=64)
def filtering(outputs: int, taps: int) -> Filtering:
    """The matrices of F(outputs, taps). Raises ValueError when outputs + taps - 1 is none of `SIZES`."""
    n = outputs + taps - 1
    if n not in POINTS:
        raise ValueError(f"F({outputs}, {taps}) needs {n} points; there are points for {', '.join(map(str, SIZES))}")
    points = POINTS[n]
    finite = range(n - 1)

    def others(j: int) -> list[Fraction]:
        return [points[k] for k in finite if k != j]

    scale = [_product([points[j] - p for p in others(j)]) for j in finite]
    evaluate = [_padded(_with_roots(others(j)), n) for j in finite] + [_with_roots(points)]
    weigh = [[points[j] ** i / scale[j] for i in range(taps)] for j in finite] + [_unit(taps - 1, taps)]
    interpolate = [[points[j] ** i for j in finite] + [Fraction(int(i == outputs - 1))] for i in range(outputs)]
    return Filtering(outputs, taps, *(tuple(map(tuple, m)) for m in (evaluate, weigh, interpolate)))


def _product(factors: list[Fraction]) -> Fraction:
    result = Fraction(1)
    for f in factors:
        result *= f
    return result


def _with_roots(roots: tuple[Fraction, ...] | list[Fraction]) -> list[Fraction]:
    """The coefficients, lowest power first, of the product of (x - root)."""
    result = [Fraction(1)]
    for root in roots:
        result = [
            (result[k - 1] if k else Fraction(0)) - root * (result[k] if k < len(result) else Fraction(0))
            for k in range(len(result) + 1)
        ]
    return result


def _padded(row: list[Fraction], length: int) -> list[Fraction]:
    return row + [Fraction(0)] * (length - len(row))


def _unit(k: int, length: int) -> list[Fraction]:
    return [Fraction(int(i == k)) for i in range(length)]
