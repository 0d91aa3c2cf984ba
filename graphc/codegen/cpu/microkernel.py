"""Micro-kernels: the innermost tile of a contraction, its accumulators held in registers, as Numba intrinsics.

One tile is `rows` x (`vectors` * `lanes`) outputs. Every step reads one element of A a row, repeats it over the
lanes and multiplies it with `vectors` vectors of the packed B, which is read front to back exactly once:

    acc[p][j] += A[p, step] * B[step, j]      for p < rows, j < vectors

What differs is how the rows of A are found (`mode`):

    rows     row p starts at x + p * row_stride and its elements are consecutive: a matrix, a 1x1 convolution
    strided  as `rows`, with any distance between elements: a transposed matrix
    picked   row p starts at x + p * lanes, and step k reads its element offsets[k]: channels from any places of blocks
    table    row p of tap t starts at x + offsets[t, p], or at an area of zeros where the offset is negative:
             a convolution of any stride, dilation and padding, without code for borders

Elements of bfloat16 come in pairs of steps, which are one 32-bit word of A and a vector of such words of B. Where the
machine adds two products a lane in one instruction, a pair costs what a step of float32 does; elsewhere the two are
taken apart, which is exact, and multiplied as float32. Sums are float32 either way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types

from graphc.codegen.cpu import simd
from graphc.codegen.cpu.finish import Finish, Function, arguments_for, as_intrinsic
from graphc.codegen.cpu.simd import I32, Shape, Values, at, broadcast, constant, counted_loop
from graphc.codegen.cpu.vector import pointer_type
from graphc.kernels.contraction import SHARERS, ContractionVariant, Mode

__all__ = ["as_microkernel", "contract", "emit_contraction"]


def emit_contraction(b: ir.IRBuilder, tile: ContractionVariant, args: list[ir.Value], finish: Finish) -> None:
    """Emit the micro-kernel. Pointers are to elements, all other arguments are int64, distances count elements. Where
    `finish` has functions, they may take the sums instead of `out`.

    rows, strided:  out, fresh, x, w, ahead, valid, outer, outer_stride, rest, row_stride, step_stride
    picked:         out, fresh, x, w, ahead, offsets (int32*), outer, rest
    table:          out, fresh, x, w, ahead, offsets (int32*), zeros, outer, outer_stride, taps

    out           rows x columns sums, dense: replaced if `fresh` is not 0, else continued
    ahead         distance from w to the weights needed next: some of their cache lines are fetched on the way
    valid         rows that exist (1 to `rows`); the others repeat the last one, so that nothing outside A is read
    outer         rounds of `inner` steps, or of `taps` * `inner` steps (table)
    outer_stride  distance in A from one round to the next
    rest          steps after the last whole round
    """
    shape = Shape(tile.sums, tile.lanes)
    out, fresh, *args = args
    is_fresh = b.icmp_signed("!=", fresh, constant(0))
    sums = [at(b, out, n * tile.lanes) for n in range(tile.rows * tile.vectors)]
    # Where sums hardly ever come back, a branch saves their loads; where most do, it costs 1.6 % (measured, Strassen's).
    if finish.functions:
        acc = _unless(b, is_fresh, shape.all(0.0), lambda: [simd.load(b, shape, p, shape.bytes) for p in sums])
    else:
        acc = [b.select(is_fresh, shape.all(0.0), simd.load(b, shape, p, shape.bytes)) for p in sums]
    if tile.mode == "table":
        x, w, ahead, offsets, zeros, outer, outer_stride, taps = args
        acc = _table_rounds(b, tile, acc, x, w, ahead, offsets, zeros, outer, outer_stride, taps)
    elif tile.mode == "picked":
        acc = _picked_rounds(b, tile, acc, *args)
    else:
        x, w, ahead, valid, outer, outer_stride, rest, row_stride, step_stride = args
        acc = _row_rounds(b, tile, acc, x, w, ahead, valid, outer, outer_stride, rest, row_stride, step_stride)

    def store() -> None:
        for place, value in zip(sums, acc, strict=True):
            simd.store(b, shape, value, place, shape.bytes)

    moved = [{"m": p, "q": j, "c": j} for p in range(tile.rows) for j in range(tile.vectors)]
    finish.emit(list(zip(acc, moved, strict=True)), shape, otherwise=store)


def _unless(b: ir.IRBuilder, condition: ir.Value, instead: ir.Value, read: Callable[[], Values]) -> Values:
    """What `read` gives; where the condition holds, nothing is read and each is `instead`."""
    before = b.block
    with b.if_then(b.not_(condition)):
        values, inside = read(), b.block
    found = []
    for value in values:
        found.append(b.phi(value.type))
        found[-1].add_incoming(instead, before)
        found[-1].add_incoming(value, inside)
    return found


def _step(b: ir.IRBuilder, tile: ContractionVariant, acc: Values, sources: Values, w: ir.Value) -> Values:
    """One step (of bfloat16: a pair): B's vectors stay in registers while the rows of A pass."""
    if tile.together == 2:
        return _pair(b, tile, acc, [_word(b, source) for source in sources], w)
    shape = Shape(tile.dtype, tile.lanes)
    vectors = [simd.load(b, shape, at(b, w, j * tile.lanes), shape.bytes) for j in range(tile.vectors)]
    new: Values = []
    for p, source in enumerate(sources):
        a = broadcast(b, shape, source)
        new += [simd.fma(b, shape, a, v, acc[p * tile.vectors + j]) for j, v in enumerate(vectors)]
    return new


