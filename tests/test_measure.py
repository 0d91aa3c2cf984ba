"""Measuring: the profile of a run, the roofs, benchmarks in turns and in processes of their own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from small_models import classifier, convolutions, save

import graphc
from graphc import ops
from graphc.cli import main
from graphc.ir.graph import Graph, input_value
from graphc.ir.types import tensor
from graphc.measure import turns
from graphc.measure.peers import Unavailable
from graphc.measure.roofs import measure_roofs
from graphc.measure.worker import Worker


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are not folded, whatever terminal the tests run in."""
    monkeypatch.setenv("COLUMNS", "200")


# --- where the time goes ---------------------------------------------------------------------------------------------


def test_a_profile_counts_every_launch_of_a_loop() -> None:
    """A scan of seven turns: what its body launches runs seven times, what follows it once, and results stay right."""
    h, x = input_value("h", tensor("float32", 4)), input_value("x", tensor("float32", 4))
    body = Graph([h, x], [ops.tanh(ops.add(h, x))])
    xs = input_value("xs", tensor("float32", 7, 4))
    last = ops.scan(h, xs, body=body, carries=1, scanned=1)
    exe = graphc.compile(Graph([h, xs], [ops.reduce_max(last, axes=(0,))]), threads=1)
    feeds = {"h": np.zeros(4, np.float32), "xs": np.ones((7, 4), np.float32)}
    expected = exe.run(None, feeds)
    (plan,) = exe.specialisation(feeds).plans
    clocks = plan.profile()
    assert not clocks.read().any()
    for runs in (1, 2):
        np.testing.assert_array_equal(exe.run(None, feeds)[0], expected[0])
        seconds, calls = clocks.read().T
        assert len(calls) == len(clocks.launches)
        assert set(calls) == {1.0 * runs, 7.0 * runs}
        assert (seconds > 0).all()
        assert (seconds < 1).all()  # of the launches: not since some other clock began


def test_operands_know_their_bytes(tmp_path: Path) -> None:
    """x float32[2, 8] @ w[8, 12] + b: what is repeated counts once, and a workspace is not more than it is."""
    exe = graphc.compile(str(save(classifier(batch=2), tmp_path / "m.onnx")), threads=1)
    (plan,) = exe.prepare().plans
    sizes = sorted({o.nbytes for launch in plan.program.launches for o in launch.operands})
    assert 4 * 2 * 8 in sizes
    assert 4 * 2 * 12 in sizes
    for launch in plan.program.launches:
        for o in launch.operands:
            assert o.byte_offset + o.nbytes <= plan.program.buffers[o.buffer].nbytes


def test_roofs_are_those_of_a_computer() -> None:
    roofs = measure_roofs(1, rounds=2)
    assert 1 < roofs.gflops < 1000  # one core
    assert 0.5 < roofs.memory < 1000
    assert roofs.cache > roofs.memory


