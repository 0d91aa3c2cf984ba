"""External data: read where it is honest, refused where a stranger's model reaches for what is not its own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from building import info, model
from onnx import TensorProto, helper

from graphc.errors import ModelError, UnsafeModelError
from graphc.frontends.onnx import import_model, load_model
from graphc.ir.interpret import run

WEIGHTS = np.arange(6, dtype=np.float32)


def external(
    name: str = "w", location: str = "data.bin", dims: tuple[int, ...] = (6,), **entries: object
) -> onnx.TensorProto:
    t = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        t.external_data.add(key=key, value=str(value))
    return t


def save(folder: Path, tensor: onnx.TensorProto) -> Path:
    m = model([helper.make_node("Add", ["x", "w"], ["y"], name="add")], [info("x", [6])], ["y"])
    m.graph.initializer.append(tensor)
    path = folder / "m.onnx"
    path.write_bytes(m.SerializeToString())
    return path


def refused(path: object, *words: str, unsafe: bool = True) -> None:
    with pytest.raises(UnsafeModelError if unsafe else ModelError) as e:
        import_model(load_model(path))  # type: ignore[arg-type]
    for word in ("'w'", *words):
        assert word in str(e.value), f"{word!r} is not in {e.value}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "data.bin").write_bytes(b"head" * 4 + WEIGHTS.tobytes())
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    return inside


def test_read(folder: Path) -> None:
    graph = import_model(load_model(save(folder, external(offset=16, length=24))))
    assert np.array_equal(run(graph, WEIGHTS)[0], 2 * WEIGHTS)


def test_large_data_is_mapped(folder: Path) -> None:
    big = np.arange(100_000, dtype=np.float32)
    (folder / "sub").mkdir()
    (folder / "sub" / "big.bin").write_bytes(b"\0" * 20 + big.tobytes())
    m = model([helper.make_node("Identity", ["w"], ["y"])], [info("x", [6])], ["y"])
    m.graph.initializer.append(external(location="sub/big.bin", dims=big.shape, offset=20))
    path = folder / "m.onnx"
    path.write_bytes(m.SerializeToString())
    graph = import_model(load_model(path))
    array = graph.outputs[0].literal
    assert array is not None
    assert np.array_equal(array, big)
    assert not array.flags.writeable


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "a/../../secret.bin",
        "/etc/passwd",
        "",
        ".",
        "C:\\secret",
        "\\\\host\\x",
        "..\\secret.bin",
        "a\0b",
    ],
)
def test_locations_outside(folder: Path, location: str) -> None:
    refused(save(folder, external(location=location)))


def test_absolute_location_inside(folder: Path) -> None:
    refused(save(folder, external(location=str(folder / "data.bin"))), "absolute")


def test_symbolic_link(folder: Path) -> None:
    (folder / "link.bin").symlink_to("../secret.bin")
    refused(save(folder, external(location="link.bin")), "symbolic link")
    (folder / "honest.bin").symlink_to("data.bin")
    refused(save(folder, external(location="honest.bin")), "symbolic link")


def test_linked_folder(folder: Path) -> None:
    (folder / "up").symlink_to("..")
    refused(save(folder, external(location="up/secret.bin")), "symbolic link", "'up'")


def test_hard_link(folder: Path) -> None:
    os.link(folder.parent / "secret.bin", folder / "hard.bin")
    refused(save(folder, external(location="hard.bin")), "hard links")


def test_special_files(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    refused(save(folder, external(location="pipe")), "regular file")
    (folder / "dir").mkdir()
    refused(save(folder, external(location="dir")), "regular file")


def test_missing_file(folder: Path) -> None:
    refused(save(folder, external(location="gone.bin")), "gone.bin", "missing", unsafe=False)


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"offset": 20}, "outside"),
        ({"offset": 10**15}, "outside"),
        ({"offset": "9" * 5000}, "count of bytes"),
        ({"offset": -4}, "count of bytes"),
        ({"offset": "1e1"}, "count of bytes"),
        ({"length": 20}, "24"),
        ({"length": 28}, "24"),
    ],
)
def test_ranges(folder: Path, entries: dict[str, object], word: str) -> None:
    refused(save(folder, external(**entries)), word, unsafe=False)


@pytest.mark.parametrize("dims", [(2**62, 4), (2**40,), (-6,), (2**31, 2**31, 2**31)])
def test_dimensions_that_overflow(folder: Path, dims: tuple[int, ...]) -> None:
    refused(save(folder, external(dims=dims)), unsafe=False)


def test_bytes_have_no_folder(folder: Path) -> None:
    data = save(folder, external(offset=16)).read_bytes()
    refused(data, "not loaded from a file")
    assert load_model(data, base=folder).folder == folder


def nodes_with_hidden_tensors() -> list[onnx.ModelProto]:
    """The places where a tensor can hide: a Constant, a subgraph, a function, sparse tensors of both kinds."""
    bad = external(location="../secret.bin")
    one = TensorProto(name="i", data_type=TensorProto.INT64, dims=[6], int64_data=range(6))
    sparse = onnx.SparseTensorProto(values=bad, indices=one, dims=[6])
    constant = helper.make_node("Constant", [], ["c"], value=bad)
    add = helper.make_node("Add", ["x", "c"], ["y"])
    models = [model([constant, add], [info("x", [6])], ["y"])]
    sparse_constant = helper.make_node("Constant", [], ["c"], sparse_value=sparse)
    models.append(model([sparse_constant, add], [info("x", [6])], ["y"]))
    branch = helper.make_graph([add], "b", [], [info("y", [6])])
    branch.initializer.append(external("c", location="../secret.bin"))
    node = helper.make_node("If", ["cond"], ["z"], then_branch=branch, else_branch=branch)
    models.append(model([node], [info("x", [6]), info("cond", [], TensorProto.BOOL)], ["z"]))
    f = helper.make_function("local", "f", ["x"], ["y"], [constant, add], [helper.make_opsetid("", 18)])
    call = helper.make_node("f", ["x"], ["y"], domain="local")
    models.append(model([call], [info("x", [6])], ["y"], functions=[f], domains={"local": 1}))
    initializer = model([helper.make_node("Add", ["x", "w"], ["y"])], [info("x", [6])], ["y"])
    initializer.graph.sparse_initializer.append(sparse)
    models.append(initializer)
    return models


@pytest.mark.parametrize("place", range(5))
def test_hidden_tensors(folder: Path, place: int) -> None:
    path = folder / "m.onnx"
    path.write_bytes(nodes_with_hidden_tensors()[place].SerializeToString())
    with pytest.raises(UnsafeModelError):
        import_model(load_model(path))
    with pytest.raises(UnsafeModelError):
        import_model(load_model(path.read_bytes()))
