"""Recurrent layers in one direction, as ONNX defines LSTM, GRU and RNN.

The projection of the inputs, x W^T plus the biases, does not depend on the recurrence: it is one matrix product over
all steps, done outside, and these operations take its result. Layout: [steps, batch, gates * hidden].

A sequence in the batch may be shorter than the others: from its length on its states stay as they are and its
outputs are 0. `reverse` walks each sequence from its own last step to its first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc.ir import scalar as s
from graphc.ir.scalar import Scalar
from graphc.ir.types import TensorType
from graphc.ops.injective import tensor_operand
from graphc.ops.recurrent_steps import gru_steps, lstm_steps, rnn_steps
from graphc.ops.reduce import accumulator, like
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["ACTIVATIONS", "Activation", "activation", "activation_scalar", "gru", "lstm", "rnn"]

#: a gate's activation: its name in ACTIVATIONS, then alpha and beta, which most ignore
Activation: TypeAlias = tuple[str, float, float]

#: names, with the defaults of alpha and beta
ACTIVATIONS: dict[str, tuple[float, float]] = {
    "sigmoid": (0.0, 0.0),
    "tanh": (0.0, 0.0),
    "relu": (0.0, 0.0),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, 0.0),
    "thresholdedrelu": (1.0, 0.0),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, 0.0),
    "softsign": (0.0, 0.0),
    "softplus": (0.0, 0.0),
}


def activation(name: str, alpha: float | None = None, beta: float | None = None) -> Activation:
    """The attribute for ONNX's activation `name` (in any case), with default parameters where none are given."""
    key = name.lower()
    expect(key in ACTIVATIONS, f"no activation {name!r}; known are {', '.join(ACTIVATIONS)}")
    default_alpha, default_beta = ACTIVATIONS[key]
    return (key, default_alpha if alpha is None else float(alpha), default_beta if beta is None else float(beta))


def _apply(how: Activation, x: np.ndarray) -> np.ndarray:
    name, alpha, beta = how
    match name:
        case "sigmoid":
            return 1 / (1 + np.exp(-x))
        case "tanh":
            return np.tanh(x)
        case "relu":
            return np.maximum(x, 0)
        case "affine":
            return alpha * x + beta
        case "leakyrelu":
            return np.where(x >= 0, x, alpha * x)
        case "thresholdedrelu":
            return np.where(x >= alpha, x, 0)
        case "scaledtanh":
            return alpha * np.tanh(beta * x)
        case "hardsigmoid":
            return np.clip(alpha * x + beta, 0, 1)
        case "elu":
            return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0)))
        case "softsign":
            return x / (1 + np.abs(x))
        case _:
            return np.logaddexp(x, 0)


def activation_scalar(how: Activation, x: Scalar) -> Scalar:
    """One element of a gate's activation, for kernels."""
    name, alpha, beta = how
    match name:
        case "sigmoid" | "tanh":
            return s.scalar(name, x)
        case "relu":
            return s.scalar("maximum", x, 0)
        case "affine":
            return x * alpha + beta
        case "leakyrelu":
            return s.select(x >= 0, x, x * alpha)
        case "thresholdedrelu":
            return s.select(x >= alpha, x, s.const(0, x.dtype))
        case "scaledtanh":
            return s.scalar("tanh", x * beta) * alpha
        case "hardsigmoid":
            return s.scalar("minimum", s.scalar("maximum", x * alpha + beta, 0), 1)
        case "elu":
            return s.select(x >= 0, x, s.scalar("expm1", s.scalar("minimum", x, 0)) * alpha)
        case "softsign":
            return x / (s.scalar("abs", x) + 1)
        case _:
            return s.scalar("maximum", x, 0) + s.scalar("log1p", s.scalar("exp", -s.scalar("abs", x)))