def test_profile_lists_launches_and_families(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, record = str(save(convolutions(), tmp_path / "conv.onnx")), tmp_path / "p.json"
    assert main(["profile", path, "--threads", "1", "--seconds", "0.05", "--top", "2", "--json", str(record)]) == 0
    out = capsys.readouterr().out
    for text in ("conv1", "contraction", "of peak", "of bandwidth", "more launches", "GB/s from memory"):
        assert text in out
    kept = json.loads(record.read_text())
    assert kept["machine"]["versions"]["graphc"] == graphc.__version__
    launches = kept["launches"]
    assert sum(x["share"] for x in launches) == pytest.approx(1)
    assert sum(x["ms"] for x in launches) == pytest.approx(kept["ms"]["in launches"])
    assert [x["ms"] for x in launches] == sorted((x["ms"] for x in launches), reverse=True)
    convolution = max(launches, key=lambda x: x["operations"])
    assert convolution["operations"] == 2 * 16 * 16 * 16 * 16 * 9
    assert convolution["gflops"] == pytest.approx(convolution["operations"] / convolution["ms"] * 1e-6)
    for x in launches:  # all of it fits into any cache
        assert x["level"] == "cache"
        assert x["roof"] == ("compute" if x["peak"] >= x["bandwidth"] else "cache")
        assert x["bandwidth"] == pytest.approx(x["gbytes"] / kept["roofs"]["cache"])


def test_profile_draws_the_roofline(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path, picture = str(save(convolutions(), tmp_path / "conv.onnx")), tmp_path / "p.svg"
    assert main(["profile", path, "--threads", "1", "--seconds", "0.02", "--save", str(picture)]) == 0
    text = " ".join(ElementTree.parse(picture).getroot().itertext())
    assert "operations a byte" in text
    assert "contraction" in text
    for wrong, why in ((tmp_path / "p.txt", ".svg"), (tmp_path / "no" / "p.svg", "no folder")):
        assert main(["profile", path, "--save", str(wrong)]) == 2
        assert why in capsys.readouterr().err


# --- turns -----------------------------------------------------------------------------------------------------------


def test_figures_are_quantiles() -> None:
    f = turns.figures([float(n) for n in range(101)])
    assert (f.median, f.p10, f.p90, f.spread, f.runs) == (50, 10, 90, 25, 101)


def test_subjects_take_turns_and_rest_before_each(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    monkeypatch.setattr(turns.time, "sleep", lambda seconds: happened.append(f"rest {seconds}"))
    subjects = {name: lambda name=name: happened.append(name) for name in ("a", "b")}
    times = turns.take_turns(subjects, seconds=0, rounds=3)
    rest = f"rest {turns.PAUSE}"
    assert happened == [rest, "a", "a", "a", rest, "b", "b", "b"] * 3  # two to warm up, one that counts
    assert {name: len(t) for name, t in times.items()} == {"a": 3, "b": 3}


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_worker_measures_in_its_own_process(tmp_path: Path) -> None:
    path, x = save(classifier(batch=2), tmp_path / "m.onnx"), np.ones((2, 8), np.float32)
    expected = graphc.compile(str(path), threads=1)(x)
    with Worker("graphc", path, {"x": x}, 1) as worker:
        np.testing.assert_array_equal(worker.loaded.outputs[0], expected)
        assert worker.loaded.loading > worker.loaded.first > 0
        assert 16 << 20 < worker.loaded.peak < 1 << 30
        assert min(worker.turn(0.01)) > 0
    larger = {"x": np.ones((1 << 20, 8), np.float32)}  # 32 MiB in, 48 MiB out
    with Worker("graphc", save(classifier(), tmp_path / "free.onnx"), larger, 1) as second:
        assert second.loaded.peak > worker.loaded.peak + (80 << 20)


def fake_openvino(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    """An `openvino` that stands before the installed one, here and in child processes."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "openvino.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)


def test_what_ends_a_worker_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, feeds = save(classifier(batch=2), tmp_path / "m.onnx"), {"x": np.ones((2, 8), np.float32)}
    fake_openvino(monkeypatch, tmp_path, "import os, sys\nprint('out of luck', file=sys.stderr)\nos.abort()")
    with pytest.raises(Unavailable, match="ended by SIGABRT: out of luck"):
        Worker("openvino", path, feeds, 1)
    (tmp_path / "fake" / "openvino.py").write_text("raise ImportError")
    with pytest.raises(Unavailable, match="not installed"):
        Worker("openvino", path, feeds, 1)


# --- graphc bench ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", ["one", "several"])
def test_bench_measures_and_compares(
    processes: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_openvino(monkeypatch, tmp_path, "raise ImportError")
    path, record = str(save(convolutions(), tmp_path / "conv.onnx")), tmp_path / "b.json"
    command = ["bench", path, "--against", "openvino,onnxruntime", "--threads", "1", "--seconds", "0.05"]
    assert main([*command, "--processes", processes, "--json", str(record)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for text in (
        "graphc",
        "agree with onnxruntime",
        "the reference",
        "skipped: openvino is not",
        "peak memory",
        "times",
    ):
        assert text in out
    kept = json.loads(record.read_text())
    assert kept["machine"]["versions"]["onnxruntime"]
    assert (kept["reference"], kept["processes"], kept["threads"]) == ("onnxruntime", processes, 1)
    assert kept["inputs"] == {"x": ["float32", [1, 3, 16, 16]]}
    assert "not installed" in kept["missing"]["openvino"]
    ours, theirs = kept["subjects"]["graphc"], kept["subjects"]["onnxruntime"]
    assert ours["agrees"] is True
    assert theirs["ratio"] == pytest.approx(ours["median"] / theirs["median"])
    for subject in (ours, theirs):
        assert subject["p10"] <= subject["median"] <= subject["p90"]
        assert subject["runs"] >= turns.ROUNDS
        assert subject["peak bytes"] > 16 << 20
        assert subject["load"] > 0


WRONG = """
import numpy as np

class Core:
    def read_model(self, file): return self
    def reshape(self, shapes): assert shapes == {"x": [1, 3, 16, 16]}
    def compile_model(self, model, device, settings):
        assert device == "CPU" and settings["INFERENCE_NUM_THREADS"] == 1
        return self
    def create_infer_request(self): return self
    def infer(self, feeds, share_inputs, share_outputs): return {"y": np.zeros((1, 16), np.float32)}
"""


def test_bench_ends_with_1_when_outputs_differ(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_openvino(monkeypatch, tmp_path, WRONG)
    path = str(save(convolutions(), tmp_path / "conv.onnx"))
    command = ["bench", path, "--threads", "1", "--seconds", "0.02"]
    assert main([*command, "--against", "openvino,onnxruntime"]) == 1
    assert capsys.readouterr().out.count("DIFFER") == 2  # graphc and onnxruntime, from the first peer
    assert main([*command, "--against", "onnxruntime,openvino"]) == 0  # graphc is right, and a peer wrong
    assert capsys.readouterr().out.count("DIFFER") == 1


def test_bench_draws_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    path, picture = str(save(convolutions(), tmp_path / "conv.onnx")), tmp_path / "b.svg"
    command = ["bench", path, "--against", "onnxruntime", "--threads", "1", "--seconds", "0.02", "--save", str(picture)]
    assert main(command) == 0
    text = " ".join(ElementTree.parse(picture).getroot().itertext())
    for what in ("graphc", "onnxruntime", "ms a run", "conv.onnx, 1 thread", "medians"):
        assert what in text


def test_bench_refuses_before_it_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(save(convolutions(), tmp_path / "conv.onnx"))
    for options, why in (
        (["--against", "tvm"], "onnxruntime, openvino, torch"),
        (["--against", "torch,torch"], "twice"),
        (["--json", str(tmp_path / "no" / "b.json")], "no folder"),
        (["--save", "b.txt"], ".svg"),
        (["--shape", "q=1"], "no input 'q'"),
    ):
        assert main(["bench", path, *options]) == 2
        assert why in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bench", path, "--precision", "float8"])
    assert "invalid choice: 'float8'" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", path, "--save", str(tmp_path / "b.svg")]) == 2
    assert "graphc[bench]" in capsys.readouterr().err
