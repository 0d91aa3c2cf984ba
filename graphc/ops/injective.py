"""Operations that only move elements: each result element is one operand element, found by index arithmetic.

Shapes, axes and bounds among the attributes are in normal form (axes counted from the front, no -1 in shapes);
`graphc.ops.shapes` has helpers that bring them there. Shapes and bounds may be symbolic.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc import ops
from graphc.ir import scalar as s
from graphc.ir.dims import DimLike, product
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Node, Value
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.ops.batching import lead, leading, move_axis, next_axis
from graphc.ops.gradient import by_operand, flip, put, spread, zeros
from graphc.ops.shapes import broadcast_shapes, factor_groups, reshaped_layout, slice_extent
from graphc.ops.spec import Kind, Layout, OpSpec, Reader, Sample, expect, register

__all__ = [
    "broadcast_shapes", "broadcast_to", "concat", "gather", "gather_elements", "gather_nd", "iota", "pad", "reshape",
    "shape_of", "slice_", "tensor_operand", "transpose", "wrap_index", "wrapped_indices",
]  # fmt: skip

Index = Sequence[Scalar]


def tensor_operand(name: str, k: int, t: object) -> TensorType:
    """Operand `k` as a tensor's type; raises GraphTypeError for a sequence or an optional."""
    expect(isinstance(t, TensorType), f"{name}: operand {k} is {t}, a tensor is needed")
    return t  # type: ignore[return-value]


def _both_known(a: DimLike, b: DimLike) -> bool:
    return isinstance(a, int) and isinstance(b, int)


_CUBE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
_WORDS = np.array([["a", "bb"], ["", "d"]], object)

# ------------------------------------------------------------------------------------------------------ reshape


def _reshape_type(x: TensorType, *, shape: tuple[DimLike, ...]) -> TensorType:
    tensor_operand("reshape", 0, x)
    expect(
        all(not isinstance(d, int) or d >= 0 for d in shape),
        f"reshape: the shape {list(shape)} has a negative extent; resolve_shape replaces a -1",
    )
    size, wanted = x.size, product(shape)
    expect(
        size == wanted or not _both_known(size, wanted),
        f"reshape: {x} has {size} elements, the shape {list(shape)} has {wanted}",
    )
    return x.with_shape(shape)


def _reshape_compute(result: TensorType, readers: Sequence[Reader], index: Index, *, shape: tuple[int, ...]) -> Scalar:
    """Axes that match one to one keep their index; only runs that really merge or split need divisions."""
    (x,) = readers
    old = x.type.static_shape
    if product(result.static_shape) == 0:
        return x(*(s.const(0) for _ in old))
    source: list[Scalar] = [s.const(0)] * len(old)
    for olds, news in factor_groups(old, result.static_shape):
        flat: Scalar = s.const(0)
        for axis in news:
            flat = flat * result.static_shape[axis] + index[axis]
        for axis in reversed(olds[1:]):
            source[axis] = flat % old[axis]
            flat = flat // old[axis]
        source[olds[0]] = flat
    return x(*source)


reshape: OpSpec = register(
    OpSpec(
        name="reshape",
        kind=Kind.INJECTIVE,
        summary="The same elements in row-major order under another shape.",
        infer=_reshape_type,
        reference=lambda x, *, shape: np.reshape(x, shape),
        compute=_reshape_compute,
        view=lambda layout, result, *, shape: reshaped_layout(layout, result.static_shape),
        gradient=by_operand(lambda g, x, y, *, shape: reshape(g, shape=x.shape)),
        batch=leading(lambda *, shape, size: {"shape": (size, *shape)}, takes_size=True),
        samples=lambda: [
            Sample((_CUBE,), {"shape": (6, 4)}),
            Sample((_CUBE,), {"shape": (2, 12)}),
            Sample((_CUBE,), {"shape": (4, 3, 2)}),
            Sample((_CUBE,), {"shape": (2, 1, 3, 2, 2)}),
            Sample((_CUBE.reshape(1, 2, 12, 1),), {"shape": (8, 3)}),
            Sample((np.int64(5),), {"shape": (1, 1)}),
            Sample((np.ones((1, 1), bool),), {"shape": ()}),
            Sample((np.zeros((0, 3), np.int8),), {"shape": (3, 0, 2)}),
            Sample((_WORDS,), {"shape": (4,)}),
        ],
    )
)

# ---------------------------------------------------------------------------------------------------- transpose


