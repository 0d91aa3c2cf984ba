"""What is not a sound model is refused with one clear error."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from building import info, model
from onnx import TensorProto, helper

from graphc.errors import ModelError
from graphc.frontends.onnx import load_model


def relu(
    name: str = "relu", source: str = "x", target: str = "y", op: str = "Relu", domain: str = ""
) -> onnx.NodeProto:
    return helper.make_node(op, [source], [target], name=name, domain=domain)


def sound() -> onnx.ModelProto:
    return model([relu()], [info("x", [2])], ["y"])


def refused(source: object, *words: str) -> None:
    with pytest.raises(ModelError) as e:
        load_model(source)  # type: ignore[arg-type]
    for word in words:
        assert word in str(e.value), f"{word!r} is not in {e.value}"


def test_sources(tmp_path: Path) -> None:
    data = sound().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data), io.BytesIO(data), sound()):
        assert load_model(source).proto.graph.node[0].op_type == "Relu"
    assert load_model(path).folder == tmp_path
    assert load_model(data).folder is None
    loaded = load_model(path)
    assert load_model(loaded) is loaded


def test_files(tmp_path: Path) -> None:
    refused(tmp_path / "missing.onnx", "no file", "missing.onnx")
    refused(tmp_path, "folder")
    empty = tmp_path / "empty.onnx"
    empty.touch()
    refused(empty, "empty")
    huge = tmp_path / "huge.onnx"
    with huge.open("wb") as f:
        f.truncate((1 << 31) + 5)  # sparse: takes no space
    refused(huge, "2 GiB")
    refused("a\0b", "cannot be read")
    refused(3, "not int")
    refused(io.StringIO("text"), "binary mode")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"hello world, this is no model", "not an ONNX model"),
        (b"\x00" * 64, "not an ONNX model"),
        (b"\x89PNG\r\n\x1a\n", "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
    ],
)
def test_not_onnx(data: bytes, word: str) -> None:
    refused(data, word)


def test_truncated() -> None:
    big = model([relu()], [info("x", [2])], ["y"], initializers={"w": np.ones(1000, np.float32)})
    data = big.SerializeToString()
    for cut in (1, 10, len(data) // 2, len(data) - 1):
        refused(data[:cut])


def test_random_damage_never_escapes() -> None:
    """Whatever bytes are changed, loading ends in a model or in a ModelError."""
    draw = np.random.default_rng(0)
    data = np.frombuffer(sound().SerializeToString(), np.uint8)
    for _ in range(300):
        damaged = data.copy()
        places = draw.integers(0, len(data), 3)
        damaged[places] = draw.integers(0, 256, 3)
        with contextlib.suppress(ModelError):
            load_model(damaged.tobytes())


def test_versions() -> None:
    m = sound()
    m.ir_version = 1000
    refused(m, "IR version 1000")
    m = sound()
    m.opset_import[0].version = 1000
    refused(m, "opset 1000")
    m = sound()
    del m.opset_import[:]
    refused(m, "operator set")
    m = sound()
    m.opset_import.append(helper.make_opsetid("ai.onnx", 17))
    refused(m, "two versions")
    m = sound()
    m.ClearField("graph")
    refused(m, "no graph")


def test_names() -> None:
    refused(model([relu(source="nowhere")], [info("x", [2])], ["y"]), "'nowhere'", "nothing makes", "relu")
    refused(model([relu(), relu("again")], [info("x", [2])], ["y"]), "'y' is made twice", "again")
    refused(model([relu(target="x")], [info("x", [2])], ["x"]), "made twice")
    refused(model([relu()], [info("x", [2]), info("x", [2])], ["y"]), "input twice")
    refused(model([relu()], [info("x", [2])], ["z"]), "output 'z' is never made")
    m = sound()
    m.graph.input[0].name = ""
    refused(m, "no name")


def test_cycle() -> None:
    cycle = [relu("a", "q", "p"), relu("b", "p", "q")]
    refused(model(cycle, [info("x", [2])], ["q"]), "before", "cycle", "'a'", "'b'")


def test_repeated_attribute() -> None:
    node = helper.make_node("LeakyRelu", ["x"], ["y"], name="leaky", alpha=0.1)
    node.attribute.append(helper.make_attribute("alpha", 0.2))
    refused(model([node], [info("x", [2])], ["y"]), "leaky", "alpha", "twice")


def test_names_in_subgraphs() -> None:
    def branch(source: str) -> onnx.GraphProto:
        return helper.make_graph([relu("inner", source, "b")], "branch", [], [info("b", [2])])

    def with_branch(source: str) -> onnx.ModelProto:
        node = helper.make_node("If", ["c"], ["y"], name="if", then_branch=branch(source), else_branch=branch("x"))
        return model([node], [info("x", [2]), info("c", [], TensorProto.BOOL)], ["y"])

    load_model(with_branch("x"))
    refused(with_branch("elsewhere"), "'elsewhere'", "'if'", "inner")


def function(name: str, calls: str, domain: str = "local") -> onnx.FunctionProto:
    return helper.make_function(
        domain,
        name,
        ["a"],
        ["b"],
        [relu("n", "a", "b", calls, domain)],
        [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)],
    )


def test_recursive_functions() -> None:
    def with_functions(*functions: onnx.FunctionProto) -> onnx.ModelProto:
        return model([relu(op="f", domain="local")], [info("x", [2])], ["y"], functions=functions, domains={"local": 1})

    refused(with_functions(function("f", "f")), "f -> f", "circle")
    refused(with_functions(function("f", "g"), function("g", "h"), function("h", "f")), "f -> g -> h -> f")
    refused(with_functions(function("f", "g"), function("f", "g")), "twice")
