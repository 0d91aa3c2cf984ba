"""Reductions, running sums, sliding windows, sorting."""

from __future__ import annotations

import numpy as np

from graphc import ops
from graphc.frontends.onnx.export.body import Body, Refusal, takes
from graphc.frontends.onnx.export.operators.elementwise import widened
from graphc.frontends.onnx.export.registry import composition, exporter
from graphc.ir.dims import product
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, input_value
from graphc.ir.types import TensorType

_REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_prod": "ReduceProd", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_and": "ReduceMin", "reduce_or": "ReduceMax",
}  # fmt: skip


@exporter(*_REDUCTIONS)
def reduction(c: Body, node: Node, x: str) -> str:
    operator, dtype = _REDUCTIONS[node.op.name], node.inputs[0].dtype
    axes = node.attrs["axes"]
    if not axes:
        return x
    wide = widened(operator, dtype)
    x = x if wide == dtype else c.cast(x, wide)
    result = c.emit(operator, x, c.constant(axes), keepdims=0)
    if wide != dtype and operator in ("ReduceMax", "ReduceMin"):
        # of no elements at all the result is the end of the narrow type's range, not of the wide one's
        low, high = _bounds(node.inputs[0])
        result = c.emit(
            operator.removeprefix("Reduce"), result, c.constant(low if operator == "ReduceMax" else high, wide)
        )
    return str(result) if wide == dtype else c.cast(result, dtype)


@exporter("argmax", "argmin")
def extreme(c: Body, node: Node, x: str) -> str:
    operator = {"argmax": "ArgMax", "argmin": "ArgMin"}[node.op.name]
    dtype = node.inputs[0].dtype
    wide = widened(operator, dtype)
    x = x if wide == dtype else c.cast(x, wide)
    last = int(node.attrs.get("select_last", False))
    result = c.emit(operator, x, axis=node.attrs["axis"], keepdims=0, select_last_index=last)
    return _as_int64(c, node, 0, result)


def _as_int64(c: Body, node: Node, k: int, name: str) -> str:
    """ONNX's indices are int64; the graph's have the type that the node says."""
    t = node.types[k]
    assert isinstance(t, TensorType)
    return name if t.dtype.name == "int64" else c.cast(name, t.dtype)


@exporter("cumsum")
def cumsum(c: Body, node: Node, x: str) -> str:
    dtype = node.inputs[0].dtype
    wide = widened("CumSum", dtype)
    x = x if wide == dtype else c.cast(x, wide)
    flags = {k: int(node.attrs.get(k, False)) for k in ("exclusive", "reverse")}
    result = str(c.emit("CumSum", x, c.constant(node.attrs["axis"]), **flags))
    return result if wide == dtype else c.cast(result, dtype)


@composition("cumprod")
def cumprod(x: Value, *, axis: int, exclusive: bool = False, reverse: bool = False) -> Value:
    """A scan that carries the product; this opset has no operator for it."""
    rows = ops.transpose(x, perm=(axis, *(k for k in range(x.rank) if k != axis)))
    slice_type = TensorType(x.dtype, rows.shape[1:])
    so_far, row = input_value("product", slice_type), input_value("row", slice_type)
    product = ops.mul(so_far, row)
    body = Graph([so_far, row], [product, so_far if exclusive else product])
    one = ops.broadcast_to(np.ones((), x.dtype.numpy), shape=slice_type.shape)
    stacked = ops.scan(one, rows, body=body, carries=1, scanned=1, reverse=reverse)[1]
    return ops.transpose(stacked, perm=(*range(1, axis + 1), 0, *range(axis + 1, x.rank)))


def _bounds(v: Value) -> tuple[float, float]:
    if v.dtype.is_float:
        return -np.inf, np.inf
    info = np.iinfo(v.dtype.numpy)
    return int(info.min), int(info.max)


