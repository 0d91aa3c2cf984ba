"""The walk over the nodes: what is reported, what is known while importing, bodies and functions."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import onnx
import pytest
from building import check, info, model, one_node
from interpreting_backend import import_for
from onnx import TensorProto, helper

from graphc.errors import GraphcError, InputError, ModelError, NeedsValue, UnsupportedError
from graphc.frontends.onnx import check_operators, import_model, input_types, load_model, signature
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, location_of
from graphc.ir.types import TensorType

node = helper.make_node
X = np.array([[-1.0, 2.0, -3.0], [4.0, -5.0, 6.0]], np.float32)


def imported(proto: onnx.ModelProto, **shapes: object) -> Graph:
    return import_model(load_model(proto), shapes or None)


# --- reports --------------------------------------------------------------------------------------------------------


def test_everything_unsupported_is_listed_at_once() -> None:
    branch = helper.make_graph(
        [node("Inner", ["x"], ["b"], name="inside", domain="other")], "branch", [], [info("b", [2])]
    )
    m = model(
        [
            node("NoSuchOp", ["x"], ["a"], name="first"),
            node("Relu", ["a"], ["r"], name="fine"),
            node("Gru2", ["r"], ["g"], name="second", domain="com.example"),
            node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch),
            node("Softmax", ["x"], ["s"], name="strange", axis=0, sparkle=3),
        ],
        [info("x", [2]), info("c", [], TensorProto.BOOL)],
        ["g", "y", "s"],
        domains={"com.example": 1},
    )
    with pytest.raises(UnsupportedError) as e:
        imported(m)
    listed = {(i[0], i[1]) for i in e.value.items}
    assert ("NoSuchOp", "first") in listed
    assert ("com.example.Gru2", "second") in listed
    assert ("other.Inner", "choice/inside") in listed
    assert ("Softmax", "strange") in listed
    assert "sparkle" in str(e.value)
    assert not any(i[0] in ("Relu", "If") for i in e.value.items)


def test_an_unknown_operator_behind_another_is_listed() -> None:
    """What depends on an unsupported node cannot be imported, but its operator is still looked up."""
    nodes = [node("Missing1", ["x"], ["a"], name="one"), node("Missing2", ["a"], ["y"], name="two")]
    with pytest.raises(UnsupportedError) as e:
        imported(model(nodes, [info("x", [2])], ["y"]))
    assert [i[1] for i in e.value.items] == ["one", "two"]


def test_unknown_operators_are_found_without_importing() -> None:
    """In bodies, and in local functions under the operator sets that they import."""
    f = helper.make_function(
        "local", "f", ["a"], ["b"], [node("Odd", ["a"], ["b"], name="deep")], [helper.make_opsetid("", 18)]
    )
    branch = helper.make_graph([node("f", ["x"], ["b"], name="call", domain="local")], "branch", [], [info("b", [2])])
    choice = node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    inputs = [info("x", ["n"]), info("c", [], TensorProto.BOOL)]
    m = model([choice], inputs, ["y"], functions=[f], domains={"local": 1})
    with pytest.raises(UnsupportedError) as e:
        check_operators(load_model(m))
    assert [i[:2] for i in e.value.items] == [("Odd", "choice/call/deep")]


def test_attributes_at_their_default_are_fine() -> None:
    imported(one_node("TopK", [X, np.array([2])], 11, outputs=2, sorted=1))
    with pytest.raises(ModelError, match=r"the_node.*alpha.*INT, not FLOAT"):
        imported(one_node("LeakyRelu", [X], 16, alpha=1))


def test_wrong_numbers_of_operands() -> None:
    with pytest.raises(ModelError, match=r"the_node.*3 operands.*takes 2"):
        imported(one_node("Add", [X, X, X], 14))
    with pytest.raises(ModelError, match=r"the_node.*operand 1 is required"):
        imported(one_node("Where", [X > 0, None, X], 16))
    with pytest.raises(ModelError, match=r"lacks the attribute 'to'"):
        imported(one_node("Cast", [X], 13))


def test_errors_name_the_node() -> None:
    with pytest.raises(ModelError, match="the_node"):
        imported(one_node("Concat", [X], 13, axis=5))
    with pytest.raises(Exception, match="the_node"):
        imported(one_node("MatMul", [X, X], 13))


def test_locations_lead_back_to_nodes() -> None:
    graph = imported(
        model([node("Relu", ["x"], ["y"], name="my_relu"), node("Exp", ["y"], ["z"])], [info("x", [2])], ["z"])
    )
    assert [location_of(n) for n in graph.nodes if n.op.name != "input"] == [("my_relu",), ("Exp_1",)]


def test_damaged_models_never_escape() -> None:
    """Whatever bytes are changed, importing ends in a graph or in an error of graphc's own."""
    sources = [
        one_node(
            "Conv", [np.ones((1, 3, 5, 5), "f"), np.ones((2, 3, 3, 3), "f")], 11, pads=[1, 1, 1, 1], strides=[2, 2]
        ),
        one_node("Slice", [X, np.array([0]), np.array([2]), np.array([1])], 13),
        one_node("Attention", [np.ones((1, 2, 3, 4), "f")] * 3, 23),
        branches(a="z", b="k"),
        counting_loop(3, grow=True),
    ]
    draw = np.random.default_rng(0)
    for source in sources:
        data = np.frombuffer(source.SerializeToString(), np.uint8)
        for _ in range(150):
            damaged = data.copy()
            damaged[draw.integers(0, len(data), 2)] = draw.integers(0, 256, 2)
            with contextlib.suppress(GraphcError):
                import_model(load_model(damaged.tobytes()))


