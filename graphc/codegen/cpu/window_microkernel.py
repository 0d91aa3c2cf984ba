"""The micro-kernel of windows: depthwise convolutions and pooling, some neighbouring pixels of a row at a time.

One tile is `pixels` vectors of results, and a row of the window is combined with all of them at once:

    acc[p] = combine(acc[p], x[p * stride + k * dilation] (* w[k]))      for p < pixels, k < taps

Pixels share most of what their windows cover, so every vector of x is read once a row of the window, whoever needs it.
What lies left or right of the image is read from an area that holds the identity; only the outermost `guarded` vectors
can lie there, and for the others nothing is asked.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir

from graphc.codegen.cpu import simd
from graphc.codegen.cpu.finish import Finish, Function
from graphc.codegen.cpu.microkernel import as_microkernel
from graphc.codegen.cpu.simd import Shape, Values, at, constant, counted_loop
from graphc.kernels.windows import WindowVariant

__all__ = ["emit_window", "window"]


def emit_window(b: ir.IRBuilder, tile: WindowVariant, args: list[ir.Value], finish: Finish) -> None:
    """Emit the micro-kernel: out, x, w, high, rounds, x_row, w_row, first, last. Where `finish` has functions, they may
    take the results instead of `out`.

    out          room for pixels + 1 vectors: receives the results, dense, if they are kept
    x            where the window of the first pixel begins, inside the image or beside it
    w            first weight of that row of the window (any address unless combine is "fma")
    high         rows of the window that lie inside the image
    rounds       how many times `taps` the window is wide
    x_row, w_row distance between rows of x and of w, in elements
    first, last  vectors from `first` on to before `last`, counted from x, lie inside the image's width
    """
    out, x, w, high, rounds, x_row, w_row, first, last = args
    shape = Shape(tile.dtype, tile.lanes)
    identity = shape.all(float("-inf") if tile.combine == "max" else 0.0)
    beside = at(b, out, tile.pixels * tile.lanes)
    simd.store(b, shape, identity, beside, shape.bytes)

    def part(x_here: ir.Value, w_here: ir.Value, first: ir.Value, last: ir.Value, acc: Values) -> Values:
        """`taps` taps of a row of the window, in the order in which vectors of x come."""
        acc = list(acc)
        weights = [
            simd.load(b, shape, at(b, w_here, k * tile.lanes), shape.itemsize)
            for k in range(tile.taps if tile.combine == "fma" else 0)
        ]
        for position, readers in tile.readers.items():
            place = at(b, x_here, position * tile.lanes)
            if tile.is_guarded(position):
                here = constant(position)
                inside = b.and_(b.icmp_signed("<=", first, here), b.icmp_signed("<", here, last))
                place = b.select(inside, place, beside)
            value = simd.load(b, shape, place, shape.itemsize)
            for p, k in readers:
                match tile.combine:
                    case "fma":
                        acc[p] = simd.fma(b, shape, value, weights[k], acc[p])
                    case "add":
                        acc[p] = b.fadd(acc[p], value)
                    case "max":
                        acc[p] = simd.maximum(b, acc[p], value)
        return acc

    def line(i: ir.Value, acc: Values) -> Values:
        x_line, w_line = at(b, x, b.mul(i, x_row)), at(b, w, b.mul(i, w_row))
        if tile.whole:
            return part(x_line, w_line, first, last, acc)

        def some(r: ir.Value, acc: Values) -> Values:
            on = b.mul(r, constant(tile.taps * tile.dilation))
            x_here, w_here = (
                at(b, v, b.mul(r, constant(step * tile.lanes)))
                for v, step in ((x_line, tile.taps * tile.dilation), (w_line, tile.taps))
            )
            return part(x_here, w_here, b.sub(first, on), b.sub(last, on), acc)

        return counted_loop(b, rounds, acc, some)

    results = counted_loop(b, high, [identity] * tile.pixels, line)

    def store() -> None:
        for p, value in enumerate(results):
            simd.store(b, shape, value, at(b, out, p * tile.lanes), shape.bytes)

    finish.emit([(value, {"m": p}) for p, value in enumerate(results)], shape, otherwise=store)


@cache
def window(tile: WindowVariant, finish: tuple[Function, ...] = ()) -> Any:
    """The micro-kernel as a function to call in Numba code; arguments as `emit_window` lists them, and behind them those
    for the functions that `finish`."""
    return as_microkernel("window", emit_window, tile, "pppnnnnnn", finish)
