"""Gradients of imported models: every differentiable ONNX operator against finite differences, and the Gradient operator.

A model is imported, its graph widened to float64, and the derivatives with respect to all of its floating point inputs
are held against differences of its values, and theirs against differences of them (`graphc.testing.check_grad`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from building import info, model, one_node
from onnx import TensorProto, helper

import graphc
from bench.differentiate import parameters_as_inputs
from graphc.api import resolve
from graphc.autodiff.transforms import vjp
from graphc.errors import ModelError
from graphc.frontends.onnx import import_model
from graphc.ir.interpret import run
from graphc.ir.verify import verify
from graphc.testing import check_grad

draw = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return draw.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return draw.uniform(0.5, 2, shape).astype(np.float32)


def inside(*shape: int) -> np.ndarray:
    """Between -0.9 and 0.9."""
    return draw.uniform(-0.9, 0.9, shape).astype(np.float32)


def apart(*shape: int) -> np.ndarray:
    """No two elements nearer than 0.1: no ties between them."""
    count = int(np.prod(shape))
    return (draw.permutation(count) * 0.1 - count / 20 + 0.03).astype(np.float32).reshape(shape)


def ints(*entries: int) -> np.ndarray:
    return np.array(entries, np.int64)


class Constant:
    """A float operand that is part of the model."""

    def __init__(self, *entries: float) -> None:
        self.array = np.array(entries, np.float32)


X, X3, X4 = floats(6), floats(2, 3, 4), floats(2, 4, 5, 6)
IMAGE = floats(1, 2, 5, 6)
BOXES = np.array([[0.3, 0.4, 3.2, 4.1], [1.1, 0.2, 4.7, 3.6]], np.float32)
T, B, D, H = 4, 2, 3, 3
LENGTHS = np.array([4, 2], np.int32)

CASES: dict[str, tuple[str, list[Any], int, dict[str, Any]]] = {
    # name: operator, operands, opset, attributes ("outputs" is how many there are)
    "Abs": ("Abs", [X], 13, {}),
    "Acos": ("Acos", [inside(4)], 22, {}),
    "Acosh": ("Acosh", [positive(4) + 1], 22, {}),
    "Add": ("Add", [X3, floats(3, 1)], 14, {}),
    "AffineGrid": ("AffineGrid", [floats(1, 2, 3), ints(1, 2, 3, 4)], 20, {}),
    "Asin": ("Asin", [inside(4)], 22, {}),
    "Asinh": ("Asinh", [X], 22, {}),
    "Atan": ("Atan", [X], 22, {}),
    "Atanh": ("Atanh", [inside(4)], 22, {}),
    "Attention": ("Attention", [floats(1, 2, 3, 4), floats(1, 2, 5, 4), floats(1, 2, 5, 4)], 23, {}),
    "Attention causal": (
        "Attention",
        [floats(1, 3, 8), floats(1, 3, 8), floats(1, 3, 8)],
        23,
        {"q_num_heads": 2, "kv_num_heads": 2, "is_causal": 1},
    ),
    "Attention with softcap and groups": (
        "Attention",
        [floats(1, 4, 2, 3), floats(1, 2, 3, 3), floats(1, 2, 3, 3), floats(2, 3)],
        23,
        {"softcap": 2.0, "scale": 0.5},
    ),
    "AveragePool": ("AveragePool", [X4], 19, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}),
    "AveragePool with padding": (
        "AveragePool",
        [X4],
        19,
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1, "dilations": [1, 2]},
    ),
    "BatchNormalization": ("BatchNormalization", [X4, floats(4), floats(4), floats(4), positive(4)], 15, {}),
    "BatchNormalization training": (
        "BatchNormalization",
        [X4, floats(4), floats(4), floats(4), positive(4)],
        15,
        {"training_mode": 1, "outputs": 3},
    ),
    "Cast": ("Cast", [X], 19, {"to": TensorProto.DOUBLE}),
    "CausalConvWithState": (
        "CausalConvWithState",
        [floats(1, 2, 5), floats(2, 1, 3), floats(2), floats(1, 2, 2)],
        27,
        {"outputs": 2, "activation": "silu"},
    ),
    "Celu": ("Celu", [X], 12, {"alpha": 0.7}),
    "CenterCropPad": ("CenterCropPad", [X3, ints(5, 2)], 18, {"axes": [1, 2]}),
    "Clip": ("Clip", [X, Constant(-0.5), Constant(0.5)], 13, {}),
    "Col2Im": ("Col2Im", [floats(1, 8, 9), ints(4, 4), ints(2, 2)], 18, {}),
    "Compress": ("Compress", [X3, np.array([True, False, True])], 11, {"axis": 1}),
    "Concat": ("Concat", [X3, floats(2, 1, 4)], 13, {"axis": 1}),
    "Conv": ("Conv", [X4, floats(6, 2, 3, 2), floats(6)], 22, {"group": 2, "pads": [1, 0, 0, 1], "strides": [2, 1]}),
    "Conv same": ("Conv", [X4, floats(3, 4, 3, 2)], 22, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "Conv depthwise": ("Conv", [X4, floats(4, 1, 3, 3)], 22, {"group": 4, "dilations": [2, 1]}),
    "Conv 1d": ("Conv", [floats(2, 3, 9), floats(2, 3, 3)], 22, {"dilations": [2]}),
    "Conv 3d": ("Conv", [floats(1, 2, 3, 4, 3), floats(2, 2, 2, 2, 2)], 22, {"strides": [1, 2, 1]}),
    "ConvTranspose": ("ConvTranspose", [floats(1, 4, 3, 4), floats(4, 3, 3, 2)], 22, {"strides": [2, 3], "group": 2}),
    "ConvTranspose padded": (
        "ConvTranspose",
        [floats(1, 2, 3, 4), floats(2, 3, 3, 3), floats(3)],
        22,
        {"strides": [2, 1], "pads": [1, 0, 1, 1], "output_padding": [1, 0], "dilations": [1, 2]},
    ),
    "Cos": ("Cos", [X], 22, {}),
    "Cosh": ("Cosh", [X], 22, {}),
    "CumProd": ("CumProd", [X3, np.int64(1)], 26, {}),
    "CumSum": ("CumSum", [X3, np.int64(1)], 14, {"exclusive": 1, "reverse": 1}),
    "DeformConv": (
        "DeformConv",
        [floats(1, 2, 4, 4), floats(2, 2, 2, 2), 0.3 * inside(1, 8, 3, 3), floats(2), floats(1, 4, 3, 3)],
        22,
        {},
    ),
    "DepthToSpace": ("DepthToSpace", [floats(1, 8, 2, 3)], 13, {"blocksize": 2, "mode": "CRD"}),
    "Det": ("Det", [floats(2, 3, 3)], 22, {}),
    "DFT": ("DFT", [floats(1, 6, 1), None, np.int64(1)], 20, {"onesided": 1}),
    "DFT inverse": ("DFT", [floats(1, 5, 2), None, np.int64(1)], 20, {"inverse": 1}),
    "Div": ("Div", [X3, positive(4)], 14, {}),
    "Dropout": ("Dropout", [X3], 22, {"outputs": 1}),
    "Einsum": ("Einsum", [floats(2, 3, 4), floats(2, 4, 3)], 12, {"equation": "bij,bjk->bk"}),
    "Einsum of a diagonal": ("Einsum", [floats(3, 3)], 12, {"equation": "ii->i"}),
    "Elu": ("Elu", [X], 22, {}),
    "Erf": ("Erf", [X], 13, {}),
    "Exp": ("Exp", [X], 13, {}),
    "Expand": ("Expand", [floats(3, 1), ints(2, 3, 4)], 13, {}),
    "Flatten": ("Flatten", [X3], 21, {"axis": 2}),
    "GRU": ("GRU", [floats(T, B, D), floats(1, 3 * H, D), floats(1, 3 * H, H)], 22, {"hidden_size": H, "outputs": 2}),
    "GRU both ways": (
        "GRU",
        [
            floats(T, B, D),
            floats(2, 3 * H, D),
            floats(2, 3 * H, H),
            floats(2, 6 * H),
            LENGTHS,
            floats(2, B, H),
        ],
        22,
        {"hidden_size": H, "outputs": 2, "linear_before_reset": 1, "direction": "bidirectional"},
    ),
    "Gather": ("Gather", [X3, np.array([[2, 0], [0, 1]])], 13, {"axis": 1}),
    "GatherElements": ("GatherElements", [X3, draw.integers(-3, 3, (2, 2, 4))], 13, {"axis": 1}),
    "GatherND": ("GatherND", [X3, ints(0, 2, 1, 0, 0, 2).reshape(3, 2)], 13, {}),
    "Gelu": ("Gelu", [X], 20, {}),
    "Gelu by tanh": ("Gelu", [X], 20, {"approximate": "tanh"}),
    "Gemm": ("Gemm", [floats(4, 3), floats(5, 4), floats(5)], 13, {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    "GlobalAveragePool": ("GlobalAveragePool", [X4], 22, {}),
    "GlobalLpPool": ("GlobalLpPool", [X4], 22, {"p": 3}),
    "GlobalMaxPool": ("GlobalMaxPool", [apart(1, 2, 3, 4)], 22, {}),
    "GridSample": ("GridSample", [IMAGE, inside(1, 3, 3, 2)], 22, {"mode": "linear"}),
    "GridSample cubic": ("GridSample", [IMAGE, inside(1, 2, 3, 2)], 22, {"mode": "cubic", "align_corners": 1}),
    "GridSample nearest": ("GridSample", [IMAGE, inside(1, 2, 3, 2)], 22, {"mode": "nearest"}),
    "GridSample outside": (
        "GridSample",
        [IMAGE, 2 * inside(1, 2, 3, 2)],
        22,
        {"mode": "linear", "padding_mode": "reflection"},
    ),
    "GroupNormalization": ("GroupNormalization", [X4, floats(4), floats(4)], 21, {"num_groups": 2}),
    "HardSigmoid": ("HardSigmoid", [4 * X], 22, {}),
    "HardSwish": ("HardSwish", [4 * X], 22, {}),
    "Identity": ("Identity", [X], 21, {}),
    "InstanceNormalization": ("InstanceNormalization", [X4, floats(4), floats(4)], 22, {}),
    "LRN": ("LRN", [X4], 13, {"size": 3, "alpha": 0.1}),
    "LSTM": ("LSTM", [floats(T, B, D), floats(1, 4 * H, D), floats(1, 4 * H, H)], 22, {"hidden_size": H, "outputs": 3}),
    "LSTM backwards with everything": (
        "LSTM",
        [
            floats(T, B, D),
            floats(1, 4 * H, D),
            floats(1, 4 * H, H),
            floats(1, 8 * H),
            LENGTHS,
            floats(1, B, H),
            floats(1, B, H),
            floats(1, 3 * H),
        ],
        22,
        {"hidden_size": H, "outputs": 3, "direction": "reverse", "clip": 1.5},
    ),
    "LSTM of one step": (
        "LSTM",
        [floats(1, B, D), floats(1, 4 * H, D), floats(1, 4 * H, H)],
        22,
        {"hidden_size": H, "outputs": 3, "input_forget": 1, "activations": ["HardSigmoid", "Softsign", "Affine"]},
    ),
    "LayerNormalization": ("LayerNormalization", [X3, floats(3, 4), floats(3, 4)], 17, {"axis": 1}),
    "LayerNormalization statistics": ("LayerNormalization", [X3, floats(4)], 17, {"outputs": 3}),
    "LeakyRelu": ("LeakyRelu", [X], 16, {}),
    "LinearAttention": (
        "LinearAttention",
        [floats(1, 3, 4), floats(1, 3, 4), floats(1, 3, 2), floats(1, 2, 2, 1), -positive(1, 3, 4), positive(1, 3, 2) / 2],
        27,
        {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "gated_delta", "outputs": 2},
    ),
    "Log": ("Log", [positive(4)], 13, {}),
    "LogSoftmax": ("LogSoftmax", [X3], 13, {"axis": 1}),
    "LpNormalization": ("LpNormalization", [X3], 22, {"axis": 1, "p": 2}),
    "LpPool": ("LpPool", [X4], 22, {"kernel_shape": [2, 3], "strides": [2, 1], "p": 3}),
    "MatMul": ("MatMul", [floats(2, 1, 3, 4), floats(5, 4, 2)], 13, {}),
    "MatMul of vectors": ("MatMul", [floats(4), floats(4)], 13, {}),
    "Max": ("Max", [apart(2, 3), apart(3) + 0.033, apart(2, 1) + 0.066], 13, {}),
    "MaxPool": ("MaxPool", [apart(1, 2, 5, 6)], 22, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "strides": [2, 1]}),
    "MaxPool with indices": ("MaxPool", [apart(1, 2, 5, 6)], 22, {"kernel_shape": [2, 2], "outputs": 2}),
    "MaxUnpool": ("MaxUnpool", [floats(1, 1, 2, 2), ints(0, 3, 9, 14).reshape(1, 1, 2, 2)], 22, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "Mean": ("Mean", [X3, floats(4), floats(3, 1)], 13, {}),
    "MeanVarianceNormalization": ("MeanVarianceNormalization", [X4], 13, {}),
    "Min": ("Min", [apart(2, 3), apart(3) + 0.05], 13, {}),
    "Mish": ("Mish", [X], 22, {}),
    "Mod": ("Mod", [positive(4) * 3, positive(4) + 0.25], 13, {"fmod": 1}),
    "Mul": ("Mul", [X3, floats(1, 4)], 14, {}),
    "Neg": ("Neg", [X], 13, {}),
    "NegativeLogLikelihoodLoss": (
        "NegativeLogLikelihoodLoss",
        [floats(3, 4), ints(1, 0, 3), positive(4)],
        22,
        {"reduction": "mean", "ignore_index": 0},
    ),
    "OneHot": ("OneHot", [ints(1, 0, 2), ints(3), floats(2)], 11, {}),
    "PRelu": ("PRelu", [X4, floats(4, 1, 1)], 16, {}),
    "Pad": ("Pad", [X3, ints(0, 1, 2, 0, 0, 1), floats()], 21, {}),
    "Pad by less": ("Pad", [X3, ints(0, -1, 2, 0, 0, -1)], 21, {}),
    "Pad reflect": ("Pad", [X3, ints(0, 1, 2, 0, 2, 1)], 21, {"mode": "reflect"}),
    "Pad edge": ("Pad", [X3, ints(0, 1, 2, 0, 2, 1)], 21, {"mode": "edge"}),
    "Pad wrap": ("Pad", [X3, ints(0, 1, 2, 0, 2, 1)], 21, {"mode": "wrap"}),
    "Pow": ("Pow", [positive(2, 3), floats(3)], 15, {}),
    "Pow of negative": ("Pow", [X, Constant(3.0)], 15, {}),
    "RMSNormalization": ("RMSNormalization", [X3, floats(4)], 23, {}),
    "RNN": (
        "RNN",
        [floats(T, B, D), floats(2, H, D), floats(2, H, H)],
        22,
        {"hidden_size": H, "outputs": 2, "direction": "bidirectional", "activations": ["Tanh", "Softplus"]},
    ),
    "RNN with layout 1": ("RNN", [floats(B, T, D), floats(1, H, D), floats(1, H, H)], 22, {"hidden_size": H, "outputs": 2, "layout": 1}),
    "Reciprocal": ("Reciprocal", [positive(4)], 13, {}),
    "ReduceL1": ("ReduceL1", [X3, ints(1)], 18, {}),
    "ReduceL2": ("ReduceL2", [X3, ints(0, 2)], 18, {"keepdims": 0}),
    "ReduceLogSum": ("ReduceLogSum", [positive(2, 3), ints(1)], 18, {}),
    "ReduceLogSumExp": ("ReduceLogSumExp", [X3, ints(1)], 18, {}),
    "ReduceMax": ("ReduceMax", [apart(3, 4), ints(1)], 20, {}),
    "ReduceMean": ("ReduceMean", [X3], 18, {}),
    "ReduceMin": ("ReduceMin", [apart(3, 4), ints(0)], 20, {"keepdims": 0}),
    "ReduceProd": ("ReduceProd", [X3, ints(1)], 18, {}),
    "ReduceSum": ("ReduceSum", [X3, ints(1, 2)], 13, {"keepdims": 0}),
    "ReduceSumSquare": ("ReduceSumSquare", [X3, ints(1)], 18, {}),
    "Relu": ("Relu", [X], 14, {}),
    "Reshape": ("Reshape", [X3, ints(0, -1)], 21, {}),
    "Resize nearest": ("Resize", [X4, None, Constant(1, 1, 2, 1.5)], 19, {"mode": "nearest"}),
    "Resize linear": ("Resize", [X4, None, Constant(1, 1, 1.7, 0.6)], 19, {"mode": "linear"}),
    "Resize cubic": ("Resize", [IMAGE, None, None, ints(1, 2, 7, 4)], 19, {"mode": "cubic"}),
    "Resize antialiased": ("Resize", [IMAGE, None, Constant(1, 1, 0.6, 0.5)], 19, {"mode": "linear", "antialias": 1}),
    "ReverseSequence": ("ReverseSequence", [X3, ints(1, 2, 3)], 10, {"batch_axis": 1, "time_axis": 2}),
    "RoiAlign": (
        "RoiAlign",
        [IMAGE, BOXES, ints(0, 0)],
        22,
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2},
    ),
    "RoiAlign of maxima": (
        "RoiAlign",
        [IMAGE, BOXES, ints(0, 0)],
        22,
        {"output_height": 2, "output_width": 2, "sampling_ratio": 2, "mode": "max"},
    ),
    "RotaryEmbedding": ("RotaryEmbedding", [floats(1, 2, 3, 4), floats(3, 2), floats(3, 2), ints(0, 2, 1).reshape(1, 3)], 23, {}),
    "STFT": ("STFT", [floats(1, 16, 1), np.int64(4), floats(8), np.int64(8)], 17, {}),
    "ScatterElements": ("ScatterElements", [X3, draw.permutation(3)[None, :2, None].repeat(4, 2).repeat(2, 0), floats(2, 2, 4)], 18, {"axis": 1}),
    "ScatterElements add": ("ScatterElements", [X3, draw.integers(0, 3, (2, 2, 4)), floats(2, 2, 4)], 18, {"axis": 1, "reduction": "add"}),
    "ScatterElements mul": ("ScatterElements", [X3, draw.integers(0, 3, (2, 3, 4)), floats(2, 3, 4)], 18, {"axis": 1, "reduction": "mul"}),
    "ScatterElements max": ("ScatterElements", [apart(2, 3), draw.integers(0, 2, (2, 3)), apart(2, 3) + 0.05], 18, {"reduction": "max"}),
    "ScatterND": ("ScatterND", [X3, ints(0, 2, 1, 0).reshape(2, 2), floats(2, 4)], 18, {}),
    "ScatterND add": ("ScatterND", [X3, ints(1, 1, 0).reshape(3, 1), floats(3, 3, 4)], 18, {"reduction": "add"}),
    "Selu": ("Selu", [X], 22, {}),
    "Shrink": ("Shrink", [3 * X], 9, {"lambd": 0.5, "bias": 0.1}),
    "Sigmoid": ("Sigmoid", [X], 13, {}),
    "Sin": ("Sin", [X], 22, {}),
    "Sinh": ("Sinh", [X], 22, {}),
    "Slice": ("Slice", [X3, ints(2, -1), ints(0, -5), ints(1, 2), ints(-1, -2)], 13, {}),
    "Softmax": ("Softmax", [X3], 13, {"axis": 1}),
    "SoftmaxCrossEntropyLoss": (
        "SoftmaxCrossEntropyLoss",
        [floats(3, 4, 2), draw.integers(0, 4, (3, 2)), positive(4)],
        13,
        {"reduction": "mean", "outputs": 2},
    ),
    "SoftmaxCrossEntropyLoss alone": ("SoftmaxCrossEntropyLoss", [floats(3, 4), ints(1, 0, 3)], 13, {"reduction": "none"}),
    "Softplus": ("Softplus", [X], 22, {}),
    "Softsign": ("Softsign", [X], 22, {}),
    "SpaceToDepth": ("SpaceToDepth", [floats(1, 2, 4, 6)], 13, {"blocksize": 2}),
    "Split": ("Split", [X3, ints(1, 2)], 18, {"axis": 1, "outputs": 2}),
    "Sqrt": ("Sqrt", [positive(4)], 13, {}),
    "Squeeze": ("Squeeze", [floats(1, 3, 1), ints(0)], 21, {}),
    "Sub": ("Sub", [X3, floats(2, 1, 1)], 14, {}),
    "Sum": ("Sum", [X3, floats(4), floats(3, 1)], 13, {}),
    "SwiGLU": ("SwiGLU", [X, floats(6)], 28, {}),
    "Swish": ("Swish", [X], 24, {"alpha": 0.7}),
    "Tan": ("Tan", [inside(4)], 22, {}),
    "Tanh": ("Tanh", [X], 13, {}),
    "TensorScatter": ("TensorScatter", [floats(2, 5, 3), floats(2, 2, 3), ints(1, 3)], 24, {"axis": 1}),
    "ThresholdedRelu": ("ThresholdedRelu", [3 * X], 22, {}),
    "Tile": ("Tile", [X3, ints(2, 1, 3)], 13, {}),
    "TopK": ("TopK", [apart(3, 5), ints(2)], 24, {"axis": 1, "outputs": 2}),
    "Transpose": ("Transpose", [X3], 21, {"perm": [2, 0, 1]}),
    "Trilu": ("Trilu", [X3, np.int64(1)], 14, {"upper": 0}),
    "Unsqueeze": ("Unsqueeze", [X3, ints(0, -1)], 21, {}),
    "Upsample": ("Upsample", [X4, Constant(1, 1, 2, 3)], 9, {"mode": "linear"}),
    "Where": ("Where", [np.array([True, False, True])[:, None], X3, floats(4)], 16, {}),
}  # fmt: skip


def build(
    op: str, operands: list[Any], opset: int, attributes: dict[str, Any]
) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """The model of one node, and the arrays for its inputs."""
    constants = [k for k, a in enumerate(operands) if isinstance(a, Constant)]
    arrays = [a.array.reshape(() if a.array.size == 1 else -1) if isinstance(a, Constant) else a for a in operands]
    options = dict(attributes)
    proto = one_node(op, arrays, opset, options.pop("outputs", 1), constants=constants, **options)
    given = [a for k, a in enumerate(arrays) if a is not None and a.dtype == np.float32 and k not in constants]
    return proto, given


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_operator(case: str) -> None:
    proto, arrays = build(*CASES[case])
    check_grad(graphc.load(proto), *arrays, order=2)


# -------------------------------------------------------------------------------------------------- control flow

IF = """<ir_version: 10, opset_import: ["" : 18]>
agraph (float[3] x, float[3] y) => (float[3] z) {
    sum = ReduceSum <keepdims = 0> (x)
    zero = Constant <value = float {0.0}> ()
    positive = Greater (sum, zero)
    z = If (positive) <
        then_branch = one () => (float[3] a) { a = Mul (x, y) },
        else_branch = two () => (float[3] b) { e = Exp (x)  b = Sub (e, y) }
    >
}"""

LOOP = """<ir_version: 10, opset_import: ["" : 18]>
agraph (float[3] x, float[3] w) => (float[3] last, float[N, 3] all) {
    count = Constant <value = int64 {4}> ()
    go = Constant <value = bool {1}> ()
    last, all = Loop (count, go, x) <
        body = turn (int64 i, bool c, float[3] h) => (bool again, float[3] new, float[3] out) {
            again = Identity (c)
            scaled = Mul (h, w)
            new = Tanh (scaled)
            out = Mul (new, h)
        }
    >
}"""

SCAN = """<ir_version: 10, opset_import: ["" : 18]>
agraph (float[3] x, float[5, 3] rows, float[3] w) => (float[3] last, float[5, 3] all) {
    last, all = Scan (x, rows) <
        num_scan_inputs = 1, scan_input_directions = [1], scan_output_directions = [1],
        body = turn (float[3] h, float[3] row) => (float[3] new, float[3] out) {
            scaled = Mul (h, w)
            moved = Add (scaled, row)
            new = Sin (moved)
            out = Mul (new, row)
        }
    >
}"""


@pytest.mark.parametrize("sign", [1, -1])
def test_gradient_of_if(sign: int) -> None:
    proto = onnx.parser.parse_model(IF)
    check_grad(graphc.load(proto), sign * positive(3), floats(3), order=2)


def test_gradient_of_loop() -> None:
    check_grad(graphc.load(onnx.parser.parse_model(LOOP)), floats(3), floats(3), order=2)


def test_gradient_of_scan() -> None:
    check_grad(graphc.load(onnx.parser.parse_model(SCAN)), floats(3), floats(5, 3), floats(3), order=2)


# ---------------------------------------------------------------------------------------------- the operator Gradient

TRAINING = {"ai.onnx.preview.training": 1}


def gradient_node(operands: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Gradient", operands, outputs, domain="ai.onnx.preview.training", name="g", **attributes)


def scalar_inputs(*names: str) -> list[onnx.ValueInfoProto]:
    return [info(n, ()) for n in names]


def test_gradient_with_respect_to_a_value_in_between() -> None:
    """dy/dh where h = a b and y = sin(h) a is cos(h) a: the way through a is not followed."""
    nodes = [
        helper.make_node("Mul", ["a", "b"], ["h"]),
        helper.make_node("Sin", ["h"], ["s"]),
        helper.make_node("Mul", ["s", "a"], ["y"]),
        gradient_node(["h", "a"], ["dh", "da"], xs=["h", "a"], y="y"),
    ]
    graph = import_model(model(nodes, scalar_inputs("a", "b"), ["dh", "da"], domains=TRAINING))
    dh, da = run(graph, np.float32(1.5), np.float32(0.4))
    np.testing.assert_allclose(dh, np.cos(0.6) * 1.5, rtol=1e-6)
    np.testing.assert_allclose(da, np.sin(0.6) + np.cos(0.6) * 0.4 * 1.5, rtol=1e-6)


def test_gradient_at_other_values() -> None:
    """The operands say where the derivative is taken: here of x^2 z at x = 5, z = 2, whatever x and z are."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["xx"]),
        helper.make_node("Mul", ["xx", "z"], ["y"]),
        gradient_node(["five", "two"], ["dx"], xs=["x"], zs=["z"], y="y"),
    ]
    proto = model(
        nodes,
        scalar_inputs("x", "z"),
        ["dx"],
        initializers={"five": np.float32(5), "two": np.float32(2)},
        domains=TRAINING,
    )
    assert run(import_model(proto), np.float32(1), np.float32(1))[0] == 20


