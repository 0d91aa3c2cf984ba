"""LSTM, GRU and RNN: the projection of the inputs is one matrix product over all steps, the recurrence an operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import broadcast, full, reshape
from graphc.frontends.onnx.registry import importer
from graphc.ir.dims import DimLike
from graphc.ir.graph import Value
from graphc.ops.recurrent import ACTIVATIONS, Activation, activation

__all__: list[str] = []

#: activations that take the next entry of activation_alpha, and of activation_beta
_WITH_ALPHA = {"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}
_WITH_BETA = {"affine", "scaledtanh", "hardsigmoid"}


class _Layer(NamedTuple):
    """What the three operators have in common, with the time axis first: x is [steps, batch, inputs]."""

    x: Value
    hidden: int
    reverse: tuple[bool, ...]  # one entry a direction
    activations: tuple[Activation, ...]  # all directions one after the other
    clip: float
    batch_first: bool

    @property
    def directions(self) -> int:
        return len(self.reverse)

    @property
    def per_direction(self) -> int:
        return len(self.activations) // self.directions


def _layer(c: Context, x: Value, recurrence: Value, defaults: Sequence[str]) -> _Layer:
    batch_first = c.flag("layout")
    if batch_first:
        x = ops.transpose(x, perm=(1, 0, 2))
    direction = c.string("direction", "forward")
    reverse = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}.get(direction)
    if reverse is None:
        c.invalid(f"the direction is {direction!r}; known are forward, reverse and bidirectional")
    hidden = recurrence.shape[-1]
    if c.int("hidden_size", hidden) != hidden:
        c.invalid(f"hidden_size is {c.int('hidden_size')} but the recurrent weights are {recurrence.type}")
    names = c.strings("activations", tuple(defaults) * len(reverse))
    if len(names) != len(defaults) * len(reverse):
        c.invalid(f"there are {len(names)} activations; {len(defaults)} a direction are needed")
    alphas, betas = list(c.floats("activation_alpha", ())), list(c.floats("activation_beta", ()))
    activations = []
    for name in names:
        if name.lower() not in ACTIVATIONS:
            c.unsupported(f"the activation {name!r}")
        alpha = alphas.pop(0) if alphas and name.lower() in _WITH_ALPHA else None
        beta = betas.pop(0) if betas and name.lower() in _WITH_BETA else None
        activations.append(activation(name, alpha, beta))
    c.ignore("output_sequence")  # version 1 says which outputs are wanted; their names say so as well
    return _Layer(x, hidden, reverse, tuple(activations), c.float("clip", 0.0), batch_first)


def _part(x: Value, direction: int, start: int = 0, stop: int | None = None) -> Value:
    """`x[direction, start:stop]`."""
    stop = x.shape[1] if stop is None else stop
    rest = x.shape[2:]
    window = ops.slice(
        x,
        starts=(direction, start, *[0] * len(rest)),
        stops=(direction + 1, stop, *rest),
        steps=(1,) * x.rank,
    )
    return reshape(window, (stop - start, *rest))


def _project(layer: _Layer, weights: Value, bias: Value | None) -> Value:
    """x W^T + bias for all steps in one product: [steps, batch, gates * hidden]."""
    steps, batch, inputs = layer.x.shape
    rows = ops.dot(reshape(layer.x, (steps * batch, inputs)), ops.transpose(weights, perm=(1, 0)))
    if bias is not None:
        rows = ops.add(rows, broadcast(bias, rows.shape))
    return reshape(rows, (steps, batch, rows.shape[1]))


def _state(layer: _Layer, initial: Value | None, direction: int) -> Value:
    """The initial state of a direction [batch, hidden], zero unless given."""
    shape = (layer.x.shape[1], layer.hidden)
    if initial is None:
        return full(0, layer.x.dtype, shape)
    if layer.batch_first:
        initial = ops.transpose(initial, perm=(1, 0, 2))
    return _part(initial, direction)


def _lengths(c: Context, layer: _Layer, lengths: Value | None) -> list[Value]:
    """The lengths as an operand, unless they are known to be all steps."""
    if lengths is None:
        return []
    known = c.known(lengths)
    if known is not None and known.dtype != object and (known == layer.x.shape[0]).all():
        return []
    return [lengths]


#: (direction, its activations) -> (all outputs, last states...)
Run = Callable[[int, tuple[Activation, ...]], Sequence[Value]]


def _directions(layer: _Layer, run: Run) -> list[Value]:
    """The directions' results put together: Y [steps, directions, batch, hidden], states without the steps."""
    n = layer.per_direction
    results = [run(d, layer.activations[d * n : (d + 1) * n]) for d in range(layer.directions)]
    outputs = []
    for k, column in enumerate(zip(*results, strict=True)):
        axis = 1 if k == 0 else 0
        apart = []
        for v in column:
            shape: list[DimLike] = list(v.shape)
            shape.insert(axis, 1)
            apart.append(reshape(v, shape))
        joined = apart[0] if len(apart) == 1 else ops.concat(*apart, axis=axis)
        if layer.batch_first:
            joined = ops.transpose(joined, perm=(2, 0, 1, 3) if k == 0 else (1, 0, 2))
        outputs.append(joined)
    return outputs


