"""Graphs saved as ONNX: every operation's samples, whole models, gradients, control flow, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

import graphc
from graphc import ops
from graphc.autodiff.transforms import grad
from graphc.errors import GraphTypeError, InputError, UnsupportedError
from graphc.frontends.onnx.export import save
from graphc.frontends.onnx.export.body import OPSET
from graphc.frontends.onnx.function import with_parameters_as_inputs
from graphc.frontends.python.model import parameters_of
from graphc.ir.dims import Dim
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, input_value, make
from graphc.ir.interpret import run
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type, tensor
from graphc.ops import REGISTRY
from graphc.ops.spec import OpSpec, Sample

SAMPLED = [s for s in REGISTRY.values() if not s.made_by_passes and list(s.samples())]
#: what onnxruntime says of an operator or element type that it has no kernel for
LACKING = ("NOT_IMPLEMENTED", "Could not find an implementation", "INVALID_GRAPH", "not supported")


def type_of(operand: Any) -> Type:
    if isinstance(operand, list):
        # the elements' extents may differ
        rank = operand[0].ndim
        return SequenceType(tensor(dtype_of(operand[0]), *(Dim(f"d{k}") for k in range(rank))))
    return TensorType(dtype_of(np.asarray(operand)), np.shape(operand))


def graph_of(spec: OpSpec, sample: Sample) -> Graph:
    """The graph of one operation on inputs."""
    inputs = [input_value(f"x{k}", type_of(o)) for k, o in enumerate(sample.operands)]
    return Graph(inputs, make(spec, *inputs, **sample.attrs))


def in_onnxruntime(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def same(actual: Any, expected: Any, what: str, ulps: float = 8) -> None:
    if isinstance(expected, list):
        assert len(actual) == len(expected), what
        for a, e in zip(actual, expected, strict=True):
            same(a, e, what)
        return
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, expected {expected.shape}"
    dtype = dtype_of(expected)
    if not dtype.is_float:
        np.testing.assert_array_equal(actual, expected, what)
        return
    import ml_dtypes

    eps = float(ml_dtypes.finfo(dtype.numpy).eps)
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    scale = np.max(np.abs(e[np.isfinite(e)]), initial=0)
    np.testing.assert_allclose(a, e, rtol=ulps * eps, atol=ulps * eps * scale, err_msg=what)


#: what ONNX, or this opset of it, cannot say
REFUSED = {
    "cast": "opset 24 has no",
    "conv": "Conv does not take int32",
    "window_argmax": "slides along the last axes",
}
#: where onnxruntime does otherwise than the specification, or the specification leaves it open; own importer decides
OTHERWISE = {
    "div": "integers by zero",
    "floordiv": "integers by zero",
    "mod": "integers by zero",
    "fmod": "integers by zero",
    "cast": "numbers as text",
    "slice": "scalars",
    "pad": "scalars",
    "reduce_and": "no elements",
    "reduce_or": "no elements",
    "cumprod": "a scan of no turns",
    "scan": "a scan of no turns",
    "nonzero": "scalars",
    "string_normalizer": "locales that are not installed",
    "argmax": "the place of NaN",
    "argmin": "the place of NaN",
    "sort": "the place of NaN",
    "top_k": "the place of NaN",
}


def in_question(spec: OpSpec, sample: Sample) -> bool:
    """Whether the sample is of the kind that `OTHERWISE` names for the operation."""
    why = OTHERWISE.get(spec.name, "")
    if not why:
        return False
    arrays = [np.asarray(o) for o in sample.operands]
    return (
        (why == "integers by zero" and arrays[1].dtype.kind in "iu" and not arrays[1].all())
        or (why == "numbers as text" and sample.attrs["dtype"].kind == "string")
        or (why == "scalars" and arrays[0].ndim == 0)
        or (why in ("no elements", "a scan of no turns") and any(a.size == 0 for a in arrays))
        or (why.startswith("locales"))
        or (why == "the place of NaN" and arrays[0].dtype.kind == "f" and bool(np.isnan(arrays[0]).any()))
    )


def held_by_onnxruntime(types: Any) -> bool:
    """Whether Python can hand the types to it and get them back."""
    return all(not isinstance(t, OptionalType) and not (isinstance(t, TensorType) and t.dtype.numpy.kind == "V")
               and not (isinstance(t, TensorType) and t.dtype.name.startswith(("float8", "float4", "bfloat", "int4", "uint4")))
               for t in types)  # fmt: skip


@pytest.mark.parametrize("spec", SAMPLED, ids=lambda s: s.name)
def test_every_operation_goes_there_and_back(spec: OpSpec) -> None:
    for k, sample in enumerate(spec.samples()):
        graph, what = graph_of(spec, sample), f"{spec.name}, sample {k}"
        operands = [o if isinstance(o, list) else np.asarray(o) for o in sample.operands]
        try:
            model = graphc.to_onnx(graph)
        except UnsupportedError as e:
            if any(n == spec.name and r in str(e) for n, r in REFUSED.items()):
                continue
            raise
        onnx.checker.check_model(model, full_check=True)
        expected = run(graph, *operands)
        for a, e in zip(run(graphc.load(model), *operands), expected, strict=True):
            same(a, e, f"{what}, imported again")
        if in_question(spec, sample) or not held_by_onnxruntime([v.type for v in (*graph.inputs, *graph.outputs)]):
            continue
        try:
            results = in_onnxruntime(model, dict(zip(graph.input_names, operands, strict=True)))
        except Exception as e:
            if any(text in str(e) for text in LACKING):
                continue  # it has no kernel for the type
            raise
        for a, e in zip(results, expected, strict=True):
            same(a, e, f"{what}, in onnxruntime")


def test_most_samples_run_in_onnxruntime() -> None:
    """The test above may pass over what onnxruntime lacks; it must not pass over what matters."""
    for name in ("add", "dot", "conv", "scan", "loop", "if_", "lstm", "reduce_sum", "gather", "random_bits", "top_k"):
        spec = REGISTRY[name]
        sample = next(iter(spec.samples()))
        graph = graph_of(spec, sample)
        feeds = dict(zip(graph.input_names, map(np.asarray, sample.operands), strict=True))
        in_onnxruntime(graphc.to_onnx(graph), feeds)


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The shipped topologies fill every weight with one number, so that sums overflow and softmax shows rounding."""
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    rng = np.random.default_rng(0)
    for node in list(model.graph.node):
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            shape = shapes[node.input[0]]
            wide = len(shape) > 1
            weights = rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5 if wide else rng.uniform(0.5, 1, shape)
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(weights, np.float32), node.output[0]))
            model.graph.node.remove(node)
    return model


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_whole_models_compute_the_same(name: str) -> None:
    original = with_random_weights(onnx.load(graphc.api.resolve(f"onnx:{name}")))
    graph = graphc.load(original)
    exported = graphc.to_onnx(graph)
    onnx.checker.check_model(exported, full_check=True)
    assert [i.name for i in exported.graph.input] == list(graph.input_names)
    assert [o.name for o in exported.graph.output] == [o.name for o in original.graph.output]
    draw = np.random.default_rng(1).standard_normal
    feeds = {n: draw(v.shape).astype(np.float32) for n, v in zip(graph.input_names, graph.inputs, strict=True)}
    for a, e in zip(in_onnxruntime(exported, feeds), in_onnxruntime(original, feeds), strict=True):
        assert np.ptp(e) > 1e-4
        same(a, e, name, ulps=500)