def _transpose_type(x: TensorType, *, perm: tuple[int, ...]) -> TensorType:
    tensor_operand("transpose", 0, x)
    expect(
        sorted(perm) == list(range(x.rank)), f"transpose: perm {list(perm)} does not permute the {x.rank} axes of {x}"
    )
    return x.with_shape(tuple(x.shape[p] for p in perm))


def _transpose_compute(result: TensorType, readers: Sequence[Reader], index: Index, *, perm: tuple[int, ...]) -> Scalar:
    return readers[0](*(index[perm.index(axis)] for axis in range(len(perm))))


def _transpose_view(layout: Layout, result: TensorType, *, perm: tuple[int, ...]) -> Layout:
    return Layout(layout.offset, tuple(layout.shape[p] for p in perm), tuple(layout.strides[p] for p in perm))


transpose: OpSpec = register(
    OpSpec(
        name="transpose",
        kind=Kind.INJECTIVE,
        summary="Axes reordered: axis k of the result is axis perm[k] of the operand.",
        infer=_transpose_type,
        reference=lambda x, *, perm: np.transpose(x, perm),
        compute=_transpose_compute,
        view=_transpose_view,
        gradient=by_operand(lambda g, x, y, *, perm: transpose(g, perm=tuple(map(perm.index, range(len(perm)))))),
        batch=leading(lambda *, perm: {"perm": (0, *(p + 1 for p in perm))}),
        samples=lambda: [
            Sample((_CUBE,), {"perm": (2, 0, 1)}),
            Sample((_CUBE,), {"perm": (0, 2, 1)}),
            Sample((np.arange(35, dtype=np.int16).reshape(5, 7),), {"perm": (1, 0)}),
            Sample((np.float64(1.5),), {"perm": ()}),
            Sample((np.zeros((0, 2), np.float32),), {"perm": (1, 0)}),
            Sample((_WORDS,), {"perm": (1, 0)}),
        ],
    )
)

# ------------------------------------------------------------------------------------------------- broadcast_to


def _broadcast_type(x: TensorType, *, shape: tuple[DimLike, ...]) -> TensorType:
    tensor_operand("broadcast_to", 0, x)
    fits = x.rank <= len(shape) and all(
        d == 1 or d == t or not _both_known(d, t) for d, t in zip(x.shape[::-1], shape[::-1], strict=False)
    )
    expect(fits, f"broadcast_to: {x} does not broadcast to the shape {list(shape)}")
    return x.with_shape(shape)


def _broadcast_compute(
    result: TensorType, readers: Sequence[Reader], index: Index, *, shape: tuple[int, ...]
) -> Scalar:
    (x,) = readers
    inner = index[len(index) - x.type.rank :]
    return x(*(s.const(0) if d == 1 else i for d, i in zip(x.type.shape, inner, strict=True)))


def _broadcast_view(layout: Layout, result: TensorType, *, shape: tuple[int, ...]) -> Layout:
    added = len(result.shape) - len(layout.shape)
    kept = [
        0 if d == 1 and n != 1 else stride
        for d, n, stride in zip(layout.shape, result.static_shape[added:], layout.strides, strict=True)
    ]
    return Layout(layout.offset, result.static_shape, (0,) * added + tuple(kept))


def _broadcast_gradient(g: Value, x: Value, y: Value, *, shape: tuple[DimLike, ...]) -> Value:
    """The sum over the axes that were repeated."""
    added = len(shape) - x.rank
    extents = list(zip(x.shape, shape[added:], strict=True))
    repeated = (*range(added), *(added + k for k, (d, n) in enumerate(extents) if d == 1 and n != 1))
    if repeated:
        g = reshape(ops.reduce_sum(g, axes=repeated), shape=tuple(1 if d == 1 else n for d, n in extents))
    for k, (d, n) in enumerate(extents):
        if d not in (1, n):  # only the run can tell whether d is 1: then all slices are added up in the first one
            last = ops.sub(gather(shape_of(x), np.array(k), axis=0), 1)
            places = ops.minimum(iota(shape=(n,), axis=0, dtype=dtype_of("int64")), last)
            g = put(g, (*g.shape[:k], d, *g.shape[k + 1 :]), places, k)
    return g


def _broadcast_batch(
    node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike
) -> Sequence[Value]:
    """The axes that are missing at the left belong between the cases and the operand's own."""
    (x,), shape = operands, node.attrs["shape"]
    missing = (1,) * (len(shape) + 1 - x.rank)
    apart = reshape(x, shape=(size, *missing, *x.shape[1:])) if missing else x
    return [broadcast_to(apart, shape=(size, *shape))]