def test_hostile_sizes() -> None:
    """A fill of 10**15 elements costs nothing, and nobody may ask for its entries."""
    nodes = [
        node("ConstantOfShape", ["s"], ["huge"], value=onnx.numpy_helper.from_array(np.array([1]))),
        node("Reshape", ["x", "huge"], ["y"], name="r"),
    ]
    m = model(nodes, [info("x", [2])], ["y"], initializers={"s": np.array([10**15])})
    with pytest.raises(ModelError, match=r"'r'.*1000000000000000 entries"):
        imported(m)


# --- inputs ---------------------------------------------------------------------------------------------------------


def test_shapes_of_inputs() -> None:
    add = [node("Add", ["a", "b"], ["y"])]
    m = model(add, [info("a", ["batch", 3]), info("b", ["batch", None])], ["y"])
    types = input_types(load_model(m))
    assert types["a"] == TensorType(types["a"].dtype, (Dim("batch"), 3))  # type: ignore[union-attr]
    graph = imported(m, a=(5, 3))
    assert graph.inputs[0].shape == (5, 3)
    assert graph.inputs[1].shape[0] == 5  # the named dimension is known from the other input
    for shapes, word in (
        ({"a": (5, 4)}, "'a'"),
        ({"a": (5,)}, "'a'"),
        ({"c": (5,)}, "no input 'c'"),
    ):
        with pytest.raises(InputError, match=word):
            imported(m, **shapes)


def test_initializers_are_constants_unless_asked_for() -> None:
    m = model(
        [node("Add", ["x", "w"], ["y"])],
        [info("x", [2]), info("w", [2])],
        ["y"],
        initializers={"w": np.ones(2, np.float32)},
    )
    assert imported(m).input_names == ("x",)
    assert imported(m, w=(2,)).input_names == ("x", "w")


def test_unranked_input() -> None:
    m = model([node("Relu", ["x"], ["y"])], [info("x", None)], ["y"])
    with pytest.raises(InputError, match="'x' has no shape"):
        imported(m)
    assert imported(m, x=(2, 3)).outputs[0].shape == (2, 3)


def test_signature() -> None:
    m = model([node("Relu", ["x"], ["y"])], [info("x", ["n", 2])], ["y"])
    inputs, outputs = signature(load_model(m))
    assert [n for n, _ in inputs] == ["x"]
    assert outputs == [("y", None)]


# --- values that types depend on -------------------------------------------------------------------------------------


def test_values_of_inputs() -> None:
    m = model(
        [node("Reshape", ["x", "shape"], ["y"], name="r")],
        [info("x", [2, 3]), info("shape", [2], TensorProto.INT64)],
        ["y"],
    )
    with pytest.raises(NeedsValue) as e:
        imported(m)
    assert e.value.names == ("shape",)
    graph = import_model(load_model(m), values={"shape": np.array([3, -1])})
    assert graph.outputs[0].shape == (3, 2)
    assert graph.input_names == ("x", "shape")  # the signature stays
    with pytest.raises(InputError, match="shape"):
        import_model(load_model(m), values={"shape": np.array([3.0, 2.0])})


def test_shape_arithmetic_becomes_constant() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Mul", ["n", "two"], ["m"]),
        node("Unsqueeze", ["m", "axes"], ["u"]),
        node("Concat", ["u", "minus"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["y"]),
    ]
    constants = {"zero": np.array(0), "two": np.array(2), "axes": np.array([0]), "minus": np.array([-1])}
    m = model(nodes, [info("x", ["n", 6])], ["y"], initializers=constants)
    concrete = imported(m, x=(4, 6))
    assert concrete.outputs[0].shape == (8, 3)
    assert [n.op.name for n in concrete.nodes] == ["input", "reshape"]
    symbolic = imported(m)
    assert symbolic.outputs[0].shape == (2 * Dim("n"), 3)


