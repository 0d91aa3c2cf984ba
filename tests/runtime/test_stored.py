"""Stored models: found again by the next process, never in place of what they are not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import chooser, classifier, convolutions, save

import graphc
from graphc.errors import InputError, ModelError
from graphc.runtime import fingerprint, stored
from graphc.runtime.cache import Cache, model_cache
from graphc.runtime.executable import Executable
from graphc.runtime.specialisation import Specialisation
from graphc.runtime.stored import StoredSpecialisation

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="models are stored on x86-64 alone")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache of models, beside the kernels of the session."""
    cache = Cache(tmp_path / "models")
    monkeypatch.setattr("graphc.api.model_cache", lambda: cache)
    return cache


def x_of(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 8)).astype(np.float32)


def entries(cache: Cache) -> list[Path]:
    """Large files, with compiled forms; records are small."""
    assert cache.directory is not None
    return [p for p in cache.directory.rglob("*") if p.is_file() and p.stat().st_size >= 4096]


def form(exe: Executable, **feeds: np.ndarray) -> type:
    return type(exe.specialisation(feeds))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [lambda: classifier(batch=3), convolutions, chooser])
def test_a_stored_model_gives_the_same_bits(
    make: Callable[[], onnx.ModelProto], threads: int, models: Cache, tmp_path: Path
) -> None:
    path = save(make(), tmp_path / "m.onnx")
    first = graphc.compile(path, threads=threads)
    rng = np.random.default_rng(0)
    feeds = {
        p.name: rng.random(p.shape) > 0.5 if p.name == "flag" else rng.random(p.shape, np.float32) for p in first.inputs
    }
    second = graphc.compile(path, threads=threads)
    assert form(first, **feeds) is Specialisation
    assert form(second, **feeds) is StoredSpecialisation
    assert (second.inputs, second.outputs) == (first.inputs, first.outputs)
    for _ in range(3):
        for a, b in zip(first.run(None, feeds), second.run(None, feeds), strict=True):
            np.testing.assert_array_equal(a, b)


def test_every_shape_is_stored_up_to_a_few(models: Cache, tmp_path: Path) -> None:
    path = save(classifier(), tmp_path / "m.onnx")
    exe = graphc.compile(path)
    want = {n: exe(x_of(n)) for n in range(1, Executable.STORE + 3)}
    assert len(entries(models)) == Executable.STORE
    again = graphc.compile(path)
    for n, y in want.items():
        np.testing.assert_array_equal(again(x_of(n)), y)
    assert form(again, x=x_of(1)) is StoredSpecialisation
    assert form(again, x=x_of(Executable.STORE + 2)) is Specialisation
    with pytest.raises(InputError, match="expected rank 2"):
        again(np.zeros(3, np.float32))


def test_bytes_and_path_are_one_model(models: Cache, tmp_path: Path) -> None:
    path = save(classifier(batch=2), tmp_path / "m.onnx")
    graphc.compile(path)
    assert form(graphc.compile(path.read_bytes()), x=x_of(2)) is StoredSpecialisation
    assert len(entries(models)) == 1


def test_other_weights_options_and_sources_are_other_models(
    models: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = classifier(batch=2)
    path = save(model, tmp_path / "m.onnx")
    graphc.compile(path, threads=1)
    for options in ({"threads": 2}, {"threads": 1, "level": 1}, {"threads": 1, "precision": "strict"}):
        assert form(graphc.compile(path, **options), x=x_of(2)) is Specialisation
    assert form(graphc.compile(path, threads=1), x=x_of(2)) is StoredSpecialisation
    monkeypatch.setattr(stored, "fingerprint", lambda: "edited")
    assert form(graphc.compile(path, threads=1), x=x_of(2)) is Specialisation
    monkeypatch.undo()
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]) + 1
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, model.graph.initializer[0].name))
    monkeypatch.setattr("graphc.api.model_cache", lambda: models)
    assert form(graphc.compile(save(model, path), threads=1), x=x_of(2)) is Specialisation


def test_the_fingerprint_tells_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    def now() -> str:
        return fingerprint.fingerprint.__wrapped__()

    before = now()
    monkeypatch.setenv("GRAPHC_SPIN_US", "7")
    assert now() == before
    monkeypatch.setenv("GRAPHC_ISA", "generic")
    assert now() != before
    monkeypatch.delenv("GRAPHC_ISA")
    for part in ("_installation", "_processor"):
        with monkeypatch.context() as patch:
            patch.setattr(fingerprint, part, lambda: "another")
            assert now() != before
    assert now() == before


def test_the_fingerprint_sees_edits_of_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "__init__.py").touch()
    module = tmp_path / "inner" / "m.py"
    module.write_text("x = 1")
    monkeypatch.setattr(graphc, "__path__", [str(tmp_path)])
    seen = set()
    for change in (lambda: None, lambda: module.write_text("x = 22"), lambda: os.utime(module, (0, 0)), module.unlink):
        change()
        seen.add(fingerprint._installation.__wrapped__())
    assert len(seen) == 4


