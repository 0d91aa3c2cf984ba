"""Loops for the tests of gradients, and the same programs without loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import ops
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, inline, input_value, rebuild, remake
from graphc.ir.types import tensor

__all__ = ["arguments_for", "count", "lstm", "unrolled"]


def lstm(turns: Any, *, batch: int = 2, width: int = 3, hidden: int = 4, **attrs: Any) -> Graph:
    """A scalar of an LSTM's states and results over `turns` steps; float64."""
    h, c = (input_value(n, tensor("float64", batch, hidden)) for n in ("h", "c"))
    x = input_value("x", tensor("float64", batch, width))
    held = [
        input_value("W", tensor("float64", width, 4 * hidden)),
        input_value("U", tensor("float64", hidden, 4 * hidden)),
        input_value("b", tensor("float64", 4 * hidden)),
    ]
    gates = ops.add(ops.add(ops.dot(x, held[0]), ops.dot(h, held[1])), held[2])
    i, f, g, o = (
        ops.slice(gates, starts=(0, k * hidden), stops=(batch, (k + 1) * hidden), steps=(1, 1)) for k in range(4)
    )
    new_c = ops.add(ops.mul(ops.sigmoid(f), c), ops.mul(ops.sigmoid(i), ops.tanh(g)))
    new_h = ops.mul(ops.sigmoid(o), ops.tanh(new_c))
    body = Graph([h, c, x, *held], [new_h, new_c, new_h])
    xs = input_value("xs", tensor("float64", turns, batch, width))
    start = [input_value(n, tensor("float64", batch, hidden)) for n in ("h0", "c0")]
    last_h, last_c, ys = ops.scan(*start, xs, *held, body=body, carries=2, scanned=1, **attrs)
    last = ops.reduce_sum(ops.mul(last_h, last_c), axes=(0, 1))
    # each step's result counts otherwise, or a wrong order of the steps would not show
    step = ops.cast(ops.iota(shape=(turns, batch, hidden), axis=0, dtype=dtype_of("int64")), dtype=ys.dtype)
    each = ops.reduce_sum(ops.mul(ops.sin(ys), ops.add(step, 1.0)), axes=(0, 1, 2))
    return Graph([xs, *start, *held], [ops.add(last, each)])


def unrolled(graph: Graph) -> Graph:
    """The graph with the turns of its scans of one turn or more written out."""

    def transform(node: Any, inputs: tuple[Value, ...]) -> Any:
        if node.op.name != "scan":
            return remake(node, inputs)
        attrs = node.attrs
        a, b = attrs["carries"], attrs["carries"] + attrs["scanned"]
        state, rows, captures = list(inputs[:a]), inputs[a:b], inputs[b:]
        turns = rows[0].shape[0] if rows else attrs["length"]
        pieces: list[list[Value]] = [[] for _ in attrs["body"].outputs[a:]]
        backwards = attrs.get("reverse", False)
        for t in reversed(range(turns)) if backwards else range(turns):
            out = inline(attrs["body"], [*state, *(row(r, t) for r in rows), *captures])
            state = list(out[:a])
            for stack, v in zip(pieces, out[a:], strict=True):
                stack.append(ops.reshape(v, shape=(1, *v.shape)))
        return [*state, *(ops.concat(*(p[::-1] if backwards else p), axis=0) for p in pieces)]

    return rebuild(graph, transform)


def row(rows: Value, t: int) -> Value:
    """rows[t]"""
    one = ops.slice(rows, starts=(t, *[0] * (rows.rank - 1)), stops=(t + 1, *rows.shape[1:]), steps=(1,) * rows.rank)
    return ops.reshape(one, shape=rows.shape[1:])


def arguments_for(graph: Graph, **sizes: int) -> list[np.ndarray]:
    """Random arrays for a graph's inputs."""
    draw = np.random.default_rng(0).standard_normal
    return [np.asarray(draw([sizes.get(str(d), d) for d in v.shape])) for v in graph.inputs]


def count(graph: Graph, name: str) -> int:
    """How many nodes of an operation there are, in bodies too."""
    return sum((n.op.name == name) + sum(count(b, name) for b in n.bodies) for n in graph.nodes)
