"""Compositions against ONNX's reference implementation of the operator of the same name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from graphc import ops
from graphc.errors import GraphTypeError
from graphc.ir.dims import Dim
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, input_value
from graphc.ir.interpret import run
from graphc.ir.types import TensorType, tensor
from graphc.ops import functions as f

draw = np.random.default_rng(7).standard_normal


def floats(*shape: int, scale: float = 2.0) -> np.ndarray:
    return (scale * draw(shape)).astype(np.float32)


def compute(function: Callable[..., Any], *arrays: np.ndarray, **attrs: Any) -> Any:
    """The function built as a graph with the arrays as inputs, and run."""
    inputs = [input_value(f"x{k}", TensorType(dtype_of(a), a.shape)) for k, a in enumerate(arrays)]
    out = function(*inputs, **attrs)
    # a Value is a tuple too
    outs = (out,) if isinstance(out, Value) else out
    results = run(Graph(inputs, outs), *arrays)
    return results[0] if isinstance(out, Value) else results


def onnx_result(operator: str, *arrays: np.ndarray, outputs: int = 1, opset: int = 22, **attrs: Any) -> Any:
    names = [f"x{k}" for k in range(len(arrays))]
    outs = [f"y{k}" for k in range(outputs)]
    node = onnx.helper.make_node(operator, names, outs, **attrs)
    infos = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    results = [onnx.helper.make_empty_tensor_value_info(n) for n in outs]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", infos, results), opset_imports=[onnx.helper.make_opsetid("", opset)]
    )
    found = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
    return found[0] if outputs == 1 else found


X = floats(3, 4, 5)

ACTIVATIONS: list[tuple[str, Callable[..., Value], dict[str, Any]]] = [
    ("Elu", f.elu, {"alpha": 0.7}),
    ("Selu", f.selu, {}),
    ("Celu", f.celu, {"alpha": 1.5}),
    ("LeakyRelu", f.leaky_relu, {"alpha": 0.1}),
    ("ThresholdedRelu", f.thresholded_relu, {"alpha": 0.8}),
    ("Softplus", ops.softplus, {}),
    ("Softsign", f.softsign, {}),
    ("Mish", f.mish, {}),
    ("HardSigmoid", f.hard_sigmoid, {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", f.hard_swish, {}),
    ("Gelu", f.gelu, {"approximate": "none"}),
    ("Gelu", f.gelu, {"approximate": "tanh"}),
    ("Softmax", f.softmax, {"axis": 1}),
    ("Softmax", f.softmax, {"axis": -1}),
    ("LogSoftmax", f.log_softmax, {"axis": 0}),
    ("Flatten", f.flatten, {"axis": 2}),
    ("Flatten", f.flatten, {"axis": 0}),
]


@pytest.mark.parametrize(("operator", "function", "attrs"), ACTIVATIONS)
def test_functions_of_one_operand(operator: str, function: Callable[..., Value], attrs: dict[str, Any]) -> None:
    np.testing.assert_allclose(compute(function, X, **attrs), onnx_result(operator, X, **attrs), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("function", [f.elu, ops.softplus, f.mish, f.gelu, f.swish, f.hard_swish, f.softsign])
def test_activations_of_large_numbers_are_finite(function: Callable[..., Value]) -> None:
    assert np.isfinite(compute(function, np.float32([-1e4, -100, 100, 1e4]))).all()


def test_softmax_of_large_numbers() -> None:
    x = np.float32([[1e4, 1e4 - 1, -1e4], [0, 0, 0]])
    expected = np.exp(x - x.max(1, keepdims=True), dtype=np.float64)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(compute(f.softmax, x), expected, rtol=1e-6)
    assert np.isfinite(compute(f.log_softmax, x)).all()


def test_logsumexp() -> None:
    x = np.float32([[1000, 1000], [-np.inf, -np.inf], [np.inf, 0]])
    np.testing.assert_allclose(compute(f.logsumexp, x, axes=1), [1000 + np.log(2), -np.inf, np.inf], rtol=1e-6)
    np.testing.assert_allclose(
        compute(f.logsumexp, X, axes=(0, 2), keepdims=True),
        onnx_result("ReduceLogSumExp", X, np.array([0, 2]), keepdims=1),
        rtol=1e-5,
    )


def test_clip_lets_the_upper_bound_win_and_nan_through() -> None:
    x = np.float32([-5, 0, 5, np.nan])
    np.testing.assert_array_equal(compute(f.clip, x, low=-1.0, high=2.0), np.float32([-1, 0, 2, np.nan]))
    np.testing.assert_array_equal(compute(f.clip, x, low=3.0, high=2.0)[:3], [2, 2, 2])


def test_prelu() -> None:
    slope = floats(4, 1)
    np.testing.assert_allclose(compute(f.prelu, X, slope), onnx_result("PRelu", X, slope), rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization(axis: int) -> None:
    shape = X.shape[axis:]
    scale, bias = floats(*shape), floats(*shape)
    found = compute(f.layer_normalization, X, scale, bias, axis=axis)
    for a, b in zip(found, onnx_result("LayerNormalization", X, scale, bias, outputs=3, axis=axis), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_layer_normalization_of_float16_does_not_overflow() -> None:
    x = np.float16([[300, -300, 200, 100]])
    y, centre, _ = compute(f.layer_normalization, x, np.ones(4, np.float16))
    assert y.dtype == np.float16
    assert centre.dtype == np.float32
    np.testing.assert_allclose(y, [[0.98, -1.64, 0.55, 0.11]], atol=0.01)


def test_rms_normalization() -> None:
    scale = floats(5)
    expected = X / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(compute(f.rms_normalization, X, scale), expected, rtol=1e-5)


def test_batch_normalization() -> None:
    x, (scale, bias, mean) = floats(2, 4, 3, 3), (floats(4) for _ in range(3))
    var = np.abs(floats(4)) + np.float32(0.1)
    found = compute(f.batch_normalization, x, scale, bias, mean, var, epsilon=1e-3)
    expected = onnx_result("BatchNormalization", x, scale, bias, mean, var, epsilon=1e-3, opset=15)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_instance_and_group_normalization() -> None:
    x, scale, bias = floats(2, 4, 3, 5), floats(4), floats(4)
    found = compute(f.instance_normalization, x, scale, bias)
    np.testing.assert_allclose(found, onnx_result("InstanceNormalization", x, scale, bias), rtol=1e-4, atol=1e-5)
    found = compute(f.group_normalization, x, scale, bias, groups=2)
    expected = onnx_result("GroupNormalization", x, scale, bias, num_groups=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 4, 5])
def test_local_response_normalization(size: int) -> None:
    x = floats(2, 6, 3, 3)
    found = compute(f.lrn, x, size=size, alpha=0.3, beta=0.6, bias=1.5)
    # the definition, spelled out: channels c - floor((size-1)/2) ... c + ceil((size-1)/2)
    expected = np.empty_like(x)
    for c in range(6):
        low, high = max(0, c - (size - 1) // 2), min(5, c + size // 2)
        sums = (x[:, low : high + 1] ** 2).sum(1)
        expected[:, c] = x[:, c] / (1.5 + 0.3 / size * sums) ** 0.6
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((3,), (2, 3, 4)),
        ((2, 4, 3), (3,)),
    ],
)
def test_matmul_is_numpys(a: Sequence[int], b: Sequence[int]) -> None:
    x, y = floats(*a), floats(*b)
    np.testing.assert_allclose(compute(f.matmul, x, y), x @ y, rtol=1e-4, atol=1e-5)


def test_matmul_of_rank_zero_is_refused() -> None:
    with pytest.raises(GraphTypeError, match="rank 0"):
        f.matmul(input_value("a", tensor("float32")), input_value("b", tensor("float32", 2)))


def test_means_of_integers_and_unknown_extents() -> None:
    x = np.array([[1, 2, 4], [-1, -2, -4]])
    np.testing.assert_array_equal(compute(f.mean, x, axes=1), [2, -2])
    symbolic = input_value("x", tensor("float32", Dim("n"), 3))
    (found,) = run(Graph([symbolic], [f.mean(symbolic, 0)]), X[0].T[:, :3])
    np.testing.assert_allclose(found, X[0].T[:, :3].mean(0), rtol=1e-6)
    np.testing.assert_allclose(compute(f.variance, X, axes=(0, 1)), X.var((0, 1)), rtol=1e-5)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(mode: str) -> None:
    x = floats(2, 8, 2, 3)
    spread = compute(f.depth_to_space, x, block=2, mode=mode)
    np.testing.assert_array_equal(spread, onnx_result("DepthToSpace", x, blocksize=2, mode=mode))
    back = compute(f.space_to_depth, spread, block=2)
    np.testing.assert_array_equal(back, onnx_result("SpaceToDepth", spread, blocksize=2))


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("k", [-2, 0, 1])
def test_triangles(upper: bool, k: int) -> None:
    expected = np.triu(X, k) if upper else np.tril(X, k)
    np.testing.assert_array_equal(compute(f.trilu, X, k=k, upper=upper), expected)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis: int) -> None:
    indices = np.array([[0, 2, -1], [5, -5, 1]])
    found = compute(f.one_hot, indices, on=_number(5.0), off=_number(1.0), depth=4, axis=axis)
    expected = onnx_result("OneHot", indices, np.int64(4), np.float32([1, 5]), axis=axis)
    inside = np.expand_dims((indices >= -4) & (indices < 4), axis)
    np.testing.assert_array_equal(found, np.where(inside, expected, 1.0))


def _number(x: float) -> Value:
    from graphc.ir.graph import constant

    return constant(np.float32(x))


def test_tile_split_squeeze_and_unsqueeze() -> None:
    np.testing.assert_array_equal(compute(f.tile, X, repeats=(2, 1, 3)), np.tile(X, (2, 1, 3)))
    for a, b in zip(compute(f.split, X, sizes=(1, 0, 3), axis=1), np.split(X, [1, 1], 1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert compute(f.unsqueeze, X, axes=(0, -1)).shape == (1, 3, 4, 5, 1)
    assert compute(f.squeeze, X[:, :1, None], axes=(1, -2)).shape == (3, 5)
    assert compute(f.squeeze, X[:, :1]).shape == (3, 5)
    with pytest.raises(GraphTypeError, match="squeeze"):
        compute(f.squeeze, X, axes=(0,))
    with pytest.raises(GraphTypeError, match="split"):
        compute(f.split, X, sizes=(1, 1), axis=1)
