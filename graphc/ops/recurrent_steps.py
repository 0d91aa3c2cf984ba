"""Recurrent layers as scans: one step as a body graph, walked over time.

This is how they are compiled and how they are differentiated. The body is ordinary graph, so its gate arithmetic fuses
behind its matrix product. A layer of one step needs no scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graphc import ops
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value, input_value
from graphc.ops.functions import clip as clip_to

if TYPE_CHECKING:
    from graphc.ops.recurrent import Activation

__all__ = ["gru_steps", "lstm_steps", "rnn_steps"]

_INT64 = dtype_of("int64")
#: (projected input of this step, states, recurrent weights transposed, optional vector) -> new states
Step = Callable[[Value, Sequence[Value], Value, Value | None], Sequence[Value]]


def lstm_steps(node: Node) -> tuple[Value, ...]:
    """LSTM = scan of its step"""
    attrs = node.attrs
    f_gate, f_cell, f_out = attrs.get("activations", (("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0), ("tanh", 0.0, 0.0)))
    cut = attrs.get("clip", 0.0)

    def step(x: Value, states: Sequence[Value], rt: Value, peepholes: Value | None) -> Sequence[Value]:
        h, c = states
        i, o, f, g = _parts(ops.add(x, ops.dot(h, rt)), 4)
        p_i, p_o, p_f = _parts(peepholes, 3) if peepholes is not None else (None, None, None)
        i = _activate(f_gate, _peep(i, p_i, c), cut)
        f = ops.sub(1.0, i) if attrs.get("input_forget", False) else _activate(f_gate, _peep(f, p_f, c), cut)
        new_c = ops.add(ops.mul(f, c), ops.mul(i, _activate(f_cell, g, cut)))
        o = _activate(f_gate, _peep(o, p_o, new_c), cut)
        return ops.mul(o, _activate(f_out, new_c, 0.0)), new_c

    return _over_time(node, step, 2, attrs.get("peephole", False))


def gru_steps(node: Node) -> tuple[Value, ...]:
    """GRU = scan of its step"""
    attrs = node.attrs
    f_gate, f_new = attrs.get("activations", (("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0)))
    cut, before = attrs.get("clip", 0.0), attrs.get("linear_before_reset", False)

    def step(x: Value, states: Sequence[Value], rt: Value, bias: Value | None) -> Sequence[Value]:
        (h,) = states
        x_u, x_r, x_n = _parts(x, 3)
        if before:
            h_u, h_r, h_n = _parts(ops.dot(h, rt), 3)
        else:
            hidden = h.shape[-1]
            h_u, h_r = _parts(ops.dot(h, _columns(rt, 0, 2 * hidden)), 2)
        update = _activate(f_gate, ops.add(x_u, h_u), cut)
        reset = _activate(f_gate, ops.add(x_r, h_r), cut)
        if before:
            recurrent = ops.mul(reset, ops.add(h_n, bias) if bias is not None else h_n)
        else:
            recurrent = ops.dot(ops.mul(reset, h), _columns(rt, 2 * hidden, 3 * hidden))
        new = _activate(f_new, ops.add(x_n, recurrent), cut)
        return (ops.add(ops.mul(ops.sub(1.0, update), new), ops.mul(update, h)),)

    return _over_time(node, step, 1, before)


def rnn_steps(node: Node) -> tuple[Value, ...]:
    """RNN = scan of its step"""
    (how,) = node.attrs.get("activations", (("tanh", 0.0, 0.0),))
    cut = node.attrs.get("clip", 0.0)

    def step(x: Value, states: Sequence[Value], rt: Value, _: Value | None) -> Sequence[Value]:
        return (_activate(how, ops.add(x, ops.dot(states[0], rt)), cut),)

    return _over_time(node, step, 1, False)


def _over_time(node: Node, step: Step, states: int, vector: bool) -> tuple[Value, ...]:
    """Results (y, last states) of a recurrent node whose step is given; `vector`: an optional vector follows the states."""
    attrs = node.attrs
    xp, r, *rest = node.inputs
    initial, rest = rest[:states], rest[states:]
    extra = rest.pop(0) if vector else None
    lengths = rest.pop(0) if attrs.get("lengths", False) else None
    reverse = attrs.get("reverse", False)
    rt = ops.transpose(r, perm=(1, 0))
    steps, batch = xp.shape[0], xp.shape[1]
    count = None
    if lengths is not None:
        count = ops.reshape(ops.cast(lengths, dtype=_INT64), shape=(batch, 1))
        if reverse:
            xp = _reversed_sequences(xp, lengths)
    scanned = [xp] if count is None else [xp, ops.iota(shape=(steps,), axis=0, dtype=_INT64)]
    captures = [v for v in (rt, extra, count) if v is not None]

    def turn(now: Sequence[Value], slices: Sequence[Value], held: Sequence[Value]) -> tuple[Value, list[Value]]:
        held = list(held)
        weights, vector_value = held.pop(0), held.pop(0) if extra is not None else None
        new = list(step(slices[0], now, weights, vector_value))
        if count is None:
            return new[0], new
        active = ops.broadcast_to(ops.lt(slices[1], held.pop(0)), shape=new[0].shape)
        kept = [ops.select(active, a, b) for a, b in zip(new, now, strict=True)]
        return ops.select(active, new[0], 0.0), kept

    if steps == 1:
        y, last = turn(initial, [ops.reshape(v, shape=v.shape[1:]) for v in scanned], captures)
        y = ops.reshape(y, shape=(1, *y.shape))
        return (y, *last)
    body_inputs = [
        *(input_value(f"state{k}", v.type) for k, v in enumerate(initial)),
        *(input_value(f"row{k}", v.tensor.with_shape(v.shape[1:])) for k, v in enumerate(scanned)),
        *(input_value(f"held{k}", v.type) for k, v in enumerate(captures)),
    ]
    a, b = states, states + len(scanned)
    # constants are part of the body, where passes can see and pack them
    inside = [v if v.literal is not None else body_inputs[b + k] for k, v in enumerate(captures)]
    y, last = turn(body_inputs[:a], body_inputs[a:b], inside)
    body = Graph(body_inputs, [*last, y])
    results = ops.scan(
        *initial,
        *scanned,
        *captures,
        body=body,
        carries=states,
        scanned=len(scanned),
        reverse=reverse and lengths is None,
    )
    *last, y = results
    if reverse and lengths is not None:
        y = _reversed_sequences(y, lengths)
    return (y, *last)


def _parts(x: Value | None, n: int) -> list[Value]:
    """The last axis in `n` equal parts."""
    assert x is not None
    width = x.shape[-1] // n
    return [_columns(x, k * width, (k + 1) * width) for k in range(n)]


def _columns(x: Value, first: int, last: int) -> Value:
    rank = x.rank
    result: Value = ops.slice(x, starts=(*[0] * (rank - 1), first), stops=(*x.shape[:-1], last), steps=(1,) * rank)
    return result


def _peep(gate: Value, weights: Value | None, c: Value) -> Value:
    return gate if weights is None else ops.add(gate, ops.mul(weights, c))


def _reversed_sequences(x: Value, lengths: Value) -> Value:
    """x[T, B, *] with the first lengths[b] steps of each sequence reversed; what follows them does not matter."""
    steps, batch = x.shape[0], x.shape[1]
    at = ops.iota(shape=(steps, batch), axis=0, dtype=_INT64)
    count = ops.broadcast_to(ops.cast(lengths, dtype=_INT64), shape=(steps, batch))
    source = ops.sub(ops.sub(count, at), 1)
    source = ops.select(ops.lt(source, 0), at, source)
    index = ops.broadcast_to(ops.reshape(source, shape=(steps, batch, 1)), shape=x.shape)
    result: Value = ops.gather_elements(x, index, axis=0)
    return result


def _activate(how: Activation, x: Value, clip: float) -> Value:
    """A gate's activation, by the entry of `graphc.ops.recurrent.ACTIVATIONS`."""
    name, alpha, beta = how
    if clip > 0:
        x = clip_to(x, -clip, clip)
    result: Value
    match name:
        case "sigmoid" | "tanh" | "relu":
            result = {"sigmoid": ops.sigmoid, "tanh": ops.tanh, "relu": ops.relu}[name](x)
        case "affine":
            result = ops.add(ops.mul(x, alpha), beta)
        case "leakyrelu":
            result = ops.select(ops.ge(x, 0.0), x, ops.mul(x, alpha))
        case "thresholdedrelu":
            result = ops.select(ops.ge(x, alpha), x, 0.0)
        case "scaledtanh":
            result = ops.mul(ops.tanh(ops.mul(x, beta)), alpha)
        case "hardsigmoid":
            result = clip_to(ops.add(ops.mul(x, alpha), beta), 0.0, 1.0)
        case "elu":
            result = ops.select(ops.ge(x, 0.0), x, ops.mul(ops.expm1(ops.minimum(x, 0.0)), alpha))
        case "softsign":
            result = ops.div(x, ops.add(ops.abs(x), 1.0))
        case _:
            result = ops.add(ops.maximum(x, 0.0), ops.log1p(ops.exp(ops.neg(ops.abs(x)))))
    return result