def test_data_dependent_shapes_are_reported() -> None:
    nodes = [
        node("MatMul", ["x", "x"], ["big"]),
        node("Cast", ["big"], ["i"], to=TensorProto.INT64),
        node("Reshape", ["i", "flat"], ["s"]),
        node("Reshape", ["x", "s"], ["y"], name="by_data"),
    ]
    m = model(nodes, [info("x", [100, 100])], ["y"], initializers={"flat": np.array([-1])})
    with pytest.raises(UnsupportedError, match=r"depends on data.*by_data"):
        imported(m)


def test_importing_again_gives_the_same_graph() -> None:
    w = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Pad", ["a", "p"], ["y"], mode="edge")]
    constants = {"w": w, "p": np.array([0, 300, 0, 300])}
    loaded = load_model(model(nodes, [info("x", [2, 64])], ["y"], initializers=constants))
    first = import_model(loaded)
    assert import_model(loaded) == first
    (constant,) = [n for n in first.nodes if n.op.name == "constant" and n.types[0].shape == (64, 64)]  # type: ignore[union-attr]
    assert np.shares_memory(constant.outputs[0].literal, loaded.literal(loaded.proto.graph.initializer[0]).array)


def test_large_fills_are_not_stored() -> None:
    m = model([node("ConstantOfShape", ["s"], ["y"])], [], ["y"], initializers={"s": np.array([1000, 1000])})
    graph = imported(m)
    assert sorted(n.op.name for n in graph.nodes) == ["broadcast_to", "constant"]


# --- bodies ---------------------------------------------------------------------------------------------------------


def branches(**captured: str) -> onnx.ModelProto:
    def branch(op: str, other: str) -> onnx.GraphProto:
        return helper.make_graph([node(op, ["x", other], ["b"])], "branch", [], [info("b", [2])])

    choice = node(
        "If",
        ["c"],
        ["y"],
        name="choice",
        then_branch=branch("Add", captured["a"]),
        else_branch=branch("Mul", captured["b"]),
    )
    return model(
        [choice],
        [info("x", [2]), info("z", [2]), info("c", [], TensorProto.BOOL)],
        ["y"],
        initializers={"k": np.array([10, 20], np.float32)},
    )


def test_captures_become_operands() -> None:
    graph = imported(branches(a="z", b="k"))
    (choice,) = [n for n in graph.nodes if n.op.name == "if_"]
    # x and z are read by the bodies; the constant k is at home in them
    assert [v.node.attrs.get("name") for v in choice.inputs[1:]] == ["x", "z"]
    for body in choice.bodies:
        assert len(body.inputs) == 2
        assert all(v in body.inputs or v.node.op.name != "input" for n in body.nodes for v in n.inputs)
    x, z = np.array([1, 2], np.float32), np.array([3, 4], np.float32)
    check(branches(a="z", b="k"), {"x": x, "z": z, "c": np.array(True)}, [x + z])
    check(branches(a="z", b="k"), {"x": x, "z": z, "c": np.array(False)}, [x * np.array([10, 20], np.float32)])


def test_a_known_condition_takes_its_branch() -> None:
    m = branches(a="z", b="k")
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "c"))
    assert [n.op.name for n in imported(m).nodes] == ["input", "input", "add"]


def test_static_values_are_known_inside_bodies() -> None:
    """A shape that a body captures is as well known inside as outside."""
    branch = helper.make_graph(
        [node("Reshape", ["x", "target"], ["b"], name="inner")], "branch", [], [info("b", [3, 2])]
    )
    nodes = [
        node("Shape", ["other"], ["target"]),
        node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    m = model(nodes, [info("x", [2, 3]), info("other", ["a", "b"]), info("c", [], TensorProto.BOOL)], ["y"])
    assert imported(m, other=(3, 2)).outputs[0].shape == (3, 2)


def counting_loop(trips: object, grow: bool = False) -> onnx.ModelProto:
    """y accumulates x a few times; with `grow` it is lengthened instead."""
    step = node("Concat", ["acc", "x"], ["next"], axis=0) if grow else node("Add", ["acc", "x"], ["next"])
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), step, node("Identity", ["i"], ["turn"])],
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("acc", None)],
        [info("go_on", [], TensorProto.BOOL), info("next", None), info("turn", [], TensorProto.INT64)],
    )
    inputs = [info("x", [2])] + ([info("trips", [], TensorProto.INT64)] if trips is None else [])
    constants = {} if trips is None else {"trips": np.array(trips)}
    return model(
        [node("Loop", ["trips", "", "x"], ["y", "turns"], body=body)], inputs, ["y", "turns"], initializers=constants
    )