broadcast_to = register(
    OpSpec(
        name="broadcast_to",
        kind=Kind.INJECTIVE,
        summary="Axes of extent 1, and missing ones at the left, repeated to the given shape.",
        infer=_broadcast_type,
        reference=lambda x, *, shape: np.broadcast_to(x, shape),
        compute=_broadcast_compute,
        view=_broadcast_view,
        gradient=by_operand(_broadcast_gradient),
        batch=_broadcast_batch,
        samples=lambda: [
            Sample((_CUBE[:, :1],), {"shape": (2, 3, 4)}),
            Sample((np.arange(4, dtype=np.int32),), {"shape": (2, 3, 4)}),
            Sample((np.float32(2),), {"shape": (2, 3)}),
            Sample((np.ones((1, 3), bool),), {"shape": (0, 3)}),
            Sample((np.float16(2),), {"shape": ()}),
        ],
    )
)

# -------------------------------------------------------------------------------------------------------- slice


def _slice_type(
    x: TensorType, *, starts: tuple[DimLike, ...], stops: tuple[DimLike, ...], steps: tuple[int, ...]
) -> TensorType:
    tensor_operand("slice", 0, x)
    counts = (len(starts), len(stops), len(steps))
    expect(
        counts == (x.rank,) * 3,
        f"slice: {x} needs {x.rank} starts, stops and steps; there are {counts[0]}, {counts[1]} and {counts[2]}",
    )
    shape = []
    for axis, (d, start, stop, step) in enumerate(zip(x.shape, starts, stops, steps, strict=True)):
        expect(
            isinstance(step, int) and step != 0,
            f"slice: the step of axis {axis} is {step}; an int other than 0 is needed",
        )
        extent = slice_extent(start, stop, step)
        if isinstance(d, int) and isinstance(start, int) and isinstance(extent, int) and extent:
            last = start + (extent - 1) * step
            expect(
                0 <= start < d and 0 <= last < d,
                f"slice: {start}:{stop}:{step} leaves axis {axis} of {x}; slice_bounds brings bounds into range",
            )
        shape.append(extent)
    return x.with_shape(tuple(shape))


