"""Operations that combine many elements into one: reductions, positions of extremes, running sums, sliding windows.

float16 and bfloat16 accumulate in float32 and round once. An empty reduction gives the combination's identity; the
identity of a maximum is -inf, or the smallest value of an integer type.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import ml_dtypes
import numpy as np

from graphc import ops
from graphc.ir.dims import DimLike, product
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.ops.batching import case_numbers, leading, next_axis
from graphc.ops.casting import convert, wide_type
from graphc.ops.elementwise import DISCRETE, add, cast, div, eq, ge, mul, ne, neg, select, sub
from graphc.ops.gradient import Rule, by_operand, flip, restore, spread, zero, zeros
from graphc.ops.injective import pad, reshape, tensor_operand, transpose
from graphc.ops.spec import Gradient, Kind, OpSpec, Sample, expect, register

__all__ = [
    "accumulator", "argmax", "argmin", "combine_identity", "cumprod", "cumsum", "like", "reduce_and", "reduce_max",
    "reduce_min", "reduce_or", "reduce_prod", "reduce_sum", "reduce_window", "window_argmax", "window_extent",
    "windows",
]  # fmt: skip

INT64 = dtype_of("int64")
Ints = tuple[int, ...]

_UFUNCS: dict[str, np.ufunc] = {
    "add": np.add,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "and": np.logical_and,
    "or": np.logical_or,
}
_CUBE = np.array([3, -1, 2, 0, 5, -4, 7, 1, -2, 6, 4, -3, 0.5, 2, -1, 3, 8, 8, -6, 0, 1, 2, 3, 4], np.float32).reshape(
    2, 3, 4
)


def combine_identity(combine: str, dtype: DType) -> Any:
    """The value that leaves the other operand as it is, as a Python number: where an accumulation starts."""
    if combine in ("add", "or"):
        return False if dtype.kind == "bool" else 0
    if combine in ("mul", "and"):
        return True if dtype.kind == "bool" else 1
    lowest = combine == "maximum"
    if dtype.is_float:
        return float("-inf") if lowest else float("inf")
    if dtype.kind == "bool":
        return not lowest
    if dtype.kind == "uint":
        return 0 if lowest else 2**dtype.bits - 1
    return -(2 ** (dtype.bits - 1)) if lowest else 2 ** (dtype.bits - 1) - 1


def accumulator(x: np.ndarray) -> np.ndarray:
    """The operand in the type that sums of it are accumulated in."""
    return x if x.dtype.kind == "O" else x.astype(wide_type(dtype_of(x)), copy=False)


def like(result: Any, x: np.ndarray) -> np.ndarray:
    """An accumulated result rounded to the element type of the operand."""
    out = np.asarray(result)
    return out if out.dtype == x.dtype else convert(out, dtype_of(x))


# --------------------------------------------------------------------------------------------------- reductions


def _reduction(name: str, combine: str, kinds: str, summary: str, gradient: Gradient) -> OpSpec:
    """Register the reduction of the axes in the attribute `axes`, which are dropped from the shape."""

    def infer(x: TensorType, *, axes: tuple[int, ...]) -> TensorType:
        tensor_operand(name, 0, x)
        expect(x.dtype.kind in kinds.split(), f"{name}: the operand is {x}; {name} takes {kinds} types")
        expect(
            list(axes) == sorted(set(axes)) and all(0 <= a < x.rank for a in axes),
            f"{name}: axes {list(axes)} of {x} must be sorted, different, in range; normalize_axes brings them there",
        )
        return x.with_shape(tuple(d for k, d in enumerate(x.shape) if k not in axes))

    def reference(x: np.ndarray, *, axes: tuple[int, ...]) -> np.ndarray:
        x = np.asarray(x)
        wide = accumulator(x)
        options: dict[str, Any] = (
            {}
            if wide.dtype.kind == "O"
            else {"initial": combine_identity(combine, dtype_of(wide)), "dtype": wide.dtype}
        )
        if combine in ("and", "or"):
            options = {}
        with np.errstate(all="ignore"):
            return like(_UFUNCS[combine].reduce(wide, axis=tuple(axes), **options), x) if axes else x

    def samples() -> Iterable[Sample]:
        kind = np.bool_ if kinds == "bool" else np.float32
        cube: np.ndarray = (_CUBE > 2 if kinds == "bool" else _CUBE).astype(kind)
        for axes in [(0,), (1,), (2,), (0, 2), (0, 1, 2), ()]:
            yield Sample((cube,), {"axes": axes})
        yield Sample((np.zeros((2, 0), kind),), {"axes": (1,)})
        yield Sample((np.zeros((0, 2), kind),), {"axes": (1,)})
        yield Sample((kind(1),), {"axes": ()})
        if kinds != "bool":
            yield Sample((np.where(_CUBE > 7, np.nan, _CUBE).astype(np.float32),), {"axes": (2,)})
            for dtype in (np.float64, np.float16, ml_dtypes.bfloat16, np.int32, np.int64, np.int8):
                yield Sample((_CUBE.astype(dtype),), {"axes": (1,)})
            yield Sample((np.abs(_CUBE).astype(np.uint8),), {"axes": (0, 1)})
            for dtype in (np.uint8, np.int16):
                yield Sample((np.zeros((2, 3), dtype),), {"axes": (1,)})
                yield Sample((np.zeros((2, 0), dtype),), {"axes": (1,)})

    return register(
        OpSpec(
            name=name,
            kind=Kind.REDUCE,
            summary=summary,
            infer=infer,
            reference=reference,
            combine=combine,
            gradient=gradient,
            no_gradient=DISCRETE if kinds == "bool" else "",
            samples=samples,
        )
    )


def _product_gradient(g: Value, x: Value, y: Value, *, axes: Ints) -> Value:
    """The product of the other elements, without a division, for one of them may be 0: of those before and after."""
    kept = tuple(k for k in range(x.rank) if k not in axes)
    order = (*kept, *axes)
    line = product(tuple(x.shape[k] for k in axes))
    rows = reshape(transpose(x, perm=order), shape=(*(x.shape[k] for k in kept), line))
    before = cumprod(rows, axis=len(kept), exclusive=True)
    after = cumprod(rows, axis=len(kept), exclusive=True, reverse=True)
    others = reshape(mul(before, after), shape=tuple(x.shape[k] for k in order))
    return mul(restore(g, x, axes), transpose(others, perm=tuple(map(order.index, range(x.rank)))))


def _shared_gradient(g: Value, x: Value, y: Value, *, axes: Ints) -> Value:
    """Of several largest (or smallest) elements each takes an equal part; where one is NaN the derivative is."""
    extreme = eq(x, restore(y, x, axes))
    count = reduce_sum(cast(extreme, dtype=x.dtype), axes=axes)
    return select(extreme, restore(div(g, count), x, axes), restore(select(ne(y, y), y, 0.0), x, axes))


reduce_sum = _reduction(
    "reduce_sum",
    "add",
    "float int uint complex",
    "The sum over `axes`.",
    by_operand(lambda g, x, y, *, axes: restore(g, x, axes)),
)
reduce_prod = _reduction(
    "reduce_prod", "mul", "float int uint complex", "The product over `axes`.", by_operand(_product_gradient)
)
reduce_max = _reduction(
    "reduce_max",
    "maximum",
    "float int uint",
    "The largest element over `axes`; NaN when one is NaN.",
    by_operand(_shared_gradient),
)
reduce_min = _reduction(
    "reduce_min",
    "minimum",
    "float int uint",
    "The smallest element over `axes`; NaN when one is NaN.",
    by_operand(_shared_gradient),
)
reduce_and = _reduction("reduce_and", "and", "bool", "Whether all elements over `axes` hold.", zero)
reduce_or = _reduction("reduce_or", "or", "bool", "Whether any element over `axes` holds.", zero)

# -------------------------------------------------------------------------------------- positions of the extremes


def _position(name: str, numpy: Callable[..., Any], summary: str) -> OpSpec:
    def infer(x: TensorType, *, axis: int, select_last: bool = False) -> TensorType:
        tensor_operand(name, 0, x)
        expect(
            x.dtype.kind in ("float", "int", "uint"), f"{name}: the operand is {x}; {name} takes float int uint types"
        )
        expect(0 <= axis < x.rank, f"{name}: axis {axis} does not exist in {x}")
        expect(x.shape[axis] != 0, f"{name}: axis {axis} of {x} is empty and has no extreme")
        return TensorType(INT64, tuple(d for k, d in enumerate(x.shape) if k != axis))

    def reference(x: np.ndarray, *, axis: int, select_last: bool = False) -> np.ndarray:
        wide = accumulator(np.asarray(x))
        if not select_last:
            return np.asarray(numpy(wide, axis), np.int64)
        return np.asarray(wide.shape[axis] - 1 - numpy(np.flip(wide, axis), axis), np.int64)

    def samples() -> Iterable[Sample]:
        for axis in range(3):
            for last in (False, True):
                yield Sample((np.round(_CUBE / 3),), {"axis": axis, "select_last": last})
        yield Sample((_CUBE.astype(np.int32),), {"axis": 1})
        yield Sample((np.array([1, np.nan, 3, np.nan], np.float32),), {"axis": 0})
        yield Sample((_CUBE.astype(ml_dtypes.bfloat16),), {"axis": 2})
        yield Sample((np.zeros((0, 2), np.float64),), {"axis": 1})

    return register(
        OpSpec(
            name=name,
            kind=Kind.ANCHOR,
            template="argreduce",
            writes_strided=True,
            summary=summary,
            infer=infer,
            reference=reference,
            no_gradient="its result is an index",
            batch=next_axis,
            samples=samples,
        )
    )


argmax = _position(
    "argmax",
    np.argmax,
    "Where the largest element along `axis` is (the first NaN if any); the first or last of equals.",
)
argmin = _position(
    "argmin",
    np.argmin,
    "Where the smallest element along `axis` is (the first NaN if any); the first or last of equals.",
)

# ------------------------------------------------------------------------------------------------- running totals


def _running(name: str, ufunc: np.ufunc, template: str, summary: str, rule: Rule) -> OpSpec:
    def infer(x: TensorType, *, axis: int, exclusive: bool = False, reverse: bool = False) -> TensorType:
        tensor_operand(name, 0, x)
        expect(
            x.dtype.kind in ("float", "int", "uint"), f"{name}: the operand is {x}; {name} takes float int uint types"
        )
        expect(0 <= axis < x.rank, f"{name}: axis {axis} does not exist in {x}")
        return x

    def reference(x: np.ndarray, *, axis: int, exclusive: bool = False, reverse: bool = False) -> np.ndarray:
        x = np.asarray(x)
        wide = accumulator(np.flip(x, axis) if reverse else x)
        if exclusive:
            first = np.full_like(
                wide.take([], axis), ufunc.identity, shape=[1 if k == axis else d for k, d in enumerate(x.shape)]
            )
            wide = np.concatenate([first, wide], axis).take(range(x.shape[axis]), axis)
        result = ufunc.accumulate(wide, axis, dtype=wide.dtype)
        return like(np.flip(result, axis) if reverse else result, x)

    def samples() -> Iterable[Sample]:
        for exclusive, reverse in itertools.product((False, True), repeat=2):
            yield Sample((_CUBE,), {"axis": 1, "exclusive": exclusive, "reverse": reverse})
            yield Sample((_CUBE.astype(np.int32),), {"axis": 2, "exclusive": exclusive, "reverse": reverse})
        yield Sample((_CUBE.astype(np.float16),), {"axis": 0})
        yield Sample((np.zeros((0, 2), np.float64),), {"axis": 0, "exclusive": True})

    return register(
        OpSpec(
            name=name,
            kind=Kind.ANCHOR,
            template=template,
            summary=summary,
            infer=infer,
            reference=reference,
            gradient=by_operand(rule),
            batch=next_axis,
            samples=samples,
        )
    )


def _cumsum_gradient(
    g: Value, x: Value, y: Value, *, axis: int, exclusive: bool = False, reverse: bool = False
) -> Value:
    return cumsum(g, axis=axis, exclusive=exclusive, reverse=not reverse)


def _cumprod_gradient(
    g: Value, x: Value, y: Value, *, axis: int, exclusive: bool = False, reverse: bool = False
) -> Value:
    """d y[i] / d x[j] is the product of the elements up to i without j. No division: an element may be 0.

    So x[j] gets (product before j) * s[j], where s[j] is the sum over i >= j of g[i] times the product from j + 1 to i.
    """
    if reverse:
        backwards = _cumprod_gradient(flip(g, (axis,)), flip(x, (axis,)), y, axis=axis, exclusive=exclusive)
        return flip(backwards, (axis,))
    if exclusive:
        g = _later(g, axis, 1)
    sums = _by_doubling(g, x, axis) if isinstance(x.shape[axis], int) else _by_table(g, x, axis)
    return mul(cumprod(x, axis=axis, exclusive=True), sums)


def _later(v: Value, axis: int, distance: int) -> Value:
    """v[j + distance] at j, 0 beyond the end."""
    shift = tuple(distance if k == axis else 0 for k in range(v.rank))
    return pad(v, np.zeros((), v.dtype.numpy), low=tuple(-n for n in shift), high=shift)


def _by_doubling(g: Value, x: Value, axis: int) -> Value:
    """s of `_cumprod_gradient` as the solution of s[j] = g[j] + x[j + 1] * s[j + 1], in log2(extent) steps.

    After a step of length d, s[j] holds what comes from the next 2 * d places.
    """
    sums, factor, distance = g, _later(x, axis, 1), 1
    while distance < x.shape[axis]:
        sums = add(sums, mul(factor, _later(sums, axis, distance)))
        factor = mul(factor, _later(factor, axis, distance))
        distance *= 2
    return sums


def _by_table(g: Value, x: Value, axis: int) -> Value:
    """The same for an extent that only the run knows: all products from j + 1 to i stand in a table over j and i."""
    before, extent, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    shape = (*before, extent, extent, *after)
    j, i = (ops.iota(shape=shape, axis=axis + k, dtype=INT64) for k in (0, 1))
    g_i, x_i = (ops.broadcast_to(reshape(v, shape=(*before, 1, extent, *after)), shape=shape) for v in (g, x))
    products = cumprod(select(ops.gt(i, j), x_i, 1.0), axis=axis + 1)
    return reduce_sum(select(ge(i, j), mul(g_i, products), 0.0), axes=(axis + 1,))


cumsum = _running(
    "cumsum",
    np.add,
    "scan_sum",
    "Sums of the elements up to each one along `axis`, without it when `exclusive`.",
    _cumsum_gradient,
)
cumprod = _running(
    "cumprod",
    np.multiply,
    "scan_prod",
    "Products of the elements up to each one along `axis`, without it when `exclusive`.",
    _cumprod_gradient,
)

# ------------------------------------------------------------------------------------------------ sliding windows

Padding = tuple[tuple[int, int], ...]


Extent = TypeVar("Extent", int, DimLike)


def window_extent(extent: Extent, window: int, stride: int, padding: tuple[int, int], dilation: int) -> Extent:
    """How many positions a window of `window` elements, `dilation` apart, has along a padded axis."""
    result = (extent + padding[0] + padding[1] - (window - 1) * dilation - 1) // stride + 1
    return max(result, 0) if isinstance(result, int) else result


def _window_type(
    name: str, x: TensorType, axes: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> TensorType:
    tensor_operand(name, 0, x)
    expect(x.dtype.kind in ("float", "int", "uint"), f"{name}: the operand is {x}; {name} takes float int uint types")
    expect(
        list(axes) == sorted(set(axes)) and all(0 <= a < x.rank for a in axes),
        f"{name}: axes {list(axes)} of {x} must be sorted, different and in range",
    )
    given = {"window": window, "strides": strides, "padding": padding, "dilation": dilation}
    for what, values in given.items():
        expect(len(values) == len(axes), f"{name}: {what} has {len(values)} entries for {len(axes)} axes")
    expect(all(v > 0 for v in (*window, *strides, *dilation)), f"{name}: window, strides and dilation must be positive")
    expect(
        all(v >= 0 for pair in padding for v in pair),
        f"{name}: padding {list(padding)} is negative; slice the operand instead",
    )
    shape = list(x.shape)
    for axis, w, stride, ends, step in zip(axes, window, strides, padding, dilation, strict=True):
        shape[axis] = window_extent(shape[axis], w, stride, ends, step)
    return x.with_shape(tuple(shape))


def windows(
    x: np.ndarray, fill: Any, axes: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    """A view of all windows of the padded operand: the shape of the result, then the window's own axes."""
    amounts, keep = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for axis, w, stride, (low, high), step in zip(axes, window, strides, padding, dilation, strict=True):
        count, span = window_extent(x.shape[axis], w, stride, (low, high), step), (w - 1) * step + 1
        amounts[axis] = (
            low,
            max(high, span - low - x.shape[axis]),
        )  # a window wider than all has no position, but a view
        keep[axis] = slice(0, count * stride, stride)
    padded = np.pad(x, amounts, constant_values=fill)
    spans = tuple((w - 1) * step + 1 for w, step in zip(window, dilation, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(padded, spans, axes)
    return view[(*keep, *(slice(None, None, step) for step in dilation))]


def _reduce_window_type(
    x: TensorType, *, combine: str, axes: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> TensorType:
    expect(
        combine in ("add", "maximum", "minimum"),
        f"reduce_window: combine is {combine!r}; known are add, maximum, minimum",
    )
    return _window_type("reduce_window", x, axes, window, strides, padding, dilation)


def _reduce_window_reference(
    x: np.ndarray, *, combine: str, axes: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    x = np.asarray(x)
    wide = accumulator(x)
    identity = combine_identity(combine, dtype_of(wide))
    view = windows(wide, identity, axes, window, strides, padding, dilation)
    inner = tuple(range(x.ndim, view.ndim))
    return like(_UFUNCS[combine].reduce(view, axis=inner, initial=identity, dtype=wide.dtype), x)


def _attributes(axes: Sequence[int], window: Sequence[int], **changes: Any) -> dict[str, Any]:
    n = len(axes)
    usual = {"strides": (1,) * n, "padding": ((0, 0),) * n, "dilation": (1,) * n}
    return {"axes": tuple(axes), "window": tuple(window), **usual, **changes}


def _window_cases() -> Iterable[tuple[np.ndarray, dict[str, Any]]]:
    image = np.random.default_rng(0).standard_normal((2, 3, 7, 6)).astype(np.float32)
    yield image, _attributes((2, 3), (3, 2))
    yield image, _attributes((2, 3), (3, 3), strides=(2, 2), padding=((1, 1), (1, 0)))
    yield image, _attributes((2, 3), (2, 3), dilation=(2, 1), padding=((0, 1), (2, 2)))
    yield image, _attributes((1,), (3,), padding=((1, 1),))
    yield image[:, :, :, 0].astype(np.float64), _attributes((2,), (2,), strides=(3,))
    yield (10 * image[0]).astype(np.int32), _attributes((1, 2), (2, 2), strides=(2, 2))
    yield image[0].astype(np.float16), _attributes((1, 2), (3, 3))
    yield image, _attributes((), ())


def _window_gradient(
    g: Value,
    x: Value,
    y: Value,
    *,
    combine: str,
    axes: Ints,
    window: Ints,
    strides: Ints,
    padding: Padding,
    dilation: Ints,
) -> Value:
    where: dict[str, Any] = {"axes": axes, "window": window, "dilation": dilation}
    if not axes:
        return g
    if combine == "add":
        return _window_sum_gradient(g, x, strides=strides, padding=padding, **where)
    places = window_argmax(x if combine == "maximum" else neg(x), strides=strides, padding=padding, **where)
    if any(
        low > (w - 1) * step or high > (w - 1) * step or not isinstance(x.shape[a], int) or step > x.shape[a]
        for a, w, (low, high), step in zip(axes, window, padding, dilation, strict=True)
    ):  # then a window may hold nothing but padding, and has no place
        shown = reduce_window(zeros(x.shape, x), combine="maximum", strides=strides, padding=padding, **where)
        g = select(eq(shown, 0.0), g, 0.0)
    # places are counted with the window's axes innermost
    order = (*(k for k in range(x.rank) if k not in axes), *axes)
    count, found = product(x.shape), product(places.shape)
    flat = ops.scatter_elements(
        zeros((count,), x), reshape(places, shape=(found,)), reshape(g, shape=(found,)), axis=0, reduction="add"
    )
    ordered = reshape(flat, shape=tuple(x.shape[k] for k in order))
    return transpose(ordered, perm=tuple(map(order.index, range(x.rank))))


def _window_sum_gradient(
    g: Value, x: Value, *, axes: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> Value:
    """A sum over windows of the cotangent, with zeros between its elements for a stride and at its ends."""
    apart = [1] * x.rank
    low, high = [0] * x.rank, list[DimLike]([0] * x.rank)
    for axis, w, stride, (before, _), step in zip(axes, window, strides, padding, dilation, strict=True):
        apart[axis] = stride
        low[axis] = (w - 1) * step - before
        high[axis] = x.shape[axis] + before - g.shape[axis] * stride
    spaced = pad(spread(g, apart), np.zeros((), g.dtype.numpy), low=tuple(low), high=tuple(high))
    once = {"strides": (1,) * len(axes), "padding": ((0, 0),) * len(axes)}
    return reduce_window(spaced, combine="add", axes=axes, window=window, dilation=dilation, **once)


def _next_axes(*, axes: Ints, **_: Any) -> dict[str, Any]:
    return {"axes": tuple(axis + 1 for axis in axes)}


reduce_window = register(
    OpSpec(
        name="reduce_window",
        kind=Kind.ANCHOR,
        template="window",
        summary="`combine` (add, maximum, minimum) over a window that slides along `axes`; padding holds the identity.",
        infer=_reduce_window_type,
        reference=_reduce_window_reference,
        takes_epilogue=True,
        dense_images=True,
        gradient=by_operand(_window_gradient),
        batch=leading(_next_axes),
        samples=lambda: [
            Sample((x,), {"combine": c, **attrs}) for x, attrs in _window_cases() for c in ("add", "maximum", "minimum")
        ],
    )
)


def _window_argmax_type(
    x: TensorType,
    *,
    axes: Ints,
    window: Ints,
    strides: Ints,
    padding: Padding,
    dilation: Ints,
    column_major: bool = False,
) -> TensorType:
    return _window_type("window_argmax", x, axes, window, strides, padding, dilation).with_dtype(INT64)


def _window_argmax_reference(
    x: np.ndarray,
    *,
    axes: Ints,
    window: Ints,
    strides: Ints,
    padding: Padding,
    dilation: Ints,
    column_major: bool = False,
) -> np.ndarray:
    x = np.asarray(x)
    order = [*(k for k in range(x.ndim) if k not in axes), *(reversed(axes) if column_major else axes)]
    flat = np.arange(x.size).reshape([x.shape[k] for k in order]).transpose(np.argsort(order))
    wide = accumulator(x)
    lowest = combine_identity("maximum", dtype_of(wide))
    values = windows(wide, lowest, axes, window, strides, padding, dilation)
    places = windows(flat, -1, axes, window, strides, padding, dilation)
    merged = (*values.shape[: x.ndim], math.prod(values.shape[x.ndim :]))
    values, places = values.reshape(merged), places.reshape(merged)
    # padding is -inf and must not win even where every real element is: then take the first real one
    best = np.argmax(np.where(places < 0, lowest, values), -1)[..., None]
    best = np.where(np.take_along_axis(places, best, -1) < 0, np.argmax(places >= 0, -1)[..., None], best)
    return np.asarray(np.take_along_axis(places, best, -1)[..., 0], np.int64)


def _window_argmax_batch(
    node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike
) -> Sequence[Value]:
    """Places are counted in all cases together, and the cases' own elements taken off again; -1 stays -1."""
    found = leading(_next_axes)(node, operands, batched, size)[0]
    (x,) = operands
    extents = ops.slice(ops.shape_of(x), starts=(1,), stops=(x.rank,), steps=(1,))
    before = mul(case_numbers(found.shape), reduce_prod(extents, axes=(0,)))
    return [select(ge(found, 0), sub(found, before), found)]


window_argmax = register(
    OpSpec(
        name="window_argmax",
        kind=Kind.ANCHOR,
        template="window_argmax",
        writes_strided=True,
        summary="Where in the whole operand, counted flat, each window's largest element is (MaxPool's second result).",
        infer=_window_argmax_type,
        reference=_window_argmax_reference,
        no_gradient="its result is an index",
        batch=_window_argmax_batch,
        samples=lambda: [
            *(Sample((x,), attrs) for x, attrs in _window_cases() if attrs["axes"]),
            *(Sample((x,), {**attrs, "column_major": True}) for x, attrs in itertools.islice(_window_cases(), 2)),
        ],
    )
)