@pytest.mark.parametrize("at", [20, 100, 4096 + 10, -10])
def test_a_damaged_entry_is_compiled_again_and_replaced(models: Cache, tmp_path: Path, at: int) -> None:
    path = save(classifier(batch=2), tmp_path / "m.onnx")
    want = graphc.compile(path)(x_of(2))
    (entry,) = entries(models)
    whole = bytearray(entry.read_bytes())
    damaged = bytearray(whole)
    damaged[at] ^= 1
    for data in (damaged, whole[:-4096], whole + bytes(4096), b"", b"x" * 10):
        entry.write_bytes(data)
        exe = graphc.compile(path)
        assert form(exe, x=x_of(2)) is Specialisation
        np.testing.assert_array_equal(exe(x_of(2)), want)
        assert entry.read_bytes() == whole
    assert form(graphc.compile(path), x=x_of(2)) is StoredSpecialisation


def test_an_entry_of_something_else_counts_as_absent(models: Cache, tmp_path: Path) -> None:
    """Whole by its checksum, and yet no compiled model."""
    path = save(classifier(batch=2), tmp_path / "m.onnx")
    graphc.compile(path)
    (entry,) = entries(models)
    for head, arrays in ((b"{}", []), (b"no JSON", []), (b'{"sizes": [8]}', [np.zeros(1)])):
        models.put_arrays(entry.parent.name + entry.name, head, arrays)
        assert form(graphc.compile(path), x=x_of(2)) is Specialisation
    record = next(p for p in entry.parent.parent.rglob("*") if p.is_file() and p != entry)
    models.put(record.parent.name + record.name, b'{"x": 1}')
    assert form(graphc.compile(path), x=x_of(2)) is StoredSpecialisation


def test_the_file_may_change_later(models: Cache, tmp_path: Path) -> None:
    """A stored model is read again for another shape: not when it has become another model."""
    path = save(classifier(), tmp_path / "m.onnx")
    graphc.compile(path)(x_of(1))
    exe = graphc.compile(path)
    exe(x_of(1))
    save(classifier(classes=3), path)
    exe(x_of(1))
    with pytest.raises(ModelError, match="has changed since it was compiled"):
        exe(x_of(2))


def test_it_can_be_looked_at(models: Cache, tmp_path: Path) -> None:
    path = save(classifier(batch=2), tmp_path / "m.onnx")
    before = graphc.compile(path).specialisation({"x": x_of(2)})
    after = graphc.compile(path).specialisation({"x": x_of(2)})
    assert isinstance(after, StoredSpecialisation)
    assert after.plans[0].memory == before.plans[0].memory
    assert after.graph.output_names == ("scores",)
    with pytest.raises(AttributeError, match="no_such"):
        after.no_such  # noqa: B018


def test_external_data_count_by_their_content(models: Cache, tmp_path: Path) -> None:
    """The model's own bytes say nothing of the weights."""
    path, weights = tmp_path / "m.onnx", tmp_path / "w.bin"
    onnx.save(classifier(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    want = graphc.compile(path)(x_of(2))
    np.testing.assert_array_equal(want, graphc.compile(classifier())(x_of(2)))
    assert form(graphc.compile(path), x=x_of(2)) is StoredSpecialisation
    before = weights.read_bytes()
    exe = graphc.compile(path)
    weights.write_bytes(before[:-4] + b"\0\0\x80\x3f")
    changed = graphc.compile(path)
    assert form(changed, x=x_of(2)) is Specialisation
    assert (changed(x_of(2)) != want).any()
    np.testing.assert_array_equal(exe(x_of(2)), want)
    with pytest.raises(ModelError, match="has changed since"):
        exe(x_of(3))
    weights.write_bytes(before)
    again = graphc.compile(path)
    assert form(again, x=x_of(2)) is StoredSpecialisation
    np.testing.assert_array_equal(again(x_of(2)), want)
    weights.unlink()
    with pytest.raises(ModelError, match="missing"):
        graphc.compile(path)(x_of(2))


def test_external_data_that_change_while_they_are_read_are_not_stored(
    models: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, weights = tmp_path / "m.onnx", tmp_path / "w.bin"
    onnx.save(classifier(batch=2), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    made = Specialisation.__init__

    def slow(self: Specialisation, *args: object) -> None:
        made(self, *args)  # type: ignore[arg-type]
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\x80\x3f")

    monkeypatch.setattr(Specialisation, "__init__", slow)
    graphc.compile(path)
    assert not entries(models)


def test_the_process_cache_has_bounds_and_a_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "c"))
    assert model_cache().directory == tmp_path / "c" / "models"
    monkeypatch.setenv("GRAPHC_CACHE", str(tmp_path / "d"))
    monkeypatch.setenv("GRAPHC_CACHE_MODELS_MB", "0")
    assert model_cache().directory is None
    monkeypatch.setenv("GRAPHC_CACHE", "off")
    assert model_cache().directory is None


_PROCESS = """
import sys
import numpy as np
import graphc
exe = graphc.compile(sys.argv[1], threads=2)
y = exe(np.ones((2, 8), np.float32))
parts = ("numba", "llvmlite", "onnx", "rich", "graphc.ops", "graphc.passes", "graphc.kernels", "graphc.frontends.onnx")
print(float(y[0, 0]), *(name for name in parts if name in sys.modules))
"""


def test_the_next_process_imports_nothing_that_compiles(tmp_path: Path) -> None:
    """And neither does one that may not write any more."""
    path = save(classifier(batch=2), tmp_path / "m.onnx")

    def process() -> list[str]:
        environment = {**os.environ, "GRAPHC_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-P", "-c", _PROCESS, str(path)]
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.split()

    first, second = process(), process()
    assert "llvmlite" in first
    assert second == first[:1]