def _pair(b: ir.IRBuilder, tile: ContractionVariant, acc: Values, words: Values, w: ir.Value) -> Values:
    """Two steps of bfloat16, from the rows' words."""
    shape, pairs = Shape("float32", tile.lanes), Shape("int32", tile.lanes)
    places = [at(b, w, j * tile.lanes * 2) for j in range(tile.vectors)]
    if tile.dot:
        vectors = [simd.load(b, pairs, place, pairs.bytes) for place in places]
        new: Values = []
        for p, word in enumerate(words):
            a = simd.splat(b, pairs, word)
            new += [simd.bfloat16_dot(b, shape, acc[p * tile.vectors + j], a, v) for j, v in enumerate(vectors)]
        return new
    # One half of all pairs after the other: both at once would need twice the registers.
    for half in (simd.lower_bfloat16, simd.upper_bfloat16):
        vectors = [half(b, shape, simd.load(b, pairs, place, pairs.bytes)) for place in places]
        new = []
        for p, word in enumerate(words):
            a = half(b, shape, simd.splat(b, pairs, word))
            new += [simd.fma(b, shape, a, v, acc[p * tile.vectors + j]) for j, v in enumerate(vectors)]
        acc = new
    return acc


def _word(b: ir.IRBuilder, source: ir.Value) -> ir.Value:
    """A pair of bfloat16 numbers side by side, the first in the lower half."""
    word = b.load(b.bitcast(source, I32.as_pointer()))
    word.align = 2
    return word


def _word_of(b: ir.IRBuilder, first: ir.Value, second: ir.Value) -> ir.Value:
    """A pair of bfloat16 numbers from two places."""
    low, high = (b.zext(b.load(place), I32) for place in (first, second))
    return b.or_(low, b.shl(high, ir.Constant(I32, 16)))