def dense_loss(batch: Any = 4) -> Graph:
    x, w, b = (
        input_value("x", tensor("float32", batch, 3)),
        input_value("w", tensor("float32", 3, 2)),
        input_value("b", tensor("float32", 2)),
    )
    y = ops.tanh(ops.add(ops.dot(x, w), b))
    return Graph([x, w, b], [ops.reduce_sum(ops.mul(y, y), axes=(0, 1))], ["loss"])


@pytest.mark.parametrize("batch", [4, Dim("batch")], ids=str)
def test_a_gradient_runs_in_onnxruntime(batch: Any) -> None:
    gradient = grad(dense_loss(batch), wrt=["w", "b"])
    model = graphc.to_onnx(gradient)
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(1)
    given = [rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (3, 2), (2,))]
    found = in_onnxruntime(model, dict(zip("xwb", given, strict=True)))
    for a, e in zip(found, run(gradient, *given), strict=True):
        same(a, e, "gradient", ulps=30)


def test_symbolic_extents_become_dim_params_and_are_computed() -> None:
    n = Dim("n")
    x = input_value("x", tensor("float32", n, 4))
    y = ops.reshape(ops.slice(x, starts=(n // 2, 0), stops=(n, 4), steps=(1, 1)), shape=((n - n // 2) * 4,))
    model = graphc.to_onnx(Graph([x], [y], ["y"]))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    for extent in (5, 8):
        array = np.arange(extent * 4, dtype=np.float32).reshape(extent, 4)
        assert (in_onnxruntime(model, {"x": array})[0] == array[extent // 2 :].ravel()).all()


def test_names_are_kept_and_an_output_may_be_an_input_or_a_constant() -> None:
    x = input_value("in", tensor("float32", 2))
    y = ops.add(x, 1.0)
    model = graphc.to_onnx(Graph([x], [y, y, x, constant(np.float32([7, 8]), name="table")], ["a", "b", "c", "d"]))
    onnx.checker.check_model(model, full_check=True)
    assert [o.name for o in model.graph.output] == ["a", "b", "c", "d"]
    assert "table" in [t.name for t in model.graph.initializer]
    found = in_onnxruntime(model, {"in": np.float32([1, 2])})
    assert [f.tolist() for f in found] == [[2, 3], [2, 3], [1, 2], [7, 8]]


def test_all_that_is_unsupported_is_reported_at_once() -> None:
    x = input_value("x", tensor("int32", 1, 1, 4, 4))
    w = input_value("w", tensor("int32", 1, 1, 2, 2))
    attrs = {"padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    y = [ops.conv(x, w, strides=(s, s), **attrs) for s in (1, 2)]
    blocked = ops.block(input_value("f", tensor("float32", 2, 6, 3, 2)), size=2)
    with pytest.raises(UnsupportedError, match="made by passes") as caught:
        graphc.to_onnx(Graph([x, w, *{blocked.node.inputs[0]}], [*y, blocked]))
    assert [item[0] for item in caught.value.items] == ["conv", "conv", "block"]


@pytest.mark.parametrize("dtype", ["bool", "int4", "uint4", "float4_e2m1fn", "float8_e8m0fnu", "bfloat16", "complex64"])
def test_constants_of_every_element_type(dtype: str) -> None:
    wanted = dtype_of(dtype)
    array = np.array([1, 1, 2, 4, 2], np.float32).astype(wanted.numpy)
    v: Value = constant(array, wanted, name="c")
    again = graphc.load(graphc.to_onnx(Graph([], [v], ["y"])))
    assert (run(again)[0].astype(np.complex64) == array.astype(np.complex64)).all()


def test_files_are_whole_and_folders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    graphc.export(dense_loss(), path)
    assert onnx.load(path).opset_import[0].version == OPSET
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    with pytest.raises(InputError, match="is a folder"):
        graphc.export(dense_loss(), tmp_path)
    with pytest.raises(InputError, match="no folder"):
        graphc.export(dense_loss(), tmp_path / "nowhere" / "m.onnx")


def test_large_weights_lie_beside_the_model(tmp_path: Path) -> None:
    x = input_value("x", tensor("float32", 1, 1000))
    w = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
    graph = Graph([x], [ops.dot(x, constant(w, name="w"))], ["y"])
    model = graphc.to_onnx(graph)
    save(model, tmp_path / "m.onnx", limit=1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert model.graph.initializer[0].raw_data  # the message stays whole
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    array = np.ones((1, 1000), np.float32)
    same(session.run(None, {"x": array})[0], run(graphc.load(tmp_path / "m.onnx"), array)[0], "external", ulps=100)


def test_parameters_become_inputs() -> None:
    model = with_random_weights(onnx.load(graphc.api.resolve("onnx:squeezenet")))
    graph = graphc.load(model)
    parameters = parameters_of(graph)
    opened = with_parameters_as_inputs(graph)
    assert len(parameters) == 52  # of 26 convolutions, weights and bias
    assert all(v.dtype.is_float for v in parameters.values())
    assert opened.input_names == (*graph.input_names, *parameters)
    assert not parameters_of(opened)
    x = np.random.default_rng(2).standard_normal(graph.inputs[0].shape).astype(np.float32)
    feeds = dict(zip(opened.input_names, [x, *(np.asarray(v.literal) for v in parameters.values())], strict=True))
    found = in_onnxruntime(graphc.to_onnx(opened), feeds)[0]
    same(found, in_onnxruntime(model, {graph.input_names[0]: x})[0], "squeezenet", ulps=500)
    feeds[next(iter(parameters))] = np.zeros_like(feeds[next(iter(parameters))])
    assert not np.allclose(in_onnxruntime(graphc.to_onnx(opened), feeds)[0], found)


def test_a_parameter_named_like_an_input_is_refused() -> None:
    x = input_value("w", tensor("float32", 2))
    with pytest.raises(GraphTypeError, match="'w' is the name of a parameter and of an input"):
        with_parameters_as_inputs(Graph([x], [ops.add(x, constant(np.float32([1, 2]), name="w"))]))