def _bias(bias: Value | None, direction: int, size: int) -> Value | None:
    """The input's and the recurrence's biases are always added: one vector."""
    if bias is None:
        return None
    return ops.add(_part(bias, direction, 0, size), _part(bias, direction, size, 2 * size))


@importer("LSTM", 1, 7, 14, 22)
def lstm(
    c: Context,
    x: Value,
    weights: Value,
    recurrence: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
    cell: Value | None = None,
    peepholes: Value | None = None,
) -> list[Value]:
    layer = _layer(c, x, recurrence, ("Sigmoid", "Tanh", "Tanh"))
    extra = _lengths(c, layer, lengths)
    input_forget = c.flag("input_forget")

    def run(d: int, activations: tuple[Activation, ...]) -> Sequence[Value]:
        xp = _project(layer, _part(weights, d), _bias(bias, d, 4 * layer.hidden))
        optional = ([] if peepholes is None else [_part(peepholes, d)]) + extra
        options = {"peephole": peepholes is not None, "lengths": bool(extra), "input_forget": input_forget}
        return ops.lstm(
            xp,
            _part(recurrence, d),
            _state(layer, hidden, d),
            _state(layer, cell, d),
            *optional,
            activations=activations,
            clip=layer.clip,
            reverse=layer.reverse[d],
            **options,
        )

    return _directions(layer, run)


@importer("GRU", 1, 3, 7, 14, 22)
def gru(
    c: Context,
    x: Value,
    weights: Value,
    recurrence: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
) -> list[Value]:
    layer = _layer(c, x, recurrence, ("Sigmoid", "Tanh"))
    extra = _lengths(c, layer, lengths)
    late = c.flag("linear_before_reset")

    def run(d: int, activations: tuple[Activation, ...]) -> Sequence[Value]:
        n = layer.hidden
        projected, optional = _bias(bias, d, 3 * n), []
        if late:
            # the reset gate scales the recurrent part of the new state, its bias included: that bias stays apart
            if bias is None:
                optional.append(full(0, x.dtype, (n,)))
            else:
                gates = ops.add(_part(bias, d, 0, 2 * n), _part(bias, d, 3 * n, 5 * n))
                projected = ops.concat(gates, _part(bias, d, 2 * n, 3 * n), axis=0)
                optional.append(_part(bias, d, 5 * n, 6 * n))
        return ops.gru(
            _project(layer, _part(weights, d), projected),
            _part(recurrence, d),
            _state(layer, hidden, d),
            *optional,
            *extra,
            lengths=bool(extra),
            activations=activations,
            clip=layer.clip,
            linear_before_reset=late,
            reverse=layer.reverse[d],
        )

    return _directions(layer, run)


@importer("RNN", 1, 7, 14, 22)
def rnn(
    c: Context,
    x: Value,
    weights: Value,
    recurrence: Value,
    bias: Value | None = None,
    lengths: Value | None = None,
    hidden: Value | None = None,
) -> list[Value]:
    layer = _layer(c, x, recurrence, ("Tanh",))
    extra = _lengths(c, layer, lengths)

    def run(d: int, activations: tuple[Activation, ...]) -> Sequence[Value]:
        return ops.rnn(
            _project(layer, _part(weights, d), _bias(bias, d, layer.hidden)),
            _part(recurrence, d),
            _state(layer, hidden, d),
            *extra,
            lengths=bool(extra),
            activations=activations,
            clip=layer.clip,
            reverse=layer.reverse[d],
        )

    return _directions(layer, run)
