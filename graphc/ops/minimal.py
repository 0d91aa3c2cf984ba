"""Minimal filtering: the matrices of Winograd's short convolutions, F(m, r), made by the Toom-Cook construction.

`m` outputs of a filter of `r` taps need m + r - 1 multiplications instead of m * r:

    y = A^T ((G w) * (B^T x))        x: m + r - 1 inputs, w: r taps, y: m outputs

A filter that moves on by `stride` inputs is the sum of one filter for each phase of its inputs: every second tap meets
every second input. Each phase is a filtering of its own; one of a single tap multiplies once an output, as it is. So
F(2, 3) of stride 2 takes 3 + 2 multiplications in place of 6.

A filter in two dimensions is the same along each axis. (Winograd, Arithmetic Complexity of Computations, 1980; Lavin and
Gray, arXiv:1509.09308.) B^T and A^T evaluate and interpolate polynomials at m + r - 2 points and at infinity. The points
decide the rounding error: those here are symmetric where their number is even, so that sums are shared, near 1, so that
their powers stay near 1, and short in binary. Measured over random layers (`tests/kernels/test_winograd.py` holds the
bounds), the largest error relative to the largest output is 4e-7 for 3 and 4 points, 1e-6 for 5, 2e-6 for 6 and 1e-5 for
8; 3e-7 for the direct sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from graphc.ir.dims import ceil_div

__all__ = ["Filtering", "Matrix", "filtering", "multiplications", "outputs_possible", "points", "points_needed"]

Matrix = tuple[tuple[Fraction, ...], ...]

#: the finite points for each number of multiplications; infinity is the last point of all
POINTS: dict[int, tuple[Fraction, ...]] = {
    n: tuple(Fraction(p) for p in points.split())
    for n, points in {
        3: "0 1",
        4: "0 1 -1",
        5: "0 3/2 -3/2 -1/2",
        6: "0 3/4 -3/4 3/2 -3/2",
        8: "0 1 -1 2 -2 1/2 -1/2",
    }.items()
}
#: how many are worth a kernel with stride 1; phases of larger strides need the numbers between as well
WORTH_OF_STRIDE_1 = (4, 6, 8)


@dataclass(frozen=True)
class Filtering:
    """F(outputs, taps) of a stride: exact matrices, `inputs` x ... as tuples of rows."""

    outputs: int
    taps: int
    stride: int
    evaluate: Matrix  # B^T: [inputs, inputs]
    weigh: Matrix  # G: [inputs, taps]
    interpolate: Matrix  # A^T: [outputs, inputs]

    @property
    def inputs(self) -> int:
        """Inputs of a tile, which is also its number of multiplications."""
        return multiplications(self.outputs, self.taps, self.stride)

    def array(self, name: str) -> np.ndarray:
        """One of the matrices in float64."""
        return np.array(getattr(self, name), np.float64)


def multiplications(outputs: int, taps: int, stride: int = 1) -> int:
    """How many a filtering takes: as many as the inputs of a tile, where every phase has a tap."""
    return stride * (outputs - 1) + taps


def points(tile: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> int:
    """Multiplications of a filtering down and along: at so many points an image and its weights are needed."""
    return math.prod(multiplications(*axis) for axis in zip(tile, kernel, strides, strict=True))


def points_needed(outputs: int, taps: int, stride: int = 1) -> int:
    """Points of the longest phase, which decides the rounding error; 1 where nothing is evaluated at points."""
    longest = ceil_div(taps, stride)
    return 1 if longest == 1 else outputs + longest - 1


@lru_cache(maxsize=64)
def outputs_possible(taps: int, stride: int = 1) -> tuple[int, ...]:
    """For how many outputs there are filterings that save multiplications; 1 where none does."""
    phases = [ceil_div(taps - p, stride) for p in range(stride)]
    known = WORTH_OF_STRIDE_1 if stride == 1 else tuple(POINTS)
    possible = range(2, max(known) + 1)
    return tuple(m for m in possible if all(r == 1 or m + r - 1 in known for r in phases) and max(phases) > 1) or (1,)


@lru_cache(maxsize=64)
def filtering(outputs: int, taps: int, stride: int = 1) -> Filtering:
    """The matrices of F(outputs, taps) of a stride.

    Raises ValueError when there are no points for as many as a phase needs, or taps in some phases only."""
    if taps < stride:
        raise ValueError(f"a filter of {taps} taps that moves on by {stride} leaves inputs out")
    phases = [_plain_filtering(outputs, ceil_div(taps - p, stride)) for p in range(stride)]
    n = multiplications(outputs, taps, stride)
    evaluate = [_spread(row, p, stride, n) for p, (rows, _, _) in enumerate(phases) for row in rows]
    weigh = [_spread(row, p, stride, taps) for p, (_, rows, _) in enumerate(phases) for row in rows]
    interpolate = [[c for _, _, rows in phases for c in rows[i]] for i in range(outputs)]
    return Filtering(outputs, taps, stride, *(tuple(map(tuple, m)) for m in (evaluate, weigh, interpolate)))


def _spread(row: list[Fraction], first: int, step: int, length: int) -> list[Fraction]:
    """A row over the inputs, or taps, of a phase as one over all of them."""
    result = [Fraction(0)] * length
    result[first : first + step * len(row) : step] = row
    return result


def _plain_filtering(outputs: int, taps: int) -> tuple[list[list[Fraction]], ...]:
    """The three matrices of stride 1."""
    if taps == 1:
        identity = [_unit(k, outputs) for k in range(outputs)]
        return identity, [[Fraction(1)]] * outputs, identity
    n = outputs + taps - 1
    if n not in POINTS:
        raise ValueError(f"F({outputs}, {taps}) needs {n} points; there are points for {', '.join(map(str, POINTS))}")
    at = POINTS[n]
    finite = range(n - 1)

    def others(j: int) -> list[Fraction]:
        return [at[k] for k in finite if k != j]

    scale = [_product([at[j] - p for p in others(j)]) for j in finite]
    evaluate = [_padded(_with_roots(others(j)), n) for j in finite] + [_with_roots(at)]
    weigh = [[at[j] ** i / scale[j] for i in range(taps)] for j in finite] + [_unit(taps - 1, taps)]
    interpolate = [[at[j] ** i for j in finite] + [Fraction(int(i == outputs - 1))] for i in range(outputs)]
    return evaluate, weigh, interpolate


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