def _slice_reference(
    x: np.ndarray, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> np.ndarray:
    # before index 0 is None for Python, where -1 would be the last element; a slice that is empty may begin there
    window = tuple(
        slice(a, None if b < 0 else b, c) if slice_extent(a, b, c) else slice(0)
        for a, b, c in zip(starts, stops, steps, strict=True)
    )
    return np.asarray(x)[window]


def _slice_compute(
    result: TensorType,
    readers: Sequence[Reader],
    index: Index,
    *,
    starts: tuple[int, ...],
    stops: tuple[int, ...],
    steps: tuple[int, ...],
) -> Scalar:
    return readers[0](*(i * step + start for i, start, step in zip(index, starts, steps, strict=True)))


def _slice_view(
    layout: Layout, result: TensorType, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> Layout:
    if 0 in result.shape:
        return Layout.dense(result.static_shape, layout.offset)
    offset = layout.offset + sum(start * stride for start, stride in zip(starts, layout.strides, strict=True))
    return Layout(
        offset, result.static_shape, tuple(step * stride for step, stride in zip(steps, layout.strides, strict=True))
    )


def _slice_gradient(
    g: Value,
    x: Value,
    y: Value,
    *,
    starts: tuple[DimLike, ...],
    stops: tuple[DimLike, ...],
    steps: tuple[int, ...],
) -> Value:
    """Zeros around the cotangent, and between its elements for a step; turned round for a negative one."""
    backwards = tuple(k for k, step in enumerate(steps) if step < 0)
    if backwards:
        g = flip(g, backwards)
    first = [a + (n - 1) * c if c < 0 else a for a, c, n in zip(starts, steps, g.shape, strict=True)]
    spaced = spread(g, [operator.abs(c) for c in steps])
    high = tuple(d - a - n for d, a, n in zip(x.shape, first, spaced.shape, strict=True))
    if all(n == 0 for n in (*first, *high)):
        return spaced
    return pad(spaced, np.zeros((), g.dtype.numpy), low=tuple(first), high=high)


def _slice_batch(
    *, starts: tuple[DimLike, ...], stops: tuple[DimLike, ...], steps: tuple[int, ...], size: DimLike
) -> dict[str, Any]:
    return {"starts": (0, *starts), "stops": (size, *stops), "steps": (1, *steps)}


slice_ = register(
    OpSpec(
        name="slice",
        kind=Kind.INJECTIVE,
        summary=(
            "Elements start, start + step, ... before stop along every axis; a negative step may stop at -1, before 0."
        ),
        infer=_slice_type,
        reference=_slice_reference,
        compute=_slice_compute,
        view=_slice_view,
        gradient=by_operand(_slice_gradient),
        batch=leading(_slice_batch, takes_size=True),
        samples=lambda: [
            Sample((_CUBE,), {"starts": (0, 1, 0), "stops": (2, 3, 4), "steps": (1, 1, 1)}),
            Sample((_CUBE,), {"starts": (1, 0, 3), "stops": (-1, 3, -1), "steps": (-1, 2, -2)}),
            Sample((_CUBE,), {"starts": (0, 2, 0), "stops": (2, 2, 4), "steps": (1, 1, 3)}),
            Sample((np.arange(5),), {"starts": (4,), "stops": (-1,), "steps": (-1,)}),
            Sample((np.arange(5),), {"starts": (-1,), "stops": (-1,), "steps": (-2,)}),
            Sample((np.float32(3),), {"starts": (), "stops": (), "steps": ()}),
            Sample((np.zeros((0, 3), bool),), {"starts": (0, 1), "stops": (0, 3), "steps": (1, 1)}),
            Sample((_WORDS,), {"starts": (0, 1), "stops": (2, 2), "steps": (1, 1)}),
        ],
    )
)

# ---------------------------------------------------------------------------------------------------------- pad


def _pad_type(x: TensorType, value: TensorType, *, low: tuple[DimLike, ...], high: tuple[DimLike, ...]) -> TensorType:
    tensor_operand("pad", 0, x)
    tensor_operand("pad", 1, value)
    expect(value.rank == 0 and value.dtype == x.dtype, f"pad: the value is {value}, {x.dtype}[] is needed")
    expect(
        len(low) == len(high) == x.rank,
        f"pad: {x} needs {x.rank} amounts at each end; there are {len(low)} low and {len(high)} high",
    )
    shape = tuple(a + d + b for a, d, b in zip(low, x.shape, high, strict=True))
    expect(
        all(not isinstance(d, int) or d >= 0 for d in shape),
        f"pad: {list(low)} and {list(high)} crop more than {x} has",
    )
    return x.with_shape(shape)


def _pad_reference(x: np.ndarray, value: np.ndarray, *, low: tuple[int, ...], high: tuple[int, ...]) -> np.ndarray:
    x = np.asarray(x)
    result = np.full([a + d + b for a, d, b in zip(low, x.shape, high, strict=True)], np.asarray(value)[()], x.dtype)
    source = tuple(
        slice(max(-a, 0), max(d - max(-b, 0), max(-a, 0))) for a, d, b in zip(low, x.shape, high, strict=True)
    )
    kept = x[source]
    result[tuple(slice(max(a, 0), max(a, 0) + n) for a, n in zip(low, kept.shape, strict=True))] = kept
    return result


def _pad_compute(
    result: TensorType, readers: Sequence[Reader], index: Index, *, low: tuple[int, ...], high: tuple[int, ...]
) -> Scalar:
    x, value = readers
    source = [i - a for i, a in zip(index, low, strict=True)]
    inside: list[Scalar] = []
    for i, a, b, d in zip(source, low, high, x.type.static_shape, strict=True):
        inside += [i >= 0] if a > 0 else []
        inside += [i < d] if b > 0 else []
    return s.select(functools.reduce(operator.and_, inside), x(*source), value()) if inside else x(*source)


def _pad_gradient(
    g: Value, x: Value, value: Value, y: Value, *, low: tuple[DimLike, ...], high: tuple[DimLike, ...]
) -> Value:
    """Cut off what was put around, and zeros where something was cut off."""
    return pad(g, np.zeros((), g.dtype.numpy), low=tuple(-n for n in low), high=tuple(-n for n in high))


def _pad_value_gradient(
    g: Value, x: Value, value: Value, y: Value, *, low: tuple[DimLike, ...], high: tuple[DimLike, ...]
) -> Value:
    """The sum of the border."""
    inside = ops.broadcast_to(np.array(False), shape=x.shape)
    border = pad(inside, np.array(True), low=low, high=high)
    return ops.reduce_sum(ops.select(border, g, 0.0), axes=tuple(range(x.rank)))


def _pad_batch(node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike) -> Sequence[Value]:
    """Where each case has its own value the border is found and filled by element."""
    (x, value), low, high = operands, (0, *node.attrs["low"]), (0, *node.attrs["high"])
    x = lead(x, size, batched[0])
    if not batched[1]:
        return [pad(x, value, low=low, high=high)]
    border = pad(ops.broadcast_to(np.False_, shape=x.shape), np.array(True), low=low, high=high)
    zero = ops.cast(np.False_, dtype=x.dtype)
    fill = broadcast_to(reshape(value, shape=(size, *(1 for _ in low[1:]))), shape=border.shape)
    return [ops.select(border, fill, pad(x, zero, low=low, high=high))]


pad = register(
    OpSpec(
        name="pad",
        kind=Kind.INJECTIVE,
        summary="`value` put around x, low[k] before and high[k] after it along axis k; negative amounts crop.",
        infer=_pad_type,
        reference=_pad_reference,
        compute=_pad_compute,
        gradient=by_operand(_pad_gradient, _pad_value_gradient),
        batch=_pad_batch,
        samples=lambda: [
            Sample((_CUBE, np.float32(7)), {"low": (0, 1, 2), "high": (0, 0, 1)}),
            Sample((_CUBE, np.float32(0)), {"low": (0, -1, 2), "high": (1, 0, -3)}),
            Sample((np.arange(3), np.int64(-1)), {"low": (-2,), "high": (5,)}),
            Sample((np.zeros((0, 2), np.float32), np.float32(1)), {"low": (1, 0), "high": (1, 0)}),
            Sample((np.float64(1), np.float64(2)), {"low": (), "high": ()}),
        ],
    )
)

# ------------------------------------------------------------------------------------------------------- concat


def _concat_type(*xs: TensorType, axis: int) -> TensorType:
    expect(len(xs) > 0, "concat: there is no operand")
    first = tensor_operand("concat", 0, xs[0])
    expect(0 <= axis < first.rank, f"concat: axis {axis} does not exist in {first}")
    shape, total = list(first.shape), first.shape[axis]
    for k, x in enumerate(xs[1:], 1):
        tensor_operand("concat", k, x)
        expect(x.dtype == first.dtype, f"concat: operand {k} is {x.dtype} but operand 0 is {first.dtype}")
        fits = x.rank == first.rank and all(
            a == b or not _both_known(a, b)
            for j, (a, b) in enumerate(zip(x.shape, first.shape, strict=True))
            if j != axis
        )
        expect(fits, f"concat: operand {k} is {x} but operand 0 is {first}; they may differ along axis {axis} only")
        # the operands agree, so where one knows an extent the result does
        shape = [b if isinstance(b, int) else a for a, b in zip(shape, x.shape, strict=True)]
        total = total + x.shape[axis]
    shape[axis] = total
    return first.with_shape(tuple(shape))


def _concat_compute(result: TensorType, readers: Sequence[Reader], index: Index, *, axis: int) -> Scalar:
    """A chain of selects; lowering writes each operand into its slice instead where it can."""
    end = result.static_shape[axis]
    element: Scalar | None = None
    for x in reversed(readers):
        end -= x.type.static_shape[axis]
        here = x(*(i - end if k == axis else i for k, i in enumerate(index)))
        element = here if element is None else s.select(index[axis] < end + x.type.static_shape[axis], here, element)
    assert element is not None
    return element


def _concat_reference(*xs: np.ndarray, axis: int) -> np.ndarray:
    return np.concatenate(xs, axis)


def _concat_gradient(
    node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]
) -> Sequence[Value | None]:
    """A piece of the cotangent each."""
    (g,), axis = cotangents, node.attrs["axis"]
    assert g is not None
    result: list[Value | None] = []
    end: DimLike = 0
    for x, want in zip(node.inputs, wanted, strict=True):
        start, end = end, end + x.shape[axis]
        starts = tuple(start if k == axis else 0 for k in range(g.rank))
        stops = tuple(end if k == axis else d for k, d in enumerate(g.shape))
        result.append(slice_(g, starts=starts, stops=stops, steps=(1,) * g.rank) if want else None)
    return result


concat = register(
    OpSpec(
        name="concat",
        kind=Kind.INJECTIVE,
        summary="Operands laid one after the other along `axis`.",
        infer=_concat_type,
        reference=_concat_reference,
        compute=_concat_compute,
        apart=True,
        gradient=_concat_gradient,
        batch=next_axis,
        samples=lambda: [
            Sample((_CUBE, _CUBE[:, :1], _CUBE[:, :2]), {"axis": 1}),
            Sample((np.arange(3), np.arange(0), np.arange(4)), {"axis": 0}),
            Sample((_CUBE,), {"axis": 2}),
            Sample((_CUBE.astype(np.float16), _CUBE.astype(np.float16)), {"axis": 0}),
            Sample((_WORDS, _WORDS), {"axis": 1}),
        ],
    )
)

# ------------------------------------------------------------------------------------------------------ gathers


def _integer_operand(name: str, k: int, t: object) -> TensorType:
    indices = tensor_operand(name, k, t)
    expect(indices.dtype.is_integer, f"{name}: the indices are {indices}, an integer type is needed")
    return indices


def wrap_index(i: Scalar, extent: int) -> Scalar:
    """An index from data, made safe: negative ones count from the end, those outside go to the nearest element."""
    signed = i.dtype.kind == "int"
    wide = s.cast(i, "int64")
    if signed:
        wide = s.select(wide < 0, wide + extent, wide)
    return s.scalar("minimum", s.scalar("maximum", wide, 0), max(extent - 1, 0))


def wrapped_indices(indices: np.ndarray, extent: int, what: str) -> np.ndarray:
    """Indices counted from the front. Raises IndexError outside [-extent, extent)."""
    i = np.asarray(indices).astype(np.int64)
    if i.size and (i.min() < -extent or i.max() >= extent):
        raise IndexError(f"{what}: indices from {i.min()} to {i.max()} leave an axis of extent {extent}")
    return np.where(i < 0, i + extent, i)


def _gather_type(x: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    tensor_operand("gather", 0, x)
    _integer_operand("gather", 1, indices)
    expect(0 <= axis < x.rank, f"gather: axis {axis} does not exist in {x}")
    return x.with_shape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _gather_reference(x: np.ndarray, indices: np.ndarray, *, axis: int) -> np.ndarray:
    x = np.asarray(x)
    return np.take(x, wrapped_indices(indices, x.shape[axis], "gather"), axis)


def _gather_compute(result: TensorType, readers: Sequence[Reader], index: Index, *, axis: int) -> Scalar:
    x, indices = readers
    end = axis + indices.type.rank
    chosen = wrap_index(indices(*index[axis:end]), x.type.static_shape[axis])
    return x(*index[:axis], chosen, *index[end:])


def _gather_batch(node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike) -> Sequence[Value]:
    """Indices that each case has its own of are coordinates behind the cases, where x is batched as well."""
    (x, indices), axis = operands, node.attrs["axis"]
    if not batched[1]:
        return [gather(x, indices, axis=axis + 1)]
    if not batched[0]:
        return [move_axis(gather(x, indices, axis=axis), axis, 0)]
    chosen = gather_nd(
        move_axis(x, axis + 1, 1), reshape(indices, shape=(*indices.shape, 1)), batch_dims=1
    )  # cases, indices, the axes before, those after
    of_indices, before = range(1, indices.rank), range(indices.rank, indices.rank + axis)
    return [transpose(chosen, perm=(0, *before, *of_indices, *range(indices.rank + axis, chosen.rank)))]


gather = register(
    OpSpec(
        name="gather",
        kind=Kind.INJECTIVE,
        summary=(
            "Slices of x along `axis` chosen by an integer tensor (np.take); indices outside are clamped by kernels."
        ),
        infer=_gather_type,
        reference=_gather_reference,
        compute=_gather_compute,
        looks_up=True,
        gradient=by_operand(lambda g, x, indices, y, *, axis: put(g, x.shape, indices, axis), None),
        batch=_gather_batch,
        samples=lambda: [
            Sample((_CUBE, np.array([[0, -1], [1, 1]])), {"axis": 1}),
            Sample((_CUBE, np.array([3, 0, -4], np.int32)), {"axis": 2}),
            Sample((_CUBE, np.int64(1)), {"axis": 0}),
            Sample((_CUBE, np.array([1], np.uint8)), {"axis": 0}),
            Sample((_CUBE, np.zeros((0,), np.int64)), {"axis": 0}),
            Sample((_WORDS, np.array([1, 0])), {"axis": 1}),
        ],
    )
)


def _gather_nd_type(x: TensorType, indices: TensorType, *, batch_dims: int = 0) -> TensorType:
    tensor_operand("gather_nd", 0, x)
    _integer_operand("gather_nd", 1, indices)
    expect(indices.rank >= 1, "gather_nd: the indices have rank 0; their last axis must hold the coordinates")
    depth = indices.shape[-1]
    expect(isinstance(depth, int), f"gather_nd: the last extent of the indices {indices} must be known")
    assert isinstance(depth, int)
    expect(0 <= batch_dims < indices.rank, f"gather_nd: batch_dims is {batch_dims}, the indices are {indices}")
    expect(batch_dims + depth <= x.rank, f"gather_nd: {depth} coordinates after {batch_dims} batch axes do not fit {x}")
    return x.with_shape((*indices.shape[:-1], *x.shape[batch_dims + depth :]))


def _gather_nd_reference(x: np.ndarray, indices: np.ndarray, *, batch_dims: int = 0) -> np.ndarray:
    x, indices = np.asarray(x), np.asarray(indices)
    batch = np.indices(indices.shape[:-1])[:batch_dims]
    chosen = [wrapped_indices(indices[..., k], x.shape[batch_dims + k], "gather_nd") for k in range(indices.shape[-1])]
    where = (*batch, *chosen)
    return x[where] if where else np.broadcast_to(x, indices.shape[:-1] + x.shape)


def _gather_nd_compute(result: TensorType, readers: Sequence[Reader], index: Index, *, batch_dims: int = 0) -> Scalar:
    x, indices = readers
    outer = indices.type.rank - 1
    depth = indices.type.static_shape[-1]
    extents = x.type.static_shape[batch_dims:]
    chosen = [wrap_index(indices(*index[:outer], s.const(k)), extents[k]) for k in range(depth)]
    return x(*index[:batch_dims], *chosen, *index[outer:])


def _gather_nd_gradient(g: Value, x: Value, indices: Value, y: Value, *, batch_dims: int = 0) -> Value:
    """Scattered to where it came from; the batch axes' own indices are put before the coordinates."""
    outer = indices.shape[:-1]
    if indices.shape[-1] == 0 and not batch_dims:  # all of x each time
        return ops.reduce_sum(g, axes=tuple(range(len(outer))))
    batch = [iota(shape=(*outer, 1), axis=k, dtype=indices.dtype) for k in range(batch_dims)]
    where = concat(*batch, indices, axis=len(outer)) if batch else indices
    return ops.scatter_nd(zeros(x.shape, x), where, g, reduction="add")


def _gather_nd_batch(
    node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike
) -> Sequence[Value]:
    (x, indices), batch_dims = operands, node.attrs.get("batch_dims", 0)
    if not batched[0] and not batch_dims:
        return [gather_nd(x, indices)]
    every = [lead(v, size, b) for v, b in zip(operands, batched, strict=True)]
    return [gather_nd(*every, batch_dims=batch_dims + 1)]


gather_nd = register(
    OpSpec(
        name="gather_nd",
        kind=Kind.INJECTIVE,
        summary=(
            "Slices of x at coordinates: the last axis of the indices holds one for each axis after the batch axes."
        ),
        infer=_gather_nd_type,
        reference=_gather_nd_reference,
        compute=_gather_nd_compute,
        looks_up=True,
        gradient=by_operand(_gather_nd_gradient, None),
        batch=_gather_nd_batch,
        samples=lambda: [
            Sample((_CUBE, np.array([[0, 1], [1, -1]])), {"batch_dims": 0}),
            Sample((_CUBE, np.array([[1], [0]])), {"batch_dims": 1}),
            Sample((_CUBE, np.array([[[0, 1, 2]]])), {}),
            Sample((_CUBE, np.zeros((0, 2), np.int32)), {}),
        ],
    )
)


def _gather_elements_type(x: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    tensor_operand("gather_elements", 0, x)
    _integer_operand("gather_elements", 1, indices)
    expect(0 <= axis < x.rank, f"gather_elements: axis {axis} does not exist in {x}")
    fits = x.rank == indices.rank and all(
        k == axis or not (isinstance(d, int) and isinstance(n, int)) or n <= d
        for k, (d, n) in enumerate(zip(x.shape, indices.shape, strict=True))
    )
    expect(
        fits, f"gather_elements: the indices {indices} leave {x}; only along axis {axis} may they have more elements"
    )
    return x.with_shape(indices.shape)


def _gather_elements_reference(x: np.ndarray, indices: np.ndarray, *, axis: int) -> np.ndarray:
    x, indices = np.asarray(x), np.asarray(indices)
    where: list[np.ndarray] = [*np.indices(indices.shape)]
    where[axis] = wrapped_indices(indices, x.shape[axis], "gather_elements")
    return x[tuple(where)]


def _gather_elements_compute(result: TensorType, readers: Sequence[Reader], index: Index, *, axis: int) -> Scalar:
    x, indices = readers
    chosen = wrap_index(indices(*index), x.type.static_shape[axis])
    return x(*index[:axis], chosen, *index[axis + 1 :])


gather_elements = register(
    OpSpec(
        name="gather_elements",
        kind=Kind.INJECTIVE,
        summary="result[i] = x[i with i[axis] = indices[i]].",
        infer=_gather_elements_type,
        reference=_gather_elements_reference,
        compute=_gather_elements_compute,
        looks_up=True,
        gradient=by_operand(
            lambda g, x, indices, y, *, axis: ops.scatter_elements(
                zeros(x.shape, x), indices, g, axis=axis, reduction="add"
            ),
            None,
        ),
        batch=next_axis,
        samples=lambda: [
            Sample((_CUBE, np.array([[[0, -1, 2, 1]]])), {"axis": 1}),
            Sample((_CUBE, np.array([[[3, 0, 1, 1, -2]], [[0, 0, 0, 1, 2]]], np.int32)), {"axis": 2}),
            Sample((np.zeros((2, 0), np.float32), np.zeros((2, 0), np.int64)), {"axis": 1}),
        ],
    )
)

# --------------------------------------------------------------------------------------------------------- iota


def _iota_type(*, shape: tuple[DimLike, ...], axis: int, dtype: DType) -> TensorType:
    expect(0 <= axis < len(shape), f"iota: axis {axis} does not exist in the shape {list(shape)}")
    expect(dtype.is_numeric, f"iota: {dtype} cannot count")
    return TensorType(dtype, shape)


def _iota_reference(*, shape: tuple[int, ...], axis: int, dtype: DType) -> np.ndarray:
    line = np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return np.broadcast_to(line, shape).astype(dtype.numpy)


def _iota_compute(result: TensorType, readers: Sequence[Reader], index: Index, *, axis: int, **_: Any) -> Scalar:
    return s.cast(index[axis], result.dtype)


def _iota_samples() -> Iterable[Sample]:
    yield Sample((), {"shape": (2, 3), "axis": 1, "dtype": dtype_of("int64")})
    yield Sample((), {"shape": (4, 2), "axis": 0, "dtype": dtype_of("float32")})
    yield Sample((), {"shape": (0,), "axis": 0, "dtype": dtype_of("int32")})


iota = register(
    OpSpec(
        name="iota",
        kind=Kind.INJECTIVE,
        summary="Each element's own index along `axis`; no operands.",
        infer=_iota_type,
        reference=_iota_reference,
        compute=_iota_compute,
        no_gradient="it has no operands",
        samples=_iota_samples,
    )
)

# ----------------------------------------------------------------------------------------------------- shape_of


def _shape_of_type(x: TensorType) -> TensorType:
    tensor_operand("shape_of", 0, x)
    return TensorType(dtype_of("int64"), (x.rank,))


def _shape_of_compute(result: TensorType, readers: Sequence[Reader], index: Index) -> Scalar:
    """A choice among numbers; the operand itself is not read."""
    extents = readers[0].type.static_shape
    element = s.const(extents[-1] if extents else 0)
    for axis, extent in reversed([*enumerate(extents)][:-1]):
        element = s.select(s.scalar("eq", index[0], axis), s.const(extent), element)
    return element


def _shape_of_batch(
    node: Node, operands: tuple[Value, ...], batched: tuple[bool, ...], size: DimLike
) -> Sequence[Value]:
    rank = operands[0].rank
    return [lead(slice_(shape_of(operands[0]), starts=(1,), stops=(rank,), steps=(1,)), size)]


shape_of = register(
    OpSpec(
        name="shape_of",
        kind=Kind.INJECTIVE,
        summary="The operand's shape as an int64 vector; known while compiling once symbols are bound.",
        infer=_shape_of_type,
        reference=lambda x: np.array(np.shape(x), np.int64),
        compute=_shape_of_compute,
        no_gradient="its result does not depend on the operand's elements",
        batch=_shape_of_batch,
        samples=lambda: [Sample((_CUBE,)), Sample((np.float32(1),)), Sample((np.zeros((0, 5), bool),))],
    )
)