@exporter("reduce_window")
def reduce_window(c: Body, node: Node, x: str) -> str:
    """MaxPool where that is what it is; else shifted pieces, combined one axis after the other."""
    (v,), a = node.inputs, node.attrs
    axes, window, strides, padding, dilation = (a[k] for k in ("axes", "window", "strides", "padding", "dilation"))
    narrow = all(max(p) < w for p, w in zip(padding, window, strict=True))
    trailing = v.rank > 2 and axes == tuple(range(2, v.rank))
    if a["combine"] == "maximum" and trailing and narrow and takes("MaxPool", v.dtype):
        pads = (*(p[0] for p in padding), *(p[1] for p in padding))
        return str(c.emit("MaxPool", x, kernel_shape=window, strides=strides, pads=pads, dilations=dilation))
    combine = {"add": ops.add, "maximum": ops.maximum, "minimum": ops.minimum}[a["combine"]]
    low_end, high_end = _bounds(v)
    fill = np.asarray({"add": 0, "maximum": low_end, "minimum": high_end}[a["combine"]]).astype(v.dtype.numpy)
    for axis, size, stride, (low, high), step in zip(axes, window, strides, padding, dilation, strict=True):
        here = [int(k == axis) for k in range(v.rank)]
        # a window wider than the padded axis has no position
        span = (size - 1) * step + 1
        extent = v.shape[axis]
        if isinstance(extent, int) and extent + low + high < span:
            return c.lower(ops.broadcast_to(fill, shape=node.types[0].shape))  # type: ignore[union-attr]
        v = ops.pad(v, fill, low=tuple(low * h for h in here), high=tuple(high * h for h in here))
        count = (v.shape[axis] - span) // stride + 1
        pieces = []
        for k in range(size):
            start = k * step
            stop = start + (count - 1) * stride + 1
            pieces.append(
                ops.slice(
                    v,
                    starts=tuple(start * h for h in here),
                    stops=tuple(stop if h else d for h, d in zip(here, v.shape, strict=True)),
                    steps=tuple(stride if h else 1 for h in here),
                )
            )
        v = pieces[0]
        for piece in pieces[1:]:
            v = combine(v, piece)
    return c.lower(v)


@exporter("window_argmax")
def window_argmax(c: Body, node: Node, x: str) -> str:
    """The second result of MaxPool, which slides along all axes from 2 on and counts places through the whole tensor."""
    (v,), a = node.inputs, node.attrs
    first = v.rank - len(a["axes"])
    if a["axes"] != tuple(range(first, v.rank)):
        raise Refusal(f"ONNX's MaxPool slides along the last axes, not along {list(a['axes'])} of {v.type}")
    if first != 2:
        x = c.emit("Reshape", x, c.ints((1, product(v.shape[:first]), *v.shape[first:])), allowzero=1)
    exact = v.dtype.is_integer and v.dtype.bits <= 32  # float64 holds each, and orders them alike
    wide = dtype_of("float64") if exact and not takes("MaxPool", v.dtype) else widened("MaxPool", v.dtype)
    pads = (*(p[0] for p in a["padding"]), *(p[1] for p in a["padding"]))
    _, places = c.emit(
        "MaxPool",
        x if wide == v.dtype else c.cast(x, wide),
        results=2,
        kernel_shape=a["window"],
        strides=a["strides"],
        pads=pads,
        dilations=a["dilation"],
        storage_order=int(a.get("column_major", False)),
    )
    return str(places if first == 2 else c.emit("Reshape", places, c.ints(node.types[0].shape), allowzero=1))  # type: ignore[union-attr]


@exporter("sort")
def sort(c: Body, node: Node, x: str) -> tuple[str, str]:
    axis = node.attrs["axis"]
    k = c.extent(node.inputs[0].shape[axis])
    return _top_k(c, node, x, k, int(node.attrs.get("descending", False)))


@exporter("top_k")
def top_k(c: Body, node: Node, x: str) -> tuple[str, str]:
    return _top_k(c, node, x, c.extent(node.attrs["k"]), int(node.attrs.get("largest", True)))


def _top_k(c: Body, node: Node, x: str, k: str, largest: int) -> tuple[str, str]:
    """NaN stands where a runtime puts it: ONNX does not say. Of equal elements TopK takes the one of the lower index first, as a stable sort does."""
    dtype = node.inputs[0].dtype
    if dtype.kind == "bool":
        raise Refusal("ONNX's TopK does not take bool; cast the operand")
    wide = widened("TopK", dtype)
    x = x if wide == dtype else c.cast(x, wide)
    values, indices = c.emit("TopK", x, k, results=2, axis=node.attrs["axis"], largest=largest, sorted=1)
    return (values if wide == dtype else c.cast(values, dtype)), _as_int64(c, node, 1, indices)
