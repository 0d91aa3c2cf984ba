"""LSTM, GRU and RNN as one kernel, against onnxruntime: all options, odd sizes, one thread and two."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from building import info, model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import graphc

EXAMPLES = int(os.environ.get("GRAPHC_FUZZ_EXAMPLES", "8"))
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
#: with alpha and beta for those that take them
ACTIVATIONS = ["Sigmoid", "Tanh", "Relu", "HardSigmoid", "LeakyRelu", "ScaledTanh", "Softsign", "Elu", "Affine"]


def layer(
    kind: str, steps: int, batch: int, inputs: int, hidden: int, direction: str = "forward", seed: int = 0,
    lengths: list[int] | None = None, states: bool = False, peepholes: bool = False, bias: bool = True, **attrs: Any,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:  # fmt: skip
    """A model of one recurrent layer with constant weights, and what to feed it."""
    rng = np.random.default_rng(seed)
    directions, gates = 1 + (direction == "bidirectional"), GATES[kind]

    def draw(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.uniform(-1, 1, shape) * scale).astype(np.float32)

    weights = {"W": draw(directions, gates * hidden, inputs, scale=inputs**-0.5)}
    weights["R"] = draw(directions, gates * hidden, hidden, scale=hidden**-0.5)  # so that no state grows for ever
    if bias:
        weights["B"] = draw(directions, 2 * gates * hidden)
    if peepholes and kind == "LSTM":
        weights["P"] = draw(directions, 3 * hidden)
    feeds = {"X": draw(steps, batch, inputs)}
    if lengths is not None:
        feeds["lengths"] = np.array(lengths, np.int32)
    if states:
        feeds["h"] = draw(directions, batch, hidden)
        if kind == "LSTM":
            feeds["c"] = draw(directions, batch, hidden)
    names = [n if n in weights or n in feeds else "" for n in ("X", "W", "R", "B", "lengths", "h", "c", "P")]
    outputs = ["Y", "Y_h", "Y_c"] if kind == "LSTM" else ["Y", "Y_h"]
    node = helper.make_node(
        kind, names if kind == "LSTM" else names[:6], outputs, hidden_size=hidden, direction=direction, **attrs
    )
    types = {"lengths": TensorProto.INT32}
    infos = [info(n, a.shape, types.get(n, TensorProto.FLOAT)) for n, a in feeds.items()]
    return model([node], infos, outputs, initializers=weights, opset=17), feeds


def check(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], threads: int) -> graphc.Executable:
    """The compiled layer agrees with onnxruntime, and is a recurrence and no loop."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    exe = graphc.compile(proto, threads=threads)
    for found, wanted in zip(exe.run(None, feeds), expected, strict=True):
        np.testing.assert_allclose(found, wanted, 1e-5, 2e-6 * max(1.0, float(np.abs(wanted).max())))
    (plan,) = exe.specialisation(feeds).plans
    assert "recurrence" in {launch.kernel.family for launch in plan.program.launches}
    return exe


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(("kind", "attrs"), [
    ("LSTM", {}), ("LSTM", {"peepholes": True, "clip": 0.7}), ("LSTM", {"input_forget": 1}), ("RNN", {}),
    ("GRU", {"linear_before_reset": 0}), ("GRU", {"linear_before_reset": 1}),
])  # fmt: skip
def test_options(kind: str, attrs: dict[str, Any], direction: str, lengths: bool, threads: int) -> None:
    count = [6, 2, 3, 6, 1] if lengths else None  # of a sequence of 0 onnxruntime forgets the state
    check(*layer(kind, 6, 5, 7, 19, direction, lengths=count, states=True, **attrs), threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("kind", "late"), [("LSTM", 0), ("GRU", 0), ("GRU", 1), ("RNN", 0)])
@pytest.mark.parametrize(("steps", "batch", "inputs", "hidden"), [
    (1, 1, 3, 33),  # nothing to walk
    (4, 1, 2, 1),
    (3, 4, 16, 16),
    (5, 13, 40, 70),  # rows and hidden units past the last whole tile
    (2, 2, 520, 300),  # two threads share the hidden units
])  # fmt: skip
def test_sizes(kind: str, late: int, steps: int, batch: int, inputs: int, hidden: int, threads: int) -> None:
    attrs = {"linear_before_reset": late} if kind == "GRU" else {}
    check(*layer(kind, steps, batch, inputs, hidden, **attrs), threads=threads)


def test_both_directions_multiply_their_inputs_themselves() -> None:
    """Their products share an operand, and are not taken for siblings before the layers have them."""
    proto, feeds = layer("LSTM", 6, 8, 64, 64, "bidirectional")
    exe = check(proto, feeds, 1)
    families = {k.kernel.family for plan in exe.specialisation(feeds).plans for k in plan.program.launches}
    assert families == {"recurrence"}


def test_two_threads_share_a_step() -> None:
    """A long row of weights is cut by hidden units, so that every step is a phase of its own."""
    proto, feeds = layer("LSTM", 3, 2, 8, 300)
    exe = graphc.compile(proto, threads=2)
    (plan,) = exe.specialisation(feeds).plans
    assert len(plan.program.loops) == 1
    np.testing.assert_array_equal(exe.run(None, feeds)[0], graphc.compile(proto, threads=1).run(None, feeds)[0])


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(sorted(GATES)))
    steps, batch = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    case: dict[str, Any] = {
        "kind": kind, "steps": steps, "batch": batch, "inputs": draw(st.integers(1, 20)),
        "hidden": draw(st.sampled_from([1, 2, 7, 16, 17, 31, 48, 65])), "direction": direction,
        "states": draw(st.booleans()), "bias": draw(st.booleans()), "seed": draw(st.integers(0, 99)),
    }  # fmt: skip
    if draw(st.booleans()):
        case["lengths"] = draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
    if draw(st.booleans()):
        case["clip"] = draw(st.sampled_from([0.25, 3.0]))
    if draw(st.booleans()):
        each = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind]
        case["activations"] = draw(st.lists(st.sampled_from(ACTIVATIONS), min_size=each, max_size=each)) * (
            1 + (direction == "bidirectional")
        )
        with_alpha = [
            a for a in case["activations"] if a in ("HardSigmoid", "LeakyRelu", "ScaledTanh", "Elu", "Affine")
        ]
        with_beta = [a for a in case["activations"] if a in ("HardSigmoid", "ScaledTanh", "Affine")]
        if with_alpha:
            case["activation_alpha"] = [0.3] * len(with_alpha)
        if with_beta:
            case["activation_beta"] = [0.4] * len(with_beta)
    if kind == "LSTM":
        case["peepholes"] = draw(st.booleans())
    if kind == "GRU":
        case["linear_before_reset"] = draw(st.integers(0, 1))
    return case


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=layers(), threads=st.integers(1, 2))
def test_any_layer(case: dict[str, Any], threads: int) -> None:
    check(*layer(**case), threads=threads)