def test_gradient_of_gradient() -> None:
    """d2(x^3)/dx2 = 6 x."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["xx"]),
        helper.make_node("Mul", ["xx", "x"], ["y"]),
        gradient_node(["x"], ["dy"], xs=["x"], y="y"),
        gradient_node(["x"], ["ddy"], xs=["x"], y="dy"),
    ]
    graph = import_model(model(nodes, scalar_inputs("x"), ["ddy"], domains=TRAINING))
    np.testing.assert_allclose(run(graph, np.float32(2)), [12], rtol=1e-6)


def test_equal_initializers_are_different_variables() -> None:
    """y = 2 u + 3 v where u and v hold the same numbers."""
    nodes = [
        helper.make_node("Mul", ["u", "x"], ["a"]),
        helper.make_node("Mul", ["v", "xx"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
        gradient_node(["u", "v"], ["du", "dv"], xs=["u", "v"], y="y"),
    ]
    same = {"u": np.zeros(2, np.float32), "v": np.zeros(2, np.float32)}
    proto = model(nodes, scalar_inputs("x", "xx"), ["y", "du", "dv"], initializers=same, domains=TRAINING)
    y, du, dv = run(import_model(proto), np.float32(2), np.float32(3))
    np.testing.assert_array_equal(y, [0, 0])
    np.testing.assert_array_equal(du, [2, 2])
    np.testing.assert_array_equal(dv, [3, 3])


def test_variables_that_do_not_matter_have_gradient_zero() -> None:
    nodes = [helper.make_node("Sin", ["x"], ["y"]), gradient_node(["x", "z"], ["", "dz"], xs=["x", "z"], y="y")]
    graph = import_model(model(nodes, scalar_inputs("x", "z"), ["dz"], domains=TRAINING))
    assert run(graph, np.float32(1), np.float32(1)) == (0,)


@pytest.mark.parametrize(
    ("attributes", "operands", "message"),
    [
        ({"xs": ["x"], "y": "y"}, ["x", "k"], "2 operands for 1 names in xs and 0 in zs"),
        ({"xs": ["missing"], "y": "y"}, ["x"], "nothing makes the value 'missing'"),
        ({"xs": ["k"], "y": "y"}, ["k"], "'k' is int64"),
        ({"xs": ["x"], "y": "k"}, ["x"], "'k' is int64"),
        ({"xs": ["x"], "zs": ["k"], "y": "y"}, ["x", "x"], "the operand for 'k' is float32"),
        ({"xs": ["x"]}, ["x"], "lacks the attribute 'y'"),
    ],
)
def test_unsound_gradient_nodes(attributes: dict[str, Any], operands: list[str], message: str) -> None:
    nodes = [helper.make_node("Sin", ["x"], ["y"]), gradient_node(operands, ["d"], **attributes)]
    inputs = [info("x", ()), info("k", (), TensorProto.INT64)]
    with pytest.raises(ModelError, match=message):
        import_model(model(nodes, inputs, ["d"], domains=TRAINING))


# ---------------------------------------------------------------------------------------------------- whole networks


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1", "resnet50"])
def test_gradient_graphs_of_networks(name: str) -> None:
    """With respect to the image and all parameters: a sound graph of about three times as many contractions."""
    graph = graphc.load(parameters_as_inputs(onnx.load(resolve(f"onnx:{name}"))))
    read = {v for node in graph.nodes for v in node.inputs}
    pulled = vjp(graph, [v for v in graph.inputs if v in read and v.dtype.is_float])
    verify(pulled)
    forward, both = (sum(n.op.name in ("conv", "dot") for n in g.nodes) for g in (graph, pulled))
    # gradients of depthwise convolutions with respect to weights are sums of products; strided ones may be four pieces
    assert 2 * forward <= both <= 3.5 * forward
