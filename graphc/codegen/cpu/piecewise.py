"""Functions of float32 vectors by tables in registers: AVX-512 looks up sixteen numbers at once in one instruction.

A function is cut into sixteen pieces, each a polynomial around a centre of its own. Every coefficient is a vector of
sixteen numbers, and each lane takes the one of its piece. No exponential and no division: half of the instructions of
`graphc.codegen.math`, which serves numbers, other vectors and other machines.

Coefficients are computed here: each piece's polynomial interpolates at the zeros of a Chebyshev polynomial, which is
nearly the best one. Errors are at most 1.6 units in the last place (tests/codegen/test_piecewise.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from llvmlite import ir

from graphc.codegen.cpu import simd
from graphc.codegen.cpu.simd import Shape

__all__ = ["PIECEWISE", "Piecewise", "has_tables"]

PIECES = 16
#: Numba gives its fast-math flags to whatever has none, and reordering would undo a rounding; contraction is harmless,
#: since there are no products to contract
_EXACT = ("contract",)


def has_tables(lanes: int, features: Collection[str]) -> bool:
    """Whether vectors of so many float32 lanes can look up one of sixteen numbers in one instruction."""
    return {16: "avx512f", 8: "avx512vl"}.get(lanes) in features


Found = tuple[ir.Value, ir.Value, ir.Value]


@dataclass(frozen=True)
class Pieces:
    """Where pieces lie, in the order in which they are looked up.

    bounds  of each piece: the first magnitude and the one after the last
    find    from magnitudes and the centres: the number of each lane's piece in the lowest four bits, how far the lane is
            from the piece's centre, and whether the piece begins at 0
    """

    bounds: tuple[tuple[float, float], ...]
    find: Callable[[ir.IRBuilder, Shape, ir.Value, list[float]], Found]

    @property
    def centres(self) -> list[float]:
        """Of all pieces; the one that begins at 0 is around 0."""
        return [(low + high) / 2 if low else 0.0 for low, high in self.bounds]

    @property
    def first(self) -> float:
        """Where the piece that begins at 0 ends."""
        return next(high for low, high in self.bounds if not low)


@dataclass(frozen=True)
class Piecewise:
    """An odd function that is as good as 1 from `end` on, as polynomials of one degree.

    The piece that begins at 0 is x + x * polynomial, so that small results are as exact as can be.
    """

    function: Callable[[float], float]
    end: float
    pieces: Pieces
    degree: int

    @cached_property
    def coefficients(self) -> list[list[float]]:
        """Of every power, from 0 on, piece by piece."""
        rows = []
        for (low, high), centre in zip(self.pieces.bounds, self.pieces.centres, strict=True):
            row = self._around(centre, low - centre, high - centre) if low else self._first()
            while low < self.end <= high and np.float32(np.polyval(row[::-1], self.end - centre)) < 1:
                row[0] = float(np.nextafter(np.float32(row[0]), np.float32(2)))  # whatever is beyond gives this
            rows.append(row)
        return [list(column) for column in zip(*rows, strict=True)]

    def _first(self) -> list[float]:
        return [0.0, *_interpolated(lambda u: self.function(u) / u - 1, 0, self.pieces.first, self.degree - 1)]

    def _around(self, centre: float, low: float, high: float) -> list[float]:
        return _interpolated(lambda u: self.function(centre + u), low, high, self.degree)

    def emit(self, b: ir.IRBuilder, lanes: int, x: ir.Value) -> ir.Value:
        """The function of a vector of float32; NaN stays."""
        shape, bits = Shape("float32", lanes), Shape("int32", lanes)
        magnitude = simd.call(b, f"llvm.fabs.{shape.mangled}", shape.type, (x,))
        end = shape.all(self.end)
        t = b.select(b.fcmp_ordered(">", magnitude, end, flags=_EXACT), end, magnitude)
        index, u, is_first = self.pieces.find(b, shape, t, self.pieces.centres)
        constants, *powers = (simd.lookup(b, shape, column, index) for column in self.coefficients)
        value = powers.pop()
        while powers:
            value = simd.fma(b, shape, value, u, powers.pop())
        value = simd.fma(b, shape, value, u, b.select(is_first, t, constants))
        sign = b.and_(b.bitcast(x, bits.type), bits.all(-0x80000000))
        return b.bitcast(b.or_(b.bitcast(value, bits.type), sign), shape.type)


def _interpolated(f: Callable[[float], float], low: float, high: float, degree: int) -> list[float]:
    """Coefficients, lowest power first, of the polynomial that meets `f` at the Chebyshev points of [low, high]."""
    n = degree + 1
    points = [(low + high + (high - low) * math.cos((k + 0.5) * math.pi / n)) / 2 for k in range(n)]
    found = np.linalg.solve(np.vander(points, increasing=True), [f(u) for u in points])
    return [float(c) for c in found.astype(np.float32)]


# -- pieces of one width -----------------------------------------------------------------------------------------------

_QUARTER = 1.5 * 2.0**21  # adding it rounds a float32 to quarters, whose number then stands in the low bits


def _by_quarters(b: ir.IRBuilder, shape: Shape, t: ir.Value, centres: list[float]) -> Found:
    """Around 0, 1/4, 2/4, ...: a centre is what rounding gives, and need not be looked up."""
    shifted = b.fadd(t, shape.all(_QUARTER), flags=_EXACT)
    centre = b.fsub(shifted, shape.all(_QUARTER), flags=_EXACT)
    index = b.bitcast(shifted, Shape("int32", shape.lanes).type)
    return index, b.fsub(t, centre, flags=_EXACT), b.fcmp_ordered("==", centre, shape.all(0.0), flags=_EXACT)


QUARTERS = Pieces(tuple((max(0.0, k / 4 - 1 / 8), k / 4 + 1 / 8) for k in range(PIECES)), _by_quarters)

# -- pieces that grow with their distance from 0 ------------------------------------------------------------------------

_LEAST = 0.09375  # of the half octave that ends at 1/8; all that is smaller belongs to it


def _by_half_octaves(b: ir.IRBuilder, shape: Shape, t: ir.Value, centres: list[float]) -> Found:
    """The exponent and the first bit behind it are the number."""
    bits, least = Shape("int32", shape.lanes), shape.all(_LEAST)
    place = b.bitcast(b.select(b.fcmp_ordered("<", t, least, flags=_EXACT), least, t), bits.type)
    index = b.lshr(place, bits.all(22))
    u = b.fsub(t, simd.lookup(b, shape, centres, index), flags=_EXACT)
    return index, u, b.fcmp_ordered("<", t, shape.all(1 / 8), flags=_EXACT)


def _half_octaves() -> tuple[tuple[float, float], ...]:
    lows = [_LEAST, *(2.0**e * f for e in range(-3, 5) for f in (1.0, 1.5))]
    number = [int(np.float32(low).view(np.int32)) >> 22 for low in lows[:PIECES]]
    found = {
        n % PIECES: (0.0 if low == _LEAST else low, high) for n, (low, high) in zip(number, pairwise(lows), strict=True)
    }
    return tuple(found[k] for k in range(PIECES))


HALF_OCTAVES = Pieces(_half_octaves(), _by_half_octaves)

_TANH = Piecewise(math.tanh, 9.2, HALF_OCTAVES, 6)
#: by the scalar operation's name
PIECEWISE: Mapping[str, Piecewise] = {
    "erf": Piecewise(math.erf, 3.8749, QUARTERS, 5),
    "tanh": _TANH,
    "gate_tanh": _TANH,
}
