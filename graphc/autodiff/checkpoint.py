"""Backpropagation through long loops with less memory: checkpoints, and windows that cut it short.

`in_segments` is what a scan with the attributes `checkpoint` or `window` amounts to. Its gradient is the gradient of
that.

- checkpoint n: a scan over segments of n turns, each a scan. The outer one keeps its carries only, so the backward loop
  runs every segment again from its beginning: memory for T/n + n turns instead of T, for one more forward pass
  (T. Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, arXiv:1604.06174).
- window n: before every n-th turn the carries pass through `stop_gradient`: truncated backpropagation through time
  (R. Williams & J. Peng, "An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network
  Trajectories", 1990). The forward values are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import ops
from graphc.ir.dims import DimLike
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, UnusedNames, Value, inline, input_value, make
from graphc.ir.types import TensorType, tensor
from graphc.ops.control import scan
from graphc.ops.gradient import flip

__all__ = ["in_segments"]


def in_segments(node: Node) -> tuple[Value, ...]:
    """The results of a scan with a window or with checkpoints, as scans without."""
    attrs = {k: v for k, v in node.attrs.items() if k not in ("checkpoint", "window")}
    operands: Sequence[Value] = node.inputs
    if node.attrs.get("window", 0):
        operands, attrs = _in_windows(operands, attrs, node.attrs["window"])
    n = node.attrs.get("checkpoint", 0)
    return _segmented(operands, attrs, n) if n else make(scan, *operands, **attrs)


def _turns(operands: Sequence[Value], attrs: dict[str, Any]) -> DimLike:
    length: DimLike | None = attrs.get("length")
    return operands[attrs["carries"]].shape[0] if length is None else length


def _in_windows(operands: Sequence[Value], attrs: dict[str, Any], n: int) -> tuple[list[Value], dict[str, Any]]:
    """Operands and attributes of the scan that stops gradients at the beginning of every window but the first."""
    turns = _turns(operands, attrs)
    a, b = attrs["carries"], attrs["carries"] + attrs["scanned"]
    number = ops.iota(shape=(turns,), axis=0, dtype=dtype_of("int64"))
    if attrs.get("reverse", False):
        number = flip(number, (0,))
    begins = ops.logical_and(ops.eq(ops.mod(number, n), 0), ops.gt(number, 0))
    body: Graph = attrs["body"]
    here = input_value(UnusedNames(body.input_names)("window_begins"), tensor("bool"))
    carried = [
        ops.select(here, ops.stop_gradient(v), v) if isinstance(v.type, TensorType) and v.dtype.is_float else v
        for v in body.inputs[:a]
    ]
    inputs = (*body.inputs[:b], here, *body.inputs[b:])
    cut = Graph(inputs, inline(body, (*carried, *body.inputs[a:])))
    return [*operands[:b], begins, *operands[b:]], {**attrs, "body": cut, "scanned": attrs["scanned"] + 1}


def _segmented(operands: Sequence[Value], attrs: dict[str, Any], n: int) -> tuple[Value, ...]:
    """A scan over segments of `n` turns, each a scan, and a scan over the turns that are left."""
    turns = _turns(operands, attrs)
    a, b = attrs["carries"], attrs["carries"] + attrs["scanned"]
    segments = turns // n
    left = turns - segments * n
    backwards = attrs.get("reverse", False)
    if isinstance(turns, int) and turns <= n:
        return make(scan, *operands, **attrs)
    state, rows, captures = operands[:a], operands[a:b], operands[b:]
    body: Graph = attrs["body"]

    # the segments: first in the order of the turns, so the last rows when the scan walks backwards
    first = left if backwards else 0
    grouped = [ops.reshape(_between(v, first, first + segments * n), shape=(segments, n, *v.shape[1:])) for v in rows]
    names = body.input_names
    inner_inputs = [
        *(input_value(name, v.type) for name, v in zip(names, state, strict=False)),
        *(input_value(name, v.tensor.with_shape(v.shape[1:])) for name, v in zip(names[a:], grouped, strict=False)),
        *(input_value(name, v.type) for name, v in zip(names[b:], captures, strict=True)),
    ]
    rest = {k: v for k, v in attrs.items() if k != "length"}
    inner = make(scan, *inner_inputs, **rest, **({} if rows else {"length": n}))
    made = make(
        scan,
        *state,
        *grouped,
        *captures,
        **{**rest, "body": Graph(inner_inputs, inner), "save": "carries"},
        **({} if rows else {"length": segments}),
    )
    state, stacks = made[:a], [ops.reshape(v, shape=(segments * n, *v.shape[2:])) for v in made[a:]]
    if isinstance(left, int) and left == 0:
        return (*state, *stacks)

    start = 0 if backwards else segments * n
    tail = make(
        scan,
        *state,
        *(_between(v, start, start + left) for v in rows),
        *captures,
        **rest,
        **({} if rows else {"length": left}),
    )
    joined = zip(stacks, tail[a:], strict=True)
    return (*tail[:a], *(ops.concat(*((y, x) if backwards else (x, y)), axis=0) for x, y in joined))


def _between(v: Value, start: DimLike, stop: DimLike) -> Value:
    """The rows of `v` from `start` to `stop`."""
    if start == 0 and stop == v.shape[0]:
        return v
    return ops.slice(v, starts=(start, *[0] * (v.rank - 1)), stops=(stop, *v.shape[1:]), steps=(1,) * v.rank)