def _types(
    name: str,
    gates: int,
    states: int,
    operands: Sequence[Any],
    optional: Sequence[tuple[str, int]],
    lengths: bool,
    activations: Any,
    wanted: int,
) -> tuple[TensorType, ...]:
    """Check the operands xp[T, B, gates*H], r[gates*H, H], `states` of [B, H], vectors of [n*H], lengths[B]."""
    labels = [
        "the projected input",
        "the recurrent weights",
        *["an initial state"] * states,
        *[what for what, _ in optional],
    ]
    labels += ["the lengths"] if lengths else []
    expect(len(operands) == len(labels), f"{name}: {len(operands)} operands, needed are {', '.join(labels)}")
    types = [tensor_operand(name, k, t) for k, t in enumerate(operands)]
    xp, r = types[0], types[1]
    expect(
        xp.rank == 3 and xp.dtype.is_float, f"{name}: the projected input is {xp}, a float tensor of rank 3 is needed"
    )
    expect(r.rank == 2, f"{name}: the recurrent weights are {r}, rank 2 is needed")
    steps, batch, hidden = xp.shape[0], xp.shape[1], r.shape[1]
    needed = [
        (steps, batch, gates * hidden),
        (gates * hidden, hidden),
        *[(batch, hidden)] * states,
        *[(n * hidden,) for _, n in optional],
    ]
    for k, (label, t, shape) in enumerate(zip(labels, types, needed, strict=False)):
        agree = t.rank == len(shape) and all(
            a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(t.shape, shape, strict=True)
        )
        expect(
            agree and t.dtype == xp.dtype, f"{name}: operand {k}, {label}, is {t}; {xp.dtype}{list(shape)} is needed"
        )
    if lengths:
        expect(
            types[-1].dtype.is_integer and types[-1].rank == 1,
            f"{name}: the lengths are {types[-1]}, an integer for each of the batch is needed",
        )
    expect(
        len(activations) == wanted and all(len(a) == 3 and a[0] in ACTIVATIONS for a in activations),
        f"{name}: activations {activations!r}; {wanted} of (name, alpha, beta) are needed, see activation()",
    )
    state = xp.with_shape((batch, hidden))
    return (xp.with_shape((steps, batch, hidden)), *[state] * states)


def _walk(
    xp: np.ndarray,
    states: Sequence[np.ndarray],
    lengths: np.ndarray | None,
    reverse: bool,
    step: Callable[..., tuple[np.ndarray, ...]],
) -> tuple[np.ndarray, ...]:
    """Apply `step(x, *states) -> states` along each sequence; the first state is the output."""
    steps, batch = xp.shape[:2]
    count = np.full(batch, steps) if lengths is None else np.asarray(lengths).astype(np.int64)
    rows = np.arange(batch)
    current = tuple(states)
    y = np.zeros((steps, *states[0].shape), states[0].dtype)
    for t in range(steps):
        active = t < count
        place = np.where(active, count - 1 - t, 0) if reverse else np.full(batch, t)
        new = step(xp[place, rows], *current)
        current = tuple(np.where(active[:, None], a, b).astype(b.dtype) for a, b in zip(new, current, strict=True))
        y[place[active], rows[active]] = current[0][active]
    return (y, *current)


def _cut(x: np.ndarray, clip: float) -> np.ndarray:
    return np.clip(x, -clip, clip) if clip > 0 else x


# ---------------------------------------------------------------------------------------------------------- lstm

SIGMOID, TANH = activation("sigmoid"), activation("tanh")


def _lstm_type(
    *operands: Any,
    peephole: bool = False,
    lengths: bool = False,
    activations: Sequence[Activation] = (SIGMOID, TANH, TANH),
    clip: float = 0.0,
    input_forget: bool = False,
    reverse: bool = False,
) -> tuple[TensorType, ...]:
    return _types("lstm", 4, 2, operands, [("the peepholes", 3)] if peephole else [], lengths, activations, 3)


