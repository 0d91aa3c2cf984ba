"""Operators whose meaning changed between versions, held against onnxruntime; and that no version is overlooked."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from building import check, one_node
from interpreting_backend import run_model

from graphc.errors import ModelError, UnsupportedError
from graphc.frontends.onnx import import_model, load_model
from graphc.frontends.onnx.registry import load_importers, versions

draw = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return draw.standard_normal(shape).astype(np.float32)


def ints(*entries: int) -> np.ndarray:
    return np.array(entries, np.int64)


def against_onnxruntime(proto: onnx.ModelProto, feeds: dict[str, Any], rtol: float = 1e-4) -> None:
    runtime = pytest.importorskip("onnxruntime")
    for v in proto.graph.output:  # it wants the outputs' types, if only their absence to be inferred
        v.ClearField("type")
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    for got, want in zip(run_model(proto, feeds), expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-5)


X3, X4 = floats(2, 3, 4), floats(2, 3, 5, 6)
CASES: dict[str, tuple[str, list[Any], int, dict[str, Any]]] = {
    # name: operator, operands, opset, attributes ("outputs" is how many there are)
    "softmax of flattened axes": ("Softmax", [X3], 11, {"axis": 1}),
    "softmax of one axis": ("Softmax", [X3], 13, {"axis": 1}),
    "softmax default axis then": ("Softmax", [X3], 9, {}),
    "softmax default axis now": ("Softmax", [X3], 13, {}),
    "log softmax of flattened axes": ("LogSoftmax", [X3], 12, {"axis": 0}),
    "hardmax of flattened axes": ("Hardmax", [X3], 11, {"axis": 1}),
    "clip by attributes": ("Clip", [X3], 6, {"min": -0.5, "max": 0.5}),
    "clip by operands": ("Clip", [X3, np.float64(-0.5).astype("f"), None], 13, {}),
    "clip on one side": ("Clip", [X3, None, np.array(0.25, np.float32)], 11, {}),
    "squeeze by attribute": ("Squeeze", [floats(1, 3, 1)], 11, {"axes": [0]}),
    "squeeze by operand": ("Squeeze", [floats(1, 3, 1), ints(-1)], 13, {}),
    "squeeze of all": ("Squeeze", [floats(1, 3, 1)], 13, {}),
    "unsqueeze by attribute": ("Unsqueeze", [X3], 11, {"axes": [0, 4]}),
    "unsqueeze by operand": ("Unsqueeze", [X3, ints(-1, 0)], 13, {}),
    "slice by attributes": ("Slice", [X3], 9, {"starts": [1, -2], "ends": [2, 100], "axes": [1, 2]}),
    "slice by operands": ("Slice", [X3, ints(-1), ints(-100), ints(2), ints(-2)], 13, {}),
    "slice to nothing": ("Slice", [X3, ints(3), ints(1), ints(2)], 13, {}),
    "split by attribute": ("Split", [X3], 11, {"axis": 2, "split": [1, 3], "outputs": 2}),
    "split by operand": ("Split", [X3, ints(3, 1)], 13, {"axis": 2, "outputs": 2}),
    "split unevenly": ("Split", [floats(7)], 18, {"num_outputs": 3, "outputs": 3}),
    "sum by attribute": ("ReduceSum", [X3], 11, {"axes": [1], "keepdims": 0}),
    "sum by operand": ("ReduceSum", [X3, ints(1, -1)], 13, {}),
    "sum of no axes": ("ReduceSum", [X3], 13, {"noop_with_empty_axes": 1}),
    "sum of all axes": ("ReduceSum", [X3], 13, {}),
    "mean by operand": ("ReduceMean", [X3, ints(0)], 18, {"keepdims": 0}),
    "log sum exp": ("ReduceLogSumExp", [100 * X3], 13, {"axes": [2]}),
    "pad by attribute": ("Pad", [X4], 10, {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "mode": "reflect"}),
    "pad by operand": ("Pad", [X4, ints(0, 0, 1, -2, 0, 0, 0, 1), np.array(7, np.float32)], 13, {}),
    "pad some axes": ("Pad", [X4, ints(2, 1), None, ints(3)], 18, {"mode": "edge"}),
    "pad around": ("Pad", [X3, ints(0, 0, 5, 0, 0, 6)], 19, {"mode": "wrap"}),
    "top k by attribute": ("TopK", [X3], 9, {"k": 2, "outputs": 2}),
    "top k by operand": ("TopK", [X3, ints(2)], 11, {"largest": 0, "axis": 1, "outputs": 2}),
    "upsample by operand": ("Upsample", [X4, np.array([1, 1, 2, 3], np.float32)], 9, {"mode": "nearest"}),
    "upsample linearly": ("Upsample", [X4, np.array([1, 1, 2, 2], np.float32)], 9, {"mode": "linear"}),
    "resize of opset 10": ("Resize", [X4, np.array([1, 1, 0.6, 1.7], np.float32)], 10, {}),
    "resize half pixel": ("Resize", [X4, None, np.array([1, 1, 1.5, 2], np.float32)], 13, {"mode": "linear"}),
    "resize cubic": ("Resize", [X4, None, None, ints(2, 3, 9, 4)], 13, {"mode": "cubic", "exclude_outside": 1}),
    "resize aligned": (
        "Resize",
        [X4, None, None, ints(2, 3, 9, 4)],
        13,
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "batch normalization": ("BatchNormalization", [X4, floats(3), floats(3), floats(3), abs(floats(3))], 9, {}),
    "instance normalization": ("InstanceNormalization", [X4, floats(3), floats(3)], 6, {}),
    "layer normalization": ("LayerNormalization", [X3, floats(3, 4), floats(3, 4)], 17, {"axis": 1}),
    "response normalization": ("LRN", [abs(X4)], 13, {"size": 3, "alpha": 0.01}),
    "average without padding": ("AveragePool", [X4], 11, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]}),
    "average with padding": (
        "AveragePool",
        [X4],
        11,
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1, "strides": [2, 1]},
    ),
    "average to the ceiling": ("AveragePool", [X4], 11, {"kernel_shape": [2, 4], "strides": [2, 4], "ceil_mode": 1}),
    "maximum to the ceiling": ("MaxPool", [X4], 12, {"kernel_shape": [2, 4], "strides": [2, 4], "ceil_mode": 1}),
    "maximum with places": ("MaxPool", [X4], 12, {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "outputs": 2}),
    "maximum in dilated windows": ("MaxPool", [X4], 12, {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    "pool of the same extent": (
        "MaxPool",
        [X4],
        12,
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    ),
    "convolution of the same extent": (
        "Conv",
        [X4, floats(4, 3, 2, 3)],
        11,
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "grouped convolution": ("Conv", [X4, floats(6, 1, 3, 3), floats(6)], 11, {"group": 3, "pads": [1, 0, 1, 2]}),
    "convolution along a line": ("Conv", [X3, floats(2, 3, 3)], 11, {"dilations": [1]}),
    "transposed convolution": (
        "ConvTranspose",
        [X4, floats(3, 2, 3, 3), floats(4)],
        11,
        {"group": 1, "strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 2]} | {"group": 1},
    ),
    "transposed to a stated extent": (
        "ConvTranspose",
        [X4, floats(3, 2, 3, 3)],
        11,
        {"strides": [2, 2], "output_shape": [10, 12], "auto_pad": "SAME_UPPER"},
    ),
    "matrix times vector": ("MatMul", [X3, floats(4)], 13, {}),
    "products of stacks": ("MatMul", [floats(2, 1, 3, 4), floats(5, 4, 2)], 13, {}),
    "gemm": (
        "Gemm",
        [floats(4, 3), floats(5, 4), floats(5)],
        13,
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    "einsum": ("Einsum", [floats(2, 3, 4), floats(2, 4, 5)], 12, {"equation": "bij,bjk->bik"}),
    "einsum of a diagonal": ("Einsum", [floats(3, 3)], 12, {"equation": "ii->i"}),
    "einsum with an ellipsis": ("Einsum", [floats(2, 3, 4), floats(2, 5, 4)], 12, {"equation": "...ij,...kj->...ki"}),
    "einsum that sums all": ("Einsum", [floats(2, 3), floats(3)], 12, {"equation": "ij,j->"}),
    "power of an integer": ("Pow", [floats(3) ** 2, ints(2, 3, 1)], 15, {}),
    "one hot": ("OneHot", [ints(1, -1, 9), ints(3), np.array([2, 5], np.float32)], 11, {"axis": 0}),
    "depth to space": ("DepthToSpace", [floats(1, 8, 2, 3)], 13, {"blocksize": 2, "mode": "CRD"}),
    "space to depth": ("SpaceToDepth", [floats(1, 2, 4, 6)], 13, {"blocksize": 2}),
    "determinants": ("Det", [floats(2, 4, 4)], 11, {}),
    "grid sample": ("GridSample", [X4, draw.uniform(-1.2, 1.2, (2, 3, 3, 2)).astype("f")], 16, {"mode": "bilinear"}),
    "quantize": ("QuantizeLinear", [X3, np.array([0.1, 0.2, 0.3], "f"), np.array([3, 5, 7], "u1")], 13, {"axis": 1}),
    "cumulative": ("CumSum", [X3, np.array(1)], 14, {"exclusive": 1, "reverse": 1}),
}


@pytest.mark.parametrize("name", CASES)
def test_against_onnxruntime(name: str) -> None:
    op, operands, opset, attributes = CASES[name]
    if op == "ConvTranspose" and len(operands) == 3:
        operands = [*operands[:2], operands[2][: operands[1].shape[1]]]
    proto = one_node(op, operands, opset, **attributes)
    feeds = {f"x{k}": a for k, a in enumerate(operands) if a is not None and a.dtype == np.float32}
    # shapes, bounds and scales are constants, whatever their element type
    for k, a in enumerate(operands[1:], 1):
        if a is not None and op in ("Clip", "Pad", "Upsample", "Resize", "OneHot") and f"x{k}" in feeds:
            del feeds[f"x{k}"]
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(a), f"x{k}"))
            kept = [v for v in proto.graph.input if v.name != f"x{k}"]
            del proto.graph.input[:]
            proto.graph.input.extend(kept)
    against_onnxruntime(proto, feeds)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_layers(op: str, direction: str) -> None:
    gates, d = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 2 if direction == "bidirectional" else 1
    steps, batch, inputs, hidden = 5, 3, 4, 6
    operands: list[Any] = [
        floats(steps, batch, inputs),
        floats(d, gates * hidden, inputs),
        floats(d, gates * hidden, hidden),
        floats(d, 2 * gates * hidden),
        np.array([5, 2, 4], np.int32),
        floats(d, batch, hidden),
    ]
    outputs = 2
    if op == "LSTM":
        operands += [floats(d, batch, hidden), floats(d, 3 * hidden)]
        outputs = 3
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
    if op == "GRU":
        attributes["linear_before_reset"] = 1
    proto = one_node(op, operands, 14, outputs=outputs, **attributes)
    feeds = {f"x{k}": a for k, a in enumerate(operands) if a.dtype == np.float32}
    against_onnxruntime(proto, feeds)


def test_the_first_broadcast() -> None:
    """Opset 6 aligns the second operand at an axis of the first."""
    x, y = floats(2, 3, 4), floats(3)
    check(one_node("Add", [x, y], 6, broadcast=1, axis=1), {"x0": x, "x1": y}, [x + y[:, None]])
    tail = floats(3, 4)
    check(one_node("Mul", [x, tail], 6, broadcast=1), {"x0": x, "x1": tail}, [x * tail])


def test_batch_normalization_in_training() -> None:
    x, gamma, beta, mean, variance = floats(4, 3, 5), floats(3), floats(3), floats(3), abs(floats(3))
    operands = [x, gamma, beta, mean, variance]
    proto = one_node("BatchNormalization", operands, 15, outputs=3, training_mode=1, momentum=0.75)
    m, v = x.mean((0, 2)), x.var((0, 2))
    y = (x - m[:, None]) / np.sqrt(v[:, None] + 1e-5) * gamma[:, None] + beta[:, None]
    feeds = {f"x{k}": a for k, a in enumerate(operands)}
    check(proto, feeds, [y, 0.75 * mean + 0.25 * m, 0.75 * variance + 0.25 * v], rtol=1e-4)


def test_batch_normalization_is_a_scale_and_a_shift_of_channels() -> None:
    """A later pass finds them by this shape and moves them into a convolution."""
    operands = [X4, floats(3), floats(3), floats(3), abs(floats(3))]
    graph = import_model(load_model(one_node("BatchNormalization", operands, 15)))
    last = graph.outputs[0].node
    assert last.op.name == "add"
    assert last.inputs[0].node.op.name == "mul"
    for per_channel in (last.inputs[1], last.inputs[0].node.inputs[1]):
        assert per_channel.node.op.name == "broadcast_to"
        assert per_channel.node.inputs[0].shape == (1, 3, 1, 1)


def test_bad_attributes_are_model_errors() -> None:
    for op, operands, opset, attributes in (
        ("Conv", [X4, floats(4, 3, 2, 2)], 11, {"strides": [1]}),
        ("Conv", [X4, floats(4, 3, 2, 2)], 11, {"auto_pad": "SOMEHOW"}),
        ("Squeeze", [X3, ints(1)], 13, {}),
        ("Concat", [X3], 13, {"axis": 3}),
        ("Reshape", [X3, ints(0, 0, 0, 0)], 13, {}),
        ("Split", [X3, ints(1, 1)], 13, {"axis": 2, "outputs": 2}),
        ("Pad", [X3, ints(1, 1)], 13, {}),
        ("DepthToSpace", [X4], 13, {"blocksize": 2, "mode": "XYZ"}),
    ):
        with pytest.raises(ModelError, match="the_node"):
            import_model(load_model(one_node(op, operands, opset, **attributes)))


def test_every_version_of_an_operator_has_been_looked_at() -> None:
    """An operator with an importer names all its versions from opset 7 on: a new one must not pass for an old one."""
    load_importers()
    overlooked = []
    for schema in onnx.defs.get_all_schemas_with_history():
        known = versions(schema.domain, schema.name)
        if (
            known
            and schema.since_version >= max(7, min(known))
            and schema.since_version not in known
            and not schema.deprecated
        ):
            overlooked.append((schema.name, schema.since_version))
    assert not overlooked


def test_opset_limits() -> None:
    with pytest.raises(UnsupportedError, match="opset 6 has no such operator"):
        import_model(load_model(one_node("Where", [X3 > 0, X3, X3], 6)))
