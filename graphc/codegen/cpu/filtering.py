"""Vectors to the points of a minimal filtering and back, as Numba intrinsics; see graphc.ops.minimal for the matrices.

A vector holds channels, so a transformation is a linear combination of whole vectors with constant coefficients. The
points come in pairs (p, -p): of two rows of a matrix that differ only in the signs of some columns, the sums over the
columns of equal sign and of opposite sign are computed once, and of two columns the sum and difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, partial, reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from graphc.codegen.cpu import simd
from graphc.codegen.cpu.finish import Finish, Function, arguments_for, as_intrinsic
from graphc.codegen.cpu.simd import Shape, Values, at, constant
from graphc.ops.minimal import Matrix, filtering

__all__ = ["combine", "from_points", "to_points"]

Pair = tuple[int, int]


def combine(b: ir.IRBuilder, shape: Shape, matrix: Matrix, xs: Values) -> Values:
    """The matrix times a column of vectors."""
    matrix, xs = _pair_columns(b, matrix, xs)
    results: dict[int, ir.Value] = {}
    for i, row in enumerate(matrix):
        if i in results:
            continue
        twin = next(
            (k for k in range(i + 1, len(matrix)) if k not in results and _differ_in_signs(row, matrix[k])), None
        )
        if twin is None:
            results[i] = _sum(b, shape, row, xs)
        else:
            same = [c if c == other else Fraction(0) for c, other in zip(row, matrix[twin], strict=True)]
            opposite = [c - s for c, s in zip(row, same, strict=True)]
            even, odd = _sum(b, shape, same, xs), _sum(b, shape, opposite, xs)
            results[i], results[twin] = b.fadd(even, odd), b.fsub(even, odd)
    return [results[i] for i in range(len(matrix))]


def _differ_in_signs(a: Sequence[Fraction], c: Sequence[Fraction]) -> bool:
    return all(abs(x) == abs(y) for x, y in zip(a, c, strict=True)) and any(x != y for x, y in zip(a, c, strict=True))


def _pair_columns(b: ir.IRBuilder, matrix: Matrix, xs: Values) -> tuple[Matrix, Values]:
    """The matrix over sums and differences of the vectors whose columns differ only in signs."""
    columns, new = [list(c) for c in zip(*matrix, strict=True)], list(xs)
    if len(matrix) == len(columns):  # square: its rows are paired instead
        return matrix, new
    paired: set[int] = set()
    for j, column in enumerate(columns):
        twin = next(
            (k for k in range(j + 1, len(columns)) if k not in paired and _differ_in_signs(column, columns[k])), None
        )
        if j in paired or twin is None:
            continue
        paired |= {j, twin}
        other = columns[twin]
        new[j], new[twin] = b.fadd(xs[j], xs[twin]), b.fsub(xs[j], xs[twin])
        columns[j] = [c if c == o else Fraction(0) for c, o in zip(column, other, strict=True)]
        columns[twin] = [c if c != o else Fraction(0) for c, o in zip(column, other, strict=True)]
    return tuple(zip(*columns, strict=True)), new


def _sum(b: ir.IRBuilder, shape: Shape, row: Sequence[Fraction], xs: Values) -> ir.Value:
    """A linear combination; it begins with a coefficient of 1 where there is one, which saves a multiplication."""
    terms = sorted(((c, x) for c, x in zip(row, xs, strict=True) if c), key=lambda t: t[0] != 1)
    total: ir.Value | None = None
    for c, x in terms:
        if total is None:
            total = x if c == 1 else b.fmul(x, shape.all(float(c)))
        elif abs(c) == 1:
            total = b.fadd(total, x) if c == 1 else b.fsub(total, x)
        else:
            total = simd.fma(b, shape, x, shape.all(float(c)), total)
    return shape.all(0.0) if total is None else total


def _both_axes(b: ir.IRBuilder, shape: Shape, down: Matrix, along: Matrix, grid: list[Values]) -> list[Values]:
    """`down` @ grid @ `along`^T, for a grid of vectors."""
    rows = [combine(b, shape, along, row) for row in grid]
    columns = [combine(b, shape, down, list(column)) for column in zip(*rows, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def _pooled(b: ir.IRBuilder, pixels: list[Values], pool: Pair) -> list[Values]:
    """The largest of each window of a grid of vectors."""
    down, along = pool
    return [
        [
            reduce(partial(simd.maximum, b), [v for line in pixels[i : i + down] for v in line[j : j + along]])
            for j in range(0, len(pixels[0]), along)
        ]
        for i in range(0, len(pixels), down)
    ]


@cache
def to_points(tile: Pair, kernel: Pair, stride: Pair, lanes: int, dtype: str) -> Any:
    """`f(out, distance, x, zeros, y0, x0, height, width)`: a tile's inputs at the points.

    out, distance   point s goes to out + s * distance
    x               one block of channels, [height, width, lanes]
    zeros           a vector of zeros, read for what lies outside of the image
    y0, x0          the tile's first row and column in the image, which may be negative
    """
    down, along = (filtering(*axis) for axis in zip(tile, kernel, stride, strict=True))
    shape, element = Shape(dtype, lanes), types.CPointer(getattr(types, dtype))

    @intrinsic
    def transform(
        typingctx: Any, out: Any, distance: Any, x: Any, zeros: Any, y0: Any, x0: Any, height: Any, width: Any
    ) -> Any:
        def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
            out, distance, x, zeros, y0, x0, height, width = args
            columns = [b.add(x0, constant(j)) for j in range(along.inputs)]
            inside = [b.icmp_unsigned("<", j, width) for j in columns]
            grid = []
            for i in range(down.inputs):
                row = b.add(y0, constant(i))
                exists = b.icmp_unsigned("<", row, height)
                line = at(b, x, b.mul(b.mul(row, width), constant(lanes)))
                places = [at(b, line, b.mul(j, constant(lanes))) for j in columns]
                places = [b.select(b.and_(exists, ok), p, zeros) for p, ok in zip(places, inside, strict=True)]
                grid.append([simd.load(b, shape, p, shape.itemsize) for p in places])
            points = _both_axes(b, shape, down.evaluate, along.evaluate, grid)
            for s, value in enumerate(v for line in points for v in line):
                simd.store(b, shape, value, at(b, out, b.mul(distance, constant(s))), shape.bytes)
            return context.get_dummy_value()

        n = types.int64
        return types.void(element, n, element, element, n, n, n, n), codegen

    return transform


@cache
def from_points(
    tile: Pair, kernel: Pair, stride: Pair, pool: Pair, lanes: int, dtype: str, finish: tuple[Function, ...] = ()
) -> Any:
    """`f(out, sums, distance, width)`: a tile's pixels, or the largest in windows `pool` of them, dense and row by row,
    from its values at sums + s * distance.

    Behind them come the arguments for the functions that `finish`; their rows are pixels of an image of this width.
    """
    down, along = (filtering(*axis) for axis in zip(tile, kernel, stride, strict=True))
    shape, element = Shape(dtype, lanes), types.CPointer(getattr(types, dtype))

    own = [element, element, types.int64, types.int64]

    def codegen(context: Any, b: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
        out, sums, distance, width = args[: len(own)]
        grid = [
            [
                simd.load(b, shape, at(b, sums, b.mul(distance, constant(i * along.inputs + j))), shape.bytes)
                for j in range(along.inputs)
            ]
            for i in range(down.inputs)
        ]
        pixels = _pooled(b, _both_axes(b, shape, down.interpolate, along.interpolate, grid), pool)

        def store() -> None:
            for k, value in enumerate(v for line in pixels for v in line):
                simd.store(b, shape, value, at(b, out, k * lanes), shape.bytes)

        rows = [b.mul(width, constant(i)) for i in range(len(pixels))]
        places = [{"m": b.add(row, constant(j))} for row in rows for j in range(len(pixels[0]))]
        results = list(zip((v for line in pixels for v in line), places, strict=True))
        Finish(context, b, finish, sig.args[len(own) :], list(args[len(own) :])).emit(results, shape, store)
        return context.get_dummy_value()

    return as_intrinsic("from_points", codegen, own, arguments_for(finish))
