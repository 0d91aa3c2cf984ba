"""The suites in bench/: what they measure is what they say, and a suite sees a wrong answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bench import gemm, memory, microkernels, minilm, recurrent, startup
from bench.record import RESULTS, parse, write
from bench.suite import Make, Result, draw, markdown, parser, run_suite, summary
from graphc.cli.agree import compare
from graphc.measure.peers import Subject, Unavailable, load_subject
from graphc.measure.turns import Figures


def outputs(name: str, file: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    subject = load_subject(name, file, feeds, 1)
    return subject.arrays(subject.run())


def absent(threads: int) -> Subject:
    raise Unavailable("not today")


def test_a_suite_measures_compares_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two cases at two thread counts, one of them wrong, and a peer that is not there."""

    def case(error: float) -> Callable[[], Make]:
        def make() -> Make:
            right = dict(gemm.subjects(4, 8, 16))
            ours = right["graphc"]

            def graphc(threads: int) -> Subject:
                subject = ours(threads)
                return replace(subject, arrays=lambda result: [result[0] + np.float32(error)])

            return {"graphc": graphc, "openvino": absent, "onnxruntime": right["onnxruntime"]}

        return make

    cases, save = {"right": case(0), "wrong": case(1)}, tmp_path / "s.json"
    options = ["--seconds", "0.01s", "--threads", "1", "2", "--save", str(save)]
    arguments = parse(parser("suite", None), "suite", options)
    names = ("graphc", "openvino", "onnxruntime")
    assert run_suite(arguments, cases, names, {"GFLOP/s": gemm.rate}) == 1
    out = capsys.readouterr().out
    assert out.count("NO: an error of 1") == 2
    assert "openvino, all cases: not today" in out
    results = json.loads(save.read_text())["results"]
    assert [(r["case"], r["threads"]) for r in results] == [("right", 1), ("wrong", 1), ("right", 2), ("wrong", 2)]
    for r in results:
        assert r["ratio"] == pytest.approx(r["figures"]["graphc"]["median"] / r["figures"]["onnxruntime"]["median"])
        assert set(r["disagreement"]) == ({"graphc"} if r["case"] == "wrong" else set())
        assert r["facts"]["flops"] == 2 * 4 * 8 * 16
    arguments.only, arguments.save, kept = ["right"], None, save.read_bytes()
    assert run_suite(arguments, cases, names) == 0
    assert "not kept" in capsys.readouterr().out
    assert [p.read_bytes() for p in tmp_path.glob("*.json")] == [kept]
    arguments.only = ["none"]
    assert run_suite(arguments, cases, names) == 2


def test_only_a_whole_run_replaces_what_is_committed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def target(*options: str) -> Path | None:
        made = parser("speed", None)
        made.add_argument("--models", type=Path)
        made.set_defaults(seconds=2.0)
        path: Path | None = parse(made, "speed", options, places=["models"]).save
        return path

    assert target() == target("--models", "m") == target("--seconds", "2s") == RESULTS / "speed.json"
    assert (RESULTS / "speed.json").exists()
    for part in (["--only", "gemm"], ["--threads", "1"], ["--seconds", "10s"]):
        assert target(*part) is None
        assert target(*part, "--save", "s.json") == Path("s.json")
    write(None, {})
    assert "--save" in capsys.readouterr().out
    write(tmp_path / "new" / "s.json", {"results": []})
    assert set(json.loads((tmp_path / "new" / "s.json").read_text())) == {"machine", "results"}


