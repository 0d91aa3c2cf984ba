"""Recurrent layers: `python -m bench.recurrent [--threads 2 1] [--only LSTM] [--seconds 1]`.

LSTM, GRU, tanh RNN and bidirectional LSTM of several sizes, as an ONNX model of one layer in graphc and onnxruntime and
as torch.nn.LSTM (GRU, RNN) with the same weights, without gradients. All three return every step's output and the last
states. Inputs are as wide as the state, but for "28 wide", the rows of an image.

The figures also go into bench/results/recurrent.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.record import parse
from bench.suite import Make, parser, run_suite
from graphc.measure.peers import Subject, Unavailable, load_subject

__all__ = ["Layer", "main", "onnx_model", "torch_subject"]

SUBJECTS = ("graphc", "onnxruntime", "torch")
#: hidden, batch, steps, width of the input
SIZES = ((512, 16, 25, 512), (512, 1, 25, 512), (128, 64, 28, 128), (128, 64, 28, 28))
KINDS = ("LSTM", "GRU", "RNN", "LSTM, bidirectional")
#: for ONNX's order of gates (LSTM i o f c, GRU z r h, RNN) where each stands in torch's (i f g o, r z n)
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


@dataclass(frozen=True)
class Layer:
    """One recurrent layer and the size of what it is given; weights are drawn in torch's order of gates."""

    kind: str  # LSTM, GRU, RNN
    hidden: int
    batch: int
    steps: int
    inputs: int
    directions: int = 1

    def weights(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """For each direction: from the input, from the state, and the biases of both, float32."""
        rng = np.random.default_rng(self.hidden)
        rows, scale = len(GATES[self.kind]) * self.hidden, self.hidden**-0.5
        shapes = ((rows, self.inputs), (rows, self.hidden), (rows,), (rows,))
        return [
            tuple(rng.uniform(-scale, scale, s).astype(np.float32) for s in shapes)  # type: ignore[misc]
            for _ in range(self.directions)
        ]

    def feeds(self) -> dict[str, np.ndarray]:
        """x float32[steps, batch, inputs]."""
        return {"x": np.random.default_rng(1).standard_normal((self.steps, self.batch, self.inputs), np.float32)}


def onnx_model(layer: Layer) -> bytes:
    """The layer as a model: x to y [steps, directions, batch, hidden] and the last states [directions, batch, hidden]."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    order, n = GATES[layer.kind], layer.hidden

    def gates(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[k * n : (k + 1) * n] for k in order])

    drawn = layer.weights()
    tensors = {
        "w": np.stack([gates(w) for w, _, _, _ in drawn]),
        "r": np.stack([gates(r) for _, r, _, _ in drawn]),
        "b": np.stack([np.concatenate([gates(b), gates(c)]) for _, _, b, c in drawn]),
    }
    names = ["y", "y_h", "y_c"] if layer.kind == "LSTM" else ["y", "y_h"]
    attributes: dict[str, Any] = {"hidden_size": n}
    if layer.directions == 2:
        attributes["direction"] = "bidirectional"
    if layer.kind == "GRU":
        attributes["linear_before_reset"] = 1  # as torch's
    state = [layer.directions, layer.batch, n]
    graph = helper.make_graph(
        [helper.make_node(layer.kind, ["x", "w", "r", "b"], names, name="layer", **attributes)],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [layer.steps, layer.batch, layer.inputs])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [layer.steps, *state] if name == "y" else state)
            for name in names
        ],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def torch_subject(layer: Layer, threads: int) -> Subject:
    """torch's own layer, which torch.compile leaves as it is. Raises Unavailable where torch is not installed."""
    try:
        import torch
    except ImportError:
        raise Unavailable("torch is not installed; pip install torch") from None
    torch.set_num_threads(threads)
    module = getattr(torch.nn, layer.kind)(layer.inputs, layer.hidden, bidirectional=layer.directions == 2).eval()
    with torch.no_grad():
        for suffix, arrays in zip(("", "_reverse"), layer.weights(), strict=False):
            for name, array in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), arrays, strict=True):
                getattr(module, f"{name}_l0{suffix}").copy_(torch.from_numpy(array))
    x = torch.from_numpy(layer.feeds()["x"])

    def run() -> Any:
        with torch.inference_mode():
            return module(x)

    def arrays_of(result: Any) -> list[Any]:
        y, states = result
        shape = (layer.steps, layer.batch, layer.directions, layer.hidden)
        states = states if isinstance(states, tuple) else (states,)
        return [y.numpy().reshape(shape).transpose(0, 2, 1, 3), *(s.numpy() for s in states)]

    return Subject(run, arrays_of)


def cases() -> dict[str, Callable[[], Make]]:
    """Every kind at every size."""

    def make(layer: Layer) -> Make:
        file, feeds = onnx_model(layer), layer.feeds()
        return {
            "graphc": lambda threads: load_subject("graphc", file, feeds, threads),
            "onnxruntime": lambda threads: load_subject("onnxruntime", file, feeds, threads),
            "torch": lambda threads: torch_subject(layer, threads),
        }

    table: dict[str, Callable[[], Make]] = {}
    for kind in KINDS:
        for hidden, batch, steps, inputs in SIZES:
            layer = Layer(kind.split(",")[0], hidden, batch, steps, inputs, 2 if "bidirectional" in kind else 1)
            name = f"{kind} {hidden}, batch {batch}, {steps} steps" + (f", {inputs} wide" if inputs != hidden else "")
            table[name] = lambda layer=layer: make(layer)  # type: ignore[misc]
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run_suite(parse(parser("recurrent", __doc__), "recurrent", argv), cases(), SUBJECTS)


if __name__ == "__main__":
    sys.exit(main())
