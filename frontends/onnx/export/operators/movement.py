"""Operations that move elements: views, gathers, scatters, and what only counts or draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc import ops
from graphc.frontends.onnx.export.body import Body, Refusal
from graphc.frontends.onnx.export.registry import composition, exporter
from graphc.ir.dims import DimLike
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node, Value
from graphc.ops.random import threefry2x32

_INT64 = dtype_of("int64")
_FIRST = np.iinfo(np.int64).min  # before the first element, for a slice that walks backwards


@exporter("reshape")
def reshape(c: Body, node: Node, x: str) -> str:
    return str(c.emit("Reshape", x, c.ints(node.attrs["shape"]), allowzero=1))


@exporter("transpose")
def transpose(c: Body, node: Node, x: str) -> str:
    return str(c.emit("Transpose", x, perm=node.attrs["perm"])) if node.attrs["perm"] else x


@exporter("broadcast_to")
def broadcast_to(c: Body, node: Node, x: str) -> str:
    return str(c.emit("Expand", x, c.ints(node.attrs["shape"])))


@exporter("slice")
def slice_(c: Body, node: Node, x: str) -> str:
    starts, stops, steps = (node.attrs[k] for k in ("starts", "stops", "steps"))
    if not starts:
        return x
    bounds: list[tuple[DimLike, DimLike, int]] = []
    for start, stop, step, extent in zip(starts, stops, steps, node.outputs[0].shape, strict=True):
        if extent == 0:  # its bounds may lie before the first element, where ONNX counts from the end
            bounds.append((0, 0, 1))
        elif step < 0 and not isinstance(stop, int):
            raise Refusal(f"it walks backwards down to {stop}, which only the run knows")
        else:
            bounds.append((start, _FIRST if isinstance(stop, int) and stop < 0 else stop, step))
    starts, ends, steps = zip(*bounds, strict=True)
    axes = c.constant(np.arange(len(starts)))
    return str(c.emit("Slice", x, c.ints(starts), c.ints(ends), axes, c.ints(steps)))


@exporter("pad")
def pad(c: Body, node: Node, x: str, value: str) -> str:
    if not node.attrs["low"]:
        return x
    return str(c.emit("Pad", x, c.ints((*node.attrs["low"], *node.attrs["high"])), value, mode="constant"))


@exporter("concat")
def concat(c: Body, node: Node, *xs: str) -> str:
    return str(c.emit("Concat", *xs, axis=node.attrs["axis"]))


def _indices(c: Body, v: Value, name: str, only_int64: bool = False) -> str:
    fine = v.dtype.name == "int64" or (v.dtype.name == "int32" and not only_int64)
    return name if fine else c.cast(name, _INT64)


@exporter("gather")
def gather(c: Body, node: Node, x: str, indices: str) -> str:
    return str(c.emit("Gather", x, _indices(c, node.inputs[1], indices), axis=node.attrs["axis"]))


@exporter("gather_nd")
def gather_nd(c: Body, node: Node, x: str, indices: str) -> str:
    where = _indices(c, node.inputs[1], indices, only_int64=True)
    return str(c.emit("GatherND", x, where, batch_dims=node.attrs.get("batch_dims", 0)))


@exporter("gather_elements")
def gather_elements(c: Body, node: Node, x: str, indices: str) -> str:
    return str(c.emit("GatherElements", x, _indices(c, node.inputs[1], indices), axis=node.attrs["axis"]))


@exporter("scatter_elements")
def scatter_elements(c: Body, node: Node, x: str, indices: str, updates: str) -> str:
    where = _indices(c, node.inputs[1], indices)
    reduction = node.attrs.get("reduction", "none")
    return str(c.emit("ScatterElements", x, where, updates, axis=node.attrs["axis"], reduction=reduction))


@exporter("scatter_nd")
def scatter_nd(c: Body, node: Node, x: str, indices: str, updates: str) -> str:
    where = _indices(c, node.inputs[1], indices, only_int64=True)
    return str(c.emit("ScatterND", x, where, updates, reduction=node.attrs.get("reduction", "none")))


@exporter("iota")
def iota(c: Body, node: Node) -> str:
    shape, axis, dtype = node.attrs["shape"], node.attrs["axis"], node.attrs["dtype"]
    extent = c.emit("Squeeze", c.extent(shape[axis]))
    line = c.emit("Range", c.constant(0), extent, c.constant(1))
    line = line if dtype == _INT64 else c.cast(line, dtype)
    others = [k for k in range(len(shape)) if k != axis]
    return str(c.emit("Expand", c.emit("Unsqueeze", line, c.constant(others)), c.ints(shape))) if others else str(line)


@exporter("shape_of")
def shape_of(c: Body, node: Node, x: str) -> str:
    return str(c.emit("Shape", x))


@composition("frames")
def frames(x: Value, *, size: int, step: int) -> Value:
    count = (x.shape[-1] - size) // step + 1
    starts, places = (ops.iota(shape=(count, size), axis=k, dtype=_INT64) for k in (0, 1))
    return ops.gather(x, ops.add(ops.mul(starts, step), places), axis=x.rank - 1)


class _Word:
    """A uint32 held in an int64, for runtimes add no unsigned integers: what threefry2x32 needs."""

    MASK = 0xFFFFFFFF

    def __init__(self, v: Value) -> None:
        self.v = v

    def __add__(self, other: _Word) -> _Word:
        return _Word(ops.bitwise_and(ops.add(self.v, other.v), self.MASK))

    def __xor__(self, other: _Word) -> _Word:
        return _Word(ops.bitwise_xor(self.v, other.v))

    def rotate(self, n: int) -> _Word:
        high = ops.bitwise_and(ops.mul(self.v, 1 << n), self.MASK)
        return _Word(ops.add(high, ops.div(self.v, 1 << (32 - n))))


@composition("random_bits")
def random_bits(key: Value, *, shape: tuple[DimLike, ...]) -> Value:
    cases = key.shape[:-1]
    flat: Value | None = None
    for axis, extent in enumerate(shape):
        i = ops.iota(shape=shape, axis=axis, dtype=_INT64)
        flat = i if flat is None else ops.add(ops.mul(flat, _known(extent)), i)
    if flat is None:
        flat = ops.reshape(ops.iota(shape=(1,), axis=0, dtype=_INT64), shape=())
    wide = ops.cast(key, dtype=_INT64)
    take: Callable[[int], Value] = lambda k: ops.reshape(  # noqa: E731
        ops.gather(wide, np.int64(k), axis=key.rank - 1), shape=(*cases, *(1 for _ in shape))
    )
    full = (*cases, *shape)
    k0, k1 = (_Word(ops.broadcast_to(take(k), shape=full)) for k in (0, 1))
    flat = ops.broadcast_to(flat, shape=full)
    high, low = ops.div(flat, 1 << 32), ops.bitwise_and(flat, _Word.MASK)
    zero = ops.mul(flat, 0)
    words = threefry2x32(k0, k1, _Word(high), _Word(low), lambda w, n: w.rotate(n), lambda n: _Word(ops.add(zero, n)))
    return ops.cast(words[0].v, dtype=dtype_of("uint32"))


def _known(extent: DimLike) -> int:
    if isinstance(extent, int):
        return extent
    raise Refusal(f"an extent of the random numbers is {extent}; give it a number")