@pytest.mark.parametrize("option", [["--threads", "0"], ["--seconds", "soon"], ["--thr", "1"]])
def test_a_suite_refuses_what_the_command_line_refuses(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(parser("speed", None), "speed", option)
    error = capsys.readouterr().err
    assert "expected a" in error or "unrecognized" in error


def result(case: str, threads: int, ours: float, theirs: float) -> Result:
    figures = {n: Figures(t, t, t, 0, 1) for n, t in (("graphc", ours), ("onnxruntime", theirs), ("torch", 2 * theirs))}
    return Result(case, threads, figures)


def test_ratios_are_to_the_fastest_peer() -> None:
    results = [result("a", 1, 1.0, 2.0), result("b", 1, 2.0, 2.0)]
    assert [r.ratio for r in results] == [0.5, 1.0]
    assert "mean 0.71, worst 1.00 (b)" in summary(results)


def test_a_record_becomes_a_table() -> None:
    records = [result("a", 2, 1.0, 4.0).record, result("a", 1, 0.5, 1.0).record, result("b", 1, 30.0, 20.0).record]
    assert markdown(records).splitlines() == [
        "| | graphc | onnxruntime | torch | ratio | ratio, 1 thread |",
        "|---|---|---|---|---|---|",
        "| a | 1.0 | 4.0 | 8.0 | 0.25 | 0.50 |",
        "| b | - | - | - | - | 1.50 |",
        "| geometric mean |  |  |  | 0.25 | 0.87 |",
    ]


def test_a_suite_draws_its_ratios(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(tmp_path / "s.svg", [result("a", 1, 1.0, 2.0), result("a", 2, 1.0, 8.0), result("b", 1, 1.0, 8.0)])
    text = " ".join(ElementTree.parse(tmp_path / "s.svg").getroot().itertext())
    for what in ("1 thread: geometric mean 4.00", "2 threads: geometric mean 8.00", "onnxruntime"):
        assert what in text


def test_resnet50s_products_are_those_of_the_model() -> None:
    """The list is made from the rule of the topology; the model itself has the same 1x1 convolutions."""
    import onnx
    from onnx import shape_inference

    from graphc.api import resolve

    graph = shape_inference.infer_shapes(onnx.load(resolve("onnx:resnet50"))).graph
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in [*graph.value_info, *graph.input]}
    found = set()
    for node in graph.node:
        if node.op_type == "Conv" and [a.ints for a in node.attribute if a.name == "kernel_shape"] == [[1, 1]]:
            (_, k, *_), (_, n, *size) = shapes[node.input[0]], shapes[node.output[0]]
            found.add((int(np.prod(size)), k, n))
    assert found
    assert set(gemm.SHAPES["resnet50"]) == {*found, (1, 2048, 1000)}


@pytest.mark.parametrize(
    "layer",
    [recurrent.Layer(kind, 16, 3, 5, 7, directions) for kind in ("LSTM", "GRU", "RNN") for directions in (1, 2)],
    ids=lambda layer: f"{layer.kind}-{layer.directions}",
)
def test_recurrent_layers_are_the_same_everywhere(layer: recurrent.Layer) -> None:
    file, feeds = recurrent.onnx_model(layer), layer.feeds()
    expected = outputs("onnxruntime", file, feeds)
    assert expected[0].shape == (5, layer.directions, 3, 16)
    agreement = compare(outputs("graphc", file, feeds), expected)
    assert agreement, agreement.reason
    try:
        subject = recurrent.torch_subject(layer, 1)
    except Unavailable:
        return
    agreement = compare(subject.arrays(subject.run()), expected)
    assert agreement, agreement.reason


@pytest.mark.slow
def test_the_encoder_with_random_weights_runs_and_masks() -> None:
    file, feeds = minilm.random_model(), minilm.feeds(2, 12)
    feeds["attention_mask"][:, 8:] = 0
    expected = outputs("onnxruntime", file, feeds)
    assert expected[0].shape == (2, 12, minilm.HIDDEN)
    agreement = compare(outputs("graphc", file, feeds), expected)
    assert agreement, agreement.reason
    short = {name: array[:, :8] for name, array in feeds.items()}
    np.testing.assert_allclose(outputs("onnxruntime", file, short)[0], expected[0][:, :8], atol=1e-5)


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save = tmp_path / "m.json"
    status = memory.main(["--threads", "1", "--only", "squeezenet", "--save", str(save)])
    (row,) = json.loads(save.read_text())["results"]
    assert row["ratio"] == pytest.approx(row["bytes"]["graphc"] / row["bytes"]["onnxruntime"])
    assert all(20e6 < n < 1e9 for n in row["bytes"].values())
    assert status == (1 if row["ratio"] > 1 else 0)


def test_what_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHC_MODELS", str(tmp_path))
    for suite in (startup, memory):
        assert suite.main([]) == 2
        assert f"run python -m bench.fetch {tmp_path}" in capsys.readouterr().err
    assert startup.main(["--models", "resnet49"]) == 2
    assert "no model resnet49; there are alexnet" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["gemm 49x512", "conv 512->512 7", "conv 512->2048 7", "depthwise 960 7"])
def test_micro_kernels_are_set_against_the_peak(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    microkernels.main([case, "--rounds", "2", "--no-peer"])
    _, head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["case", "tile", "us", "GFLOP/s"]
    assert line.startswith(case)
    assert 0 < float(line.split()[-1].rstrip("%")) <= 150
