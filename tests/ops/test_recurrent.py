"""Recurrent layers against ONNX's reference, their activations in both forms, and sequences of different lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from graphc.errors import GraphTypeError
from graphc.ir import scalar as s
from graphc.ir.dtypes import dtype_of
from graphc.ir.interpret import evaluate
from graphc.ops import REGISTRY
from graphc.ops.recurrent import ACTIVATIONS, _apply, activation, activation_scalar

T, B, D, H = 5, 3, 2, 4
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
draw = np.random.default_rng(3).standard_normal


def layer(name: str, *operands: np.ndarray, **attrs: Any) -> tuple[np.ndarray, ...]:
    reference = REGISTRY[name].reference
    assert reference is not None
    results: tuple[np.ndarray, ...] = reference(*operands, **attrs)
    return results


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", GATES)
def test_layers_agree_with_onnx(name: str, reverse: bool) -> None:
    gates = GATES[name]
    x, w, r, b = draw((T, B, D)), draw((1, gates * H, D)), draw((1, gates * H, H)), draw((1, 2 * gates * H))
    states = [draw((1, B, H)) for _ in range(2 if name == "lstm" else 1)]
    operands = {"X": x, "W": w, "R": r, "B": b, "h": states[0]}
    names = ["X", "W", "R", "B", "", "h"]
    if name == "lstm":
        operands |= {"c": states[1], "P": draw((1, 3 * H))}
        names += ["c", "P"]
    outs = ["y", "yh", "yc"][: 1 + len(states)]
    attrs: dict[str, Any] = {"hidden_size": H, "direction": "reverse" if reverse else "forward"}
    if name == "gru":
        attrs["linear_before_reset"] = 1
    node = onnx.helper.make_node(name.upper(), names, outs, **attrs)
    infos = [onnx.helper.make_tensor_value_info(k, onnx.TensorProto.DOUBLE, v.shape) for k, v in operands.items()]
    graph = onnx.helper.make_graph([node], "g", infos, [onnx.helper.make_empty_tensor_value_info(o) for o in outs])
    expected = ReferenceEvaluator(onnx.helper.make_model(graph)).run(None, operands)

    wb, rb = np.split(b[0], 2)
    extra: list[np.ndarray] = [operands["P"][0]] if name == "lstm" else []
    ours: dict[str, Any] = {"peephole": True} if name == "lstm" else {}
    if name == "gru":  # the recurrent bias of the new state is multiplied by the reset gate
        extra, ours, rb = [rb[2 * H :]], {"linear_before_reset": True}, np.concatenate([rb[: 2 * H], np.zeros(H)])
    xp = x @ w[0].T + wb + rb
    y, *last = layer(name, xp, r[0], *(v[0] for v in states), *extra, reverse=reverse, **ours)
    np.testing.assert_allclose(y, expected[0][:, 0], rtol=1e-10)
    for a, e in zip(last, expected[1:], strict=True):
        np.testing.assert_allclose(a, e[0], rtol=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", GATES)
def test_a_short_sequence_is_as_if_it_were_alone(name: str, reverse: bool) -> None:
    gates = GATES[name]
    xp, r = draw((T, B, gates * H)), draw((gates * H, H))
    states = [draw((B, H)) for _ in range(2 if name == "lstm" else 1)]
    lengths = np.array([5, 2, 0])
    y, *last = layer(name, xp, r, *states, lengths, lengths=True, reverse=reverse)
    for k, n in enumerate(lengths):
        alone_y, *alone_last = layer(name, xp[:n, k : k + 1], r, *(v[k : k + 1] for v in states), reverse=reverse)
        np.testing.assert_allclose(y[:n, k], alone_y[:, 0], rtol=1e-12)
        np.testing.assert_array_equal(y[n:, k], 0)
        for a, e in zip(last, alone_last, strict=True):
            np.testing.assert_allclose(a[k], e[0], rtol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_one_meaning(name: str) -> None:
    how = activation(name.upper(), 0.3, 0.6)
    x = np.linspace(-4, 4, 33)
    element = activation_scalar(how, s.load(0, s.index(0), dtype_of("float64")))
    np.testing.assert_allclose(
        evaluate(element, indices=[np.arange(33)], buffers=[x]), _apply(how, x), rtol=1e-12, atol=1e-12
    )


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(GraphTypeError, match="known are"):
        activation("swoosh")
