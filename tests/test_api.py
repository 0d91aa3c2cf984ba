"""The Python API: `graphc.compile`, calls, `run`, `load`; and what it says about inputs that do not fit."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import chooser, classifier, convolutions, save

import graphc
from graphc import ops
from graphc.errors import InputError, ModelError, OptionError, UnsupportedError
from graphc.ir.dims import Dim
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, constant, input_value
from graphc.ir.types import tensor


@pytest.fixture(scope="module")
def exe() -> graphc.Executable:
    return graphc.compile(classifier(), threads=2)


def x_of(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 8)).astype(np.float32)


def test_every_way_to_name_a_model(tmp_path: Path) -> None:
    model = classifier(batch=2)
    path = save(model, tmp_path / "m.onnx")
    x = x_of(2)
    want = graphc.compile(model)(x)
    for source in (path, str(path), path.read_bytes(), graphc.load(path), graphc.compile(path)):
        np.testing.assert_array_equal(graphc.compile(source)(x), want)


def test_calls_and_run_agree(exe: graphc.Executable) -> None:
    x = x_of(3)
    (want,) = exe.run(None, {"x": x})
    np.testing.assert_array_equal(exe(x), want)
    np.testing.assert_array_equal(exe(x=x), want)
    np.testing.assert_array_equal(exe.run(["scores"], {"x": x})[0], want)
    out = np.empty_like(want)
    assert exe.run(None, {"x": x}, out={"scores": out})[0] is out
    np.testing.assert_array_equal(out, want)


def test_inputs_need_not_be_dense_and_are_not_changed(exe: graphc.Executable) -> None:
    wide = np.random.default_rng(1).standard_normal((4, 16)).astype(np.float32)
    before = wide.copy()
    np.testing.assert_allclose(exe(wide[:, ::2]), exe(wide[:, ::2].copy()), rtol=1e-6)
    np.testing.assert_array_equal(wide, before)


def test_results_of_one_run_outlive_the_next(exe: graphc.Executable) -> None:
    first = exe(x_of(3, 1))
    kept = first.copy()
    exe(x_of(3, 2))
    np.testing.assert_array_equal(first, kept)


def test_a_new_shape_gives_the_same_rows(exe: graphc.Executable) -> None:
    x = x_of(5)
    whole = exe(x)
    for n in (1, 2, 4):
        np.testing.assert_allclose(exe(x[:n]), whole[:n], rtol=1e-5)
    assert exe(x[:0]).shape == (0, 12)


def test_threads_of_the_caller_may_run_at_once(exe: graphc.Executable) -> None:
    inputs = [x_of(3, seed) for seed in range(8)]
    want = [exe(x) for x in inputs]
    wrong: list[int] = []

    def work(k: int) -> None:
        wrong.extend(k for _ in range(200) if not np.array_equal(exe(inputs[k]), want[k]))

    callers = [threading.Thread(target=work, args=(k,)) for k in range(len(inputs))]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert not wrong


def test_the_number_of_threads_does_not_change_the_result() -> None:
    x = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    one, two = (graphc.compile(convolutions(), threads=n)(x) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_control_flow_runs_in_the_plan() -> None:
    exe = graphc.compile(chooser())
    x = np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(exe(np.array(True), x), x + 1)
    np.testing.assert_array_equal(exe(np.array(False), x), x * 2)


def test_passes_can_be_left_out() -> None:
    x = np.random.default_rng(0).random((1, 3, 16, 16), np.float32)
    want = graphc.compile(convolutions())(x)
    for level in (0, 1):
        np.testing.assert_allclose(graphc.compile(convolutions(), level=level)(x), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(graphc.compile(convolutions(), disable={"fuse"})(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "missing input 'x'"),
        ({"x": x_of(2), "z": x_of(2)}, "no input 'z'"),
        ({"x": x_of(2).astype(np.float64)}, "'x': expected float32 but got float64"),
        ({"x": x_of(2)[0]}, "'x': expected rank 2 .* got rank 1"),
        ({"x": x_of(2)[:, :7]}, "'x': axis 1 must be 8 .* is 7"),
        ({"x": None}, "'x'"),
        ({"x": object()}, "'x'"),
    ],
)
def test_inputs_that_do_not_fit_are_named(exe: graphc.Executable, feeds: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        exe.run(None, feeds)


def test_calls_that_do_not_fit(exe: graphc.Executable) -> None:
    with pytest.raises(InputError, match="takes 1 input"):
        exe(x_of(1), x_of(1))
    with pytest.raises(InputError, match="twice"):
        exe(x_of(1), x=x_of(1))
    with pytest.raises(InputError, match="no output 'y'"):
        exe.run(["y"], {"x": x_of(1)})
    with pytest.raises(InputError, match="mapping"):
        exe.run(None, [x_of(1)])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="out"):
        exe.run(None, {"x": x_of(1)}, out={"scores": np.empty((2, 12), np.float32)})


def test_bad_options_and_models(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="did you mean 'threads'"):
        graphc.compile(classifier(), thread=1)
    bad = {"threads": 0, "level": 7, "target": "tpu", "precision": "half", "disable": "nonsense"}
    for name, wrong in bad.items():
        with pytest.raises(OptionError, match=f"{name}|{wrong}"):
            graphc.compile(classifier(batch=1), **{name: wrong})
    with pytest.raises(ModelError):
        graphc.compile(b"nothing")
    with pytest.raises(ModelError, match=r"none\.onnx"):
        graphc.compile(tmp_path / "none.onnx")
    unsupported = classifier()
    unsupported.graph.node[2].op_type = "NoSuchOperator"
    with pytest.raises(UnsupportedError) as e:
        graphc.compile(unsupported)
    assert [(item[0], item[1]) for item in e.value.items] == [("NoSuchOperator", "relu")]


def test_prepare_compiles_ahead(exe: graphc.Executable) -> None:
    prepared = exe.prepare(x=(7, 8))
    assert exe.specialisation({"x": x_of(7)}) is prepared
    with pytest.raises(InputError, match="'x'"):
        exe.prepare()
    with pytest.raises(InputError, match="no input"):
        exe.prepare(x=(7, 8), q=(1,))


def test_sizes_that_the_data_decides_start_a_new_stretch() -> None:
    x = input_value("x", tensor("float32", 6))
    where = ops.cast(ops.nonzero(ops.relu(x)), dtype=dtype_of("float32"))
    exe = graphc.compile(Graph([x], [ops.exp(where), ops.add(x, 1.0)]))
    for given in ([1, -1, 2, 0, 3, -4], [1, -1, -2, 0, 3, -4], [-1] * 6):
        a = np.array(given, np.float32)
        found, shifted = exe(a)
        np.testing.assert_allclose(found, np.exp(np.nonzero(a > 0)[0][None].astype(np.float32)), rtol=1e-6)
        np.testing.assert_array_equal(shifted, a + 1)


def test_sequences_of_other_shapes_are_another_signature() -> None:
    """An imported model takes the shapes of a sequence's elements into its types."""
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("SequenceAt", ["s", "one"], ["item"]),
        helper.make_node("Neg", ["item"], ["y"]),
    ]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, "g", [sequence], [y]), opset_imports=[helper.make_opsetid("", 17)]
    )
    exe = graphc.compile(model)
    for shape in ((2, 3), (4, 5)):
        items = [np.full(shape, k, np.float32) for k in range(3)]
        np.testing.assert_array_equal(exe(items), -items[1])
    with pytest.raises(InputError, match=r"s\[1\].*float64"):
        exe([np.zeros((2, 3), np.float32), np.zeros((2, 3))])
    with pytest.raises(InputError, match="expected a list"):
        exe(3)


