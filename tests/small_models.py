"""Small ONNX models that end-to-end tests make for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["chooser", "classifier", "convolutions", "save"]


def classifier(batch: int | str = "batch", features: int = 8, classes: int = 12) -> onnx.ModelProto:
    """softmax(relu(x @ w + b)): x float32[batch, features] to "scores" float32[batch, classes]."""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.standard_normal((features, classes)).astype(np.float32),
        "b": rng.standard_normal(classes).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="project"),
        helper.make_node("Add", ["xw", "b"], ["z"], name="bias"),
        helper.make_node("Relu", ["z"], ["h"], name="relu"),
        helper.make_node("Softmax", ["h"], ["scores"], name="softmax", axis=-1),
    ]
    return _model(
        nodes, [("x", TensorProto.FLOAT, [batch, features])], [("scores", TensorProto.FLOAT, [batch, classes])], weights
    )


def convolutions(size: int | str = 16) -> onnx.ModelProto:
    """Two convolutions with a batch normalisation, a residual addition and a pool: x float32[1, 3, size, size]."""
    rng = np.random.default_rng(2)
    weights = {
        "w1": rng.standard_normal((16, 3, 3, 3)).astype(np.float32) * 0.2,
        "w2": rng.standard_normal((16, 16, 3, 3)).astype(np.float32) * 0.1,
        "b2": rng.standard_normal(16).astype(np.float32),
        **{name: rng.random(16, np.float32) + 0.5 for name in ("scale", "shift", "mean", "var")},
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"], name="norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s"], name="residual"),
        helper.make_node("Relu", ["s"], ["r2"], name="relu2"),
        helper.make_node("MaxPool", ["r2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"], name="average"),
        helper.make_node("Flatten", ["g"], ["y"], name="flatten"),
    ]
    return _model(nodes, [("x", TensorProto.FLOAT, [1, 3, size, size])], [("y", TensorProto.FLOAT, [1, 16])], weights)


def chooser() -> onnx.ModelProto:
    """If(flag): x + 1, else x * 2 ("If" on a value that only the run knows); x float32[4]."""
    one, two = (
        helper.make_node("Constant", [], [n], value=numpy_helper.from_array(np.float32(v), n))
        for n, v in (("one", 1), ("two", 2))
    )
    out = [helper.make_tensor_value_info("t", TensorProto.FLOAT, [4])]
    out2 = [helper.make_tensor_value_info("e", TensorProto.FLOAT, [4])]
    then = helper.make_graph([one, helper.make_node("Add", ["x", "one"], ["t"], name="plus")], "then", [], out)
    other = helper.make_graph([two, helper.make_node("Mul", ["x", "two"], ["e"], name="times")], "other", [], out2)
    nodes = [helper.make_node("If", ["flag"], ["y"], name="choose", then_branch=then, else_branch=other)]
    return _model(
        nodes, [("flag", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, [4])], [("y", TensorProto.FLOAT, [4])], {}
    )


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model; its path."""
    path.write_bytes(model.SerializeToString())
    return path


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str]]],
    weights: dict[str, np.ndarray],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