def _lstm_reference(
    xp: np.ndarray,
    r: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    *optional: np.ndarray,
    peephole: bool = False,
    lengths: bool = False,
    activations: Sequence[Activation] = (SIGMOID, TANH, TANH),
    clip: float = 0.0,
    input_forget: bool = False,
    reverse: bool = False,
) -> tuple[np.ndarray, ...]:
    f_gate, f_cell, f_out = activations
    weights = accumulator(r).T
    zero = np.zeros(h.shape[-1], weights.dtype)
    p_in, p_out, p_forget = np.split(accumulator(optional[0]), 3) if peephole else (zero, zero, zero)

    def step(x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i, o, f, g = np.split(x + h @ weights, 4, -1)
        i = _apply(f_gate, _cut(i + p_in * c, clip))
        f = 1 - i if input_forget else _apply(f_gate, _cut(f + p_forget * c, clip))
        new_c = f * c + i * _apply(f_cell, _cut(g, clip))
        o = _apply(f_gate, _cut(o + p_out * new_c, clip))
        return o * _apply(f_out, new_c), new_c

    with np.errstate(all="ignore"):
        results = _walk(
            accumulator(xp), (accumulator(h), accumulator(c)), optional[-1] if lengths else None, reverse, step
        )
    return tuple(like(v, xp) for v in results)


def _draws(*shapes: Sequence[int], dtype: Any = np.float32) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


def _lstm_samples() -> Iterable[Sample]:
    t, b, n = 5, 3, 4
    shapes = ((t, b, 4 * n), (4 * n, n), (b, n), (b, n))
    lengths = np.array([5, 2, 0], np.int32)
    yield Sample(_draws(*shapes))
    yield Sample(_draws(*shapes, dtype=np.float64), {"reverse": True})
    yield Sample((*_draws(*shapes, (3 * n,)), lengths), {"peephole": True, "lengths": True})
    yield Sample((*_draws(*shapes), lengths), {"lengths": True, "reverse": True, "clip": 0.5})
    kinds = (activation("hardsigmoid"), activation("softsign"), activation("affine", 2.0, 0.5))
    yield Sample(_draws(*shapes), {"activations": kinds, "input_forget": True})
    yield Sample(_draws((1, 1, 4 * n), (4 * n, n), (1, n), (1, n)))


lstm = register(
    OpSpec(
        name="lstm",
        kind=Kind.ANCHOR,
        summary=(
            "LSTM. Operands: projected gates xp[T, B, 4H] (input, output, forget, cell), r[4H, H], h[B, H], "
            "c[B, H], then peepholes[3H] "
            "(input, output, forget) if `peephole` and lengths[B] if `lengths`. Results y[T, B, H], last h, "
            "last c. `activations` are for "
            "the gates, the cell and the output; `clip` above 0 bounds what they are given; `input_forget` "
            "ties forget to 1 - input."
        ),
        infer=_lstm_type,
        reference=_lstm_reference,
        decompose=lstm_steps,
        samples=_lstm_samples,
    )
)

# ----------------------------------------------------------------------------------------------------------- gru


def _gru_type(
    *operands: Any,
    lengths: bool = False,
    activations: Sequence[Activation] = (SIGMOID, TANH),
    clip: float = 0.0,
    linear_before_reset: bool = False,
    reverse: bool = False,
) -> tuple[TensorType, ...]:
    return _types(
        "gru", 3, 1, operands, [("the recurrent bias", 1)] if linear_before_reset else [], lengths, activations, 2
    )


def _gru_reference(
    xp: np.ndarray,
    r: np.ndarray,
    h: np.ndarray,
    *optional: np.ndarray,
    lengths: bool = False,
    activations: Sequence[Activation] = (SIGMOID, TANH),
    clip: float = 0.0,
    linear_before_reset: bool = False,
    reverse: bool = False,
) -> tuple[np.ndarray, ...]:
    f_gate, f_new = activations
    hidden = h.shape[-1]
    weights = accumulator(r).T
    w_gates, w_new = weights[:, : 2 * hidden], weights[:, 2 * hidden :]

    def step(x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray]:
        gates = _apply(f_gate, _cut(x[:, : 2 * hidden] + h @ w_gates, clip))
        update, reset = gates[:, :hidden], gates[:, hidden:]
        recurrent = reset * (h @ w_new + accumulator(optional[0])) if linear_before_reset else (reset * h) @ w_new
        new = _apply(f_new, _cut(x[:, 2 * hidden :] + recurrent, clip))
        return ((1 - update) * new + update * h,)

    with np.errstate(all="ignore"):
        results = _walk(accumulator(xp), (accumulator(h),), optional[-1] if lengths else None, reverse, step)
    return tuple(like(v, xp) for v in results)


def _gru_samples() -> Iterable[Sample]:
    t, b, n = 4, 2, 3
    shapes = ((t, b, 3 * n), (3 * n, n), (b, n))
    lengths = np.array([4, 1], np.int64)
    yield Sample(_draws(*shapes))
    yield Sample(_draws(*shapes, dtype=np.float64), {"reverse": True})
    yield Sample(_draws(*shapes, (n,)), {"linear_before_reset": True})
    yield Sample((*_draws(*shapes, (n,)), lengths), {"linear_before_reset": True, "lengths": True, "reverse": True})
    yield Sample((*_draws(*shapes), lengths), {"lengths": True, "clip": 0.3})


gru = register(
    OpSpec(
        name="gru",
        kind=Kind.ANCHOR,
        summary=(
            "GRU. Operands: projected gates xp[T, B, 3H] (update, reset, new), r[3H, H], h[B, H], then the "
            "recurrent bias[H] of the new "
            "state if `linear_before_reset` (which applies the reset after the product) and lengths[B] if "
            "`lengths`. Results y[T, B, H], "
            "last h. `activations` are for the gates and the new state."
        ),
        infer=_gru_type,
        reference=_gru_reference,
        decompose=gru_steps,
        samples=_gru_samples,
    )
)

# ----------------------------------------------------------------------------------------------------------- rnn


def _rnn_type(
    *operands: Any,
    lengths: bool = False,
    activations: Sequence[Activation] = (TANH,),
    clip: float = 0.0,
    reverse: bool = False,
) -> tuple[TensorType, ...]:
    return _types("rnn", 1, 1, operands, [], lengths, activations, 1)


def _rnn_reference(
    xp: np.ndarray,
    r: np.ndarray,
    h: np.ndarray,
    *optional: np.ndarray,
    lengths: bool = False,
    activations: Sequence[Activation] = (TANH,),
    clip: float = 0.0,
    reverse: bool = False,
) -> tuple[np.ndarray, ...]:
    weights = accumulator(r).T

    def step(x: np.ndarray, h: np.ndarray) -> tuple[np.ndarray]:
        return (_apply(activations[0], _cut(x + h @ weights, clip)),)

    with np.errstate(all="ignore"):
        results = _walk(accumulator(xp), (accumulator(h),), optional[-1] if lengths else None, reverse, step)
    return tuple(like(v, xp) for v in results)


def _rnn_samples() -> Iterable[Sample]:
    shapes = ((4, 2, 3), (3, 3), (2, 3))
    yield Sample(_draws(*shapes))
    yield Sample((*_draws(*shapes), np.array([3, 4])), {"lengths": True, "reverse": True})
    for name in ACTIVATIONS:
        yield Sample(_draws(*shapes), {"activations": (activation(name),)})


rnn = register(
    OpSpec(
        name="rnn",
        kind=Kind.ANCHOR,
        summary=(
            "Plain recurrence h' = f(xp + h r^T). Operands: xp[T, B, H], r[H, H], h[B, H], lengths[B] if "
            "`lengths`. Results y[T, B, H], last h."
        ),
        infer=_rnn_type,
        reference=_rnn_reference,
        decompose=rnn_steps,
        samples=_rnn_samples,
    )
)