def test_results_belong_to_the_caller() -> None:
    x = input_value("x", tensor("float32", 3))
    words = constant(np.array(["a", "b"], object))
    exe = graphc.compile(Graph([x], [x, words, ops.neg(x)]))
    a = np.ones(3, np.float32)
    same, text, _ = exe(a)
    same[:], text[:] = 5, "changed"
    assert a.tolist() == [1, 1, 1]
    assert exe(a)[1].tolist() == ["a", "b"]


def test_a_constant_index_out_of_range_is_an_error_of_graphc() -> None:
    table = constant(np.arange(6, dtype=np.float32).reshape(3, 2))
    with pytest.raises(ModelError, match="extent 3"):
        graphc.compile(Graph([], [ops.gather(table, constant(np.array([5])), axis=0)]))


def test_a_call_like_the_last_one_checks_no_less() -> None:
    x = input_value("x", tensor("float32", Dim("n"), 3))
    exe = graphc.compile(Graph([x], [ops.add(x, 1.0)]), threads=1)
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    for given in (a, a, a[::-1], np.asfortranarray(a), a.tolist(), np.concatenate([a, a])):
        expected = np.asarray(given, np.float32) + 1 if isinstance(given, list) else given + 1
        if isinstance(given, list):
            with pytest.raises(InputError):
                exe.run(None, {"x": np.asarray(given)})  # float64
            continue
        for _ in range(2):
            np.testing.assert_array_equal(exe.run(None, {"x": given})[0], expected)
    read_only = a.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(exe.run(None, {"x": read_only})[0], a + 1)
    for wrong in ({"y": a}, {}, {"x": a, "y": a}, {"x": a[0]}, {"x": a[:, :2]}, {"x": a.astype(np.float64)}):
        with pytest.raises(InputError):
            exe.run(None, wrong)
    first = exe.run(None, {"x": a})[0]
    second = exe.run(None, {"x": a})[0]
    assert first is not second
    assert not np.shares_memory(first, second)