def test_loop() -> None:
    x = np.array([1, 2], np.float32)
    graph = imported(counting_loop(3))
    assert graph.outputs[1].shape == (3,)  # the number of turns is sure
    check(counting_loop(3), {"x": x}, [4 * x, np.arange(3)])
    check(counting_loop(None), {"x": x, "trips": np.array(5)}, [6 * x, np.arange(5)])
    check(counting_loop(0), {"x": x}, [x, np.arange(0)])


def test_growing_loop() -> None:
    x = np.array([1, 2], np.float32)
    graph = imported(counting_loop(3, grow=True))
    assert graph.outputs[0].shape == (8,)  # unrolled: the turns are known
    assert not any(n.op.name == "loop" for n in graph.nodes)
    check(counting_loop(3, grow=True), {"x": x}, [np.tile(x, 4), np.arange(3)])
    symbolic = imported(counting_loop(None, grow=True))
    assert isinstance(symbolic.outputs[0].shape[0], Dim)
    check(counting_loop(None, grow=True), {"x": x, "trips": np.array(2)}, [np.tile(x, 3), np.arange(2)])


# --- functions ------------------------------------------------------------------------------------------------------


def test_local_functions() -> None:
    """Attributes are passed by reference, names are the function's own, optional operands may be missing."""
    inner = [node("LeakyRelu", ["a"], ["t"]), node("Add", ["t", "a"], ["b"])]
    inner[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    f = helper.make_function("local", "f", ["a"], ["b"], inner, [helper.make_opsetid("", 16)], ["slope"])
    g = helper.make_function(
        "local",
        "g",
        ["a"],
        ["b"],
        [node("f", ["a"], ["t"], domain="local", slope=0.5), node("f", ["t"], ["b"], domain="local", slope=2.0)],
        [helper.make_opsetid("local", 1)],
    )
    m = model(
        [node("g", ["x"], ["t"], domain="local", name="call"), node("Neg", ["t"], ["y"])],
        [info("x", [2, 3])],
        ["y"],
        functions=[f, g],
        domains={"local": 1},
    )

    def one(x: np.ndarray, slope: float) -> np.ndarray:
        return np.where(x < 0, np.float32(slope) * x, x) + x

    check(m, {"x": X}, [-one(one(X, 0.5), 2.0)])
    assert any(location_of(n)[0].startswith("call/f_0/") for n in imported(m).nodes if location_of(n))


def test_exploding_functions_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty functions that call the next one twice: a billion nodes and more."""
    monkeypatch.setattr("graphc.frontends.onnx.importer._MAX_NODES", 1000)
    functions = []
    for k in range(40):
        last = k == 39
        calls = [
            node("Relu" if last else f"f{k + 1}", [s], [t], domain="" if last else "local")
            for s, t in (("a", "t"), ("t", "b"))
        ]
        functions.append(
            helper.make_function(
                "local", f"f{k}", ["a"], ["b"], calls, [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
            )
        )
    m = model(
        [node("f0", ["x"], ["y"], domain="local")], [info("x", [2])], ["y"], functions=functions, domains={"local": 1}
    )
    with pytest.raises(ModelError, match="expand to more than"):
        imported(m)


def test_operators_defined_by_onnx() -> None:
    """HannWindow has no importer; its definition is imported in its place."""
    check(one_node("HannWindow", [np.array(8)], 17, periodic=1), {}, [np.hanning(9)[:8].astype(np.float32)])


# --- speed ----------------------------------------------------------------------------------------------------------


def test_a_thousand_nodes_import_in_a_tenth_of_a_second() -> None:
    """The bound here is three times that, since tests share their machine."""
    nodes, last = [], "x"
    for k in range(250):
        nodes += [
            node("Conv", [last, "w"], [f"c{k}"], pads=[1, 1, 1, 1]),
            node("Add", [f"c{k}", "b"], [f"a{k}"]),
            node("Relu", [f"a{k}"], [f"r{k}"]),
            node("Transpose", [f"r{k}"], [f"t{k}"], perm=[0, 1, 3, 2]),
        ]
        last = f"t{k}"
    constants = {"w": np.ones((4, 4, 3, 3), np.float32), "b": np.ones((4, 1, 1), np.float32)}
    loaded = load_model(model(nodes, [info("x", [1, 4, 8, 8])], [last], initializers=constants))
    import_model(loaded, {"x": (1, 4, 8, 8)})
    graphs, times = [], []
    for _ in range(3):
        graphs.clear()  # so that every node is made again
        started = time.process_time()
        graphs.append(import_model(loaded))
        times.append(time.process_time() - started)
    assert min(times) < 0.3


def test_deep_models_do_not_recurse() -> None:
    nodes = [node("Relu" if k % 2 else "Neg", [f"v{k}"], [f"v{k + 1}"]) for k in range(5_000)]
    graph = import_for(load_model(model(nodes, [info("v0", [2])], ["v5000"])), {"v0": np.zeros(2, np.float32)})
    assert len(graph.nodes) == 5_001