def _steps(
    b: ir.IRBuilder, tile: ContractionVariant, acc: Values, rows: Values, w: ir.Value, ahead: ir.Value
) -> Values:
    """`inner` steps along rows of consecutive elements."""

    def some(first: ir.Value, acc: Values) -> Values:
        w_here = at(b, w, b.mul(first, constant(tile.columns)))
        starts = [at(b, row, first) for row in rows]
        for n in range(tile.fetches):
            simd.prefetch(b, at(b, at(b, w_here, ahead), n * tile.cache_line))
        for k in range(0, tile.unroll, tile.together):
            acc = _step(b, tile, acc, [at(b, start, k) for start in starts], at(b, w_here, k * tile.columns))
        return acc

    if tile.unroll == tile.inner:
        return some(constant(0), acc)
    return counted_loop(
        b, constant(tile.inner // tile.unroll), acc, lambda i, acc: some(b.mul(i, constant(tile.unroll)), acc)
    )


def _row_rounds(
    b: ir.IRBuilder, tile: ContractionVariant, acc: Values, x: ir.Value, w: ir.Value, ahead: ir.Value, valid: ir.Value,
    outer: ir.Value, outer_stride: ir.Value, rest: ir.Value, row_stride: ir.Value, step_stride: ir.Value,
) -> Values:  # fmt: skip
    last = b.sub(valid, constant(1))
    rows = []
    for p in range(tile.rows):
        exists = b.icmp_signed("<=", constant(p), last)
        rows.append(at(b, x, b.mul(b.select(exists, constant(p), last), row_stride)))
    size = tile.inner * tile.columns

    def apart(acc: Values, position: ir.Value, w: ir.Value) -> Values:
        """A step whose elements lie `step_stride` apart."""
        if tile.together == 1:
            return _step(b, tile, acc, [at(b, row, position) for row in rows], w)
        second = b.add(position, step_stride)
        return _pair(b, tile, acc, [_word_of(b, at(b, row, position), at(b, row, second)) for row in rows], w)

    on = b.mul(step_stride, constant(tile.together)) if tile.together > 1 else step_stride

    # All rows share one running position: one addition a round instead of one a row.
    def round_(i: ir.Value, carried: Values) -> Values:
        *acc, position, w = carried
        if tile.mode == "rows":
            acc = _steps(b, tile, acc, [at(b, row, position) for row in rows], w, ahead)
        else:
            here = position
            for k in range(0, tile.inner, tile.together):
                acc = apart(acc, here, at(b, w, k * tile.columns))
                here = b.add(here, on)
        return [*acc, b.add(position, outer_stride), at(b, w, size)]

    def step(i: ir.Value, carried: Values) -> Values:
        *acc, position, w = carried
        if tile.mode == "rows":
            acc = _step(b, tile, acc, [at(b, row, position) for row in rows], w)
        else:
            acc = apart(acc, position, w)
        return [*acc, b.add(position, on), at(b, w, tile.columns * tile.together)]

    carried = counted_loop(b, outer, [*acc, constant(0), w], round_)
    rounds = b.sdiv(rest, constant(tile.together)) if tile.together > 1 else rest
    return counted_loop(b, rounds, carried, step)[:-2]


def _table_rounds(
    b: ir.IRBuilder, tile: ContractionVariant, acc: Values, x: ir.Value, w: ir.Value, ahead: ir.Value,
    offsets: ir.Value, zeros: ir.Value, outer: ir.Value, outer_stride: ir.Value, taps: ir.Value,
) -> Values:  # fmt: skip
    def tap(base: ir.Value) -> Any:
        def body(t: ir.Value, carried: Values) -> Values:
            *values, w = carried
            here = at(b, offsets, b.mul(t, constant(tile.rows)))
            rows = []
            for p in range(tile.rows):
                offset = b.load(at(b, here, p))
                padding = b.icmp_signed("<", offset, ir.Constant(I32, 0))
                rows.append(b.select(padding, zeros, at(b, base, b.sext(offset, simd.I64))))
            values = _steps(b, tile, values, rows, w, ahead)
            return [*values, at(b, w, tile.inner * tile.columns)]

        return body

    def block(o: ir.Value, carried: Values) -> Values:
        return counted_loop(b, taps, carried, tap(at(b, x, b.mul(o, outer_stride))))

    return counted_loop(b, outer, [*acc, w], block)[:-1]


def _picked_rounds(
    b: ir.IRBuilder, tile: ContractionVariant, acc: Values, x: ir.Value, w: ir.Value, ahead: ir.Value,
    offsets: ir.Value, outer: ir.Value, rest: ir.Value,
) -> Values:  # fmt: skip
    def steps(count: int) -> Callable[[ir.Value, Values], Values]:
        def body(i: ir.Value, carried: Values) -> Values:
            *acc, here, w = carried
            for n in range(tile.fetches if count > 1 else 0):
                simd.prefetch(b, at(b, at(b, w, ahead), n * tile.cache_line))
            for k in range(count):
                element = at(b, x, b.sext(b.load(at(b, here, k)), simd.I64))
                rows = [at(b, element, p * tile.lanes) for p in range(tile.rows)]
                acc = _step(b, tile, acc, rows, at(b, w, k * tile.columns))
            return [*acc, at(b, here, count), at(b, w, count * tile.columns)]

        return body

    carried = counted_loop(b, outer, [*acc, offsets, w], steps(tile.inner))
    return counted_loop(b, rest, carried, steps(1))[:-2]


def as_microkernel(name: str, emit: Any, tile: Any, roles: str, finish: tuple[Function, ...]) -> Any:
    """A Numba intrinsic around `emit`; `roles` spells its arguments: p element pointer, s pointer to sums, t int32
    pointer, n int64. Behind them come those for the functions that `finish` (see `Finish`)."""
    element, sums = pointer_type(tile.dtype), pointer_type(getattr(tile, "sums", tile.dtype))
    kinds = {"p": element, "s": sums, "t": types.CPointer(types.int32), "n": types.int64}
    own = len(roles)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: list[ir.Value]) -> Any:
        emit(builder, tile, list(args[:own]), Finish(context, builder, finish, sig.args[own:], list(args[own:])))
        return context.get_dummy_value()

    return as_intrinsic(name, codegen, [kinds[r] for r in roles], arguments_for(finish))


@cache
def contract(
    rows: int,
    vectors: int,
    lanes: int,
    mode: Mode,
    inner: int,
    dtype: str = "float32",
    dot: bool = False,
    sharers: int = SHARERS,
    finish: tuple[Function, ...] = (),
) -> Any:
    """The contraction micro-kernel as a function to call in Numba code; arguments as `emit_contraction` lists them, and
    behind them those for the functions that `finish`."""
    tile = ContractionVariant(rows, vectors, lanes, mode, inner, dtype=dtype, dot=dot, sharers=sharers)
    roles = {"table": "snppntpnnn", "picked": "snppntnn"}.get(mode, "snppnnnnnnn")
    return as_microkernel("contract", emit_contraction, tile, roles, finish)
