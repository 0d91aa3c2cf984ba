"""Measuring: the profile of a run, the roofs, benchmarks in turns and in processes of their own."""

from __future__ import annotations

import json
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
from graphc.measure.roofs import measure_roofs

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
    assert {x["roof"] for x in launches} <= {"compute", "memory"}


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
