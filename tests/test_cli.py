"""The command line: what it prints, what it refuses, and with which exit code."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import chooser, classifier, convolutions, save

from graphc.cli import main
from graphc.cli.arguments import parser
from graphc.cli.feeds import choose_shapes, parse_shapes, random_array, random_feeds, read_arrays
from graphc.cli.show import bytes_text, seconds_text
from graphc.errors import GraphcError, InputError, OptionError
from graphc.ir.dims import Dim
from graphc.ir.dtypes import dtype_of
from graphc.ir.types import SequenceType, TensorType
from graphc.runtime.executable import Port

F32 = dtype_of("float32")
X = Port("x", TensorType(F32, (Dim("batch"), 3, Dim("h"), Dim("w"))))
Y = Port("y", TensorType(F32, (Dim("batch"), Dim("h"))))


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save(classifier(), tmp_path / "classifier.onnx"))


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one message of a command line that must end with exit code 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    remarks, _, message = captured.err.partition("graphc: error: ")
    assert all(line.startswith("graphc: ") for line in remarks.splitlines())
    assert message
    assert "Traceback" not in captured.err
    assert not captured.out
    return message


# --- shapes, arrays, random inputs -----------------------------------------------------------------------------------


def test_shapes_are_read_by_name() -> None:
    assert parse_shapes(["x=1x3x8x9", "y=1x8"], [X, Y]) == {"x": (1, 3, 8, 9), "y": (1, 8)}
    assert parse_shapes(["1x3x8x9"], [X]) == {"x": (1, 3, 8, 9)}
    assert parse_shapes(["x="], [X]) == {"x": ()}
    odd = Port("a=b:0", Y.type)
    assert parse_shapes(["a=b:0=2x2"], [odd, X]) == {"a=b:0": (2, 2)}


@pytest.mark.parametrize("text", ["x=1x-3", "x=1,3", "x=1x3x", "z=1x3", "1x3", "=1"])
def test_bad_shapes_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--shape"):
        parse_shapes([text], [X, Y])


def test_one_shape_an_input() -> None:
    with pytest.raises(OptionError, match="two shapes"):
        parse_shapes(["x=1x3x2x2", "x=1x3x2x2"], [X])


def test_a_batch_of_one_is_assumed_and_shared_sizes_agree() -> None:
    shapes, assumed = choose_shapes([X, Y], {"x": (2, 3, 8, 9)}, {})
    assert shapes == {"x": (2, 3, 8, 9), "y": (2, 8)}
    assert not assumed
    shapes, assumed = choose_shapes([X, Y], {}, {"x": np.zeros((5, 3, 8, 9))})
    assert shapes == {"y": (5, 8)}


def test_an_unknown_size_names_the_input_and_the_option() -> None:
    with pytest.raises(InputError, match=r"'x'.*axis 2 \(h\).*--shape x=1x3xNxN"):
        choose_shapes([X], {}, {})
    batch = Port("z", TensorType(F32, (Dim("n"), 4)))
    shapes, assumed = choose_shapes([batch], {}, {})
    assert shapes == {"z": (1, 4)}
    assert "batch of 1" in assumed[0]


def test_random_values_are_seeded_and_fit_the_type() -> None:
    shapes = {"x": (2, 3, 4, 5), "y": (2, 4)}
    first, again = random_feeds([X, Y], shapes, 7), random_feeds([X, Y], shapes, 7)
    assert all(np.array_equal(first[n], again[n]) for n in shapes)
    assert not np.array_equal(first["x"], random_feeds([X, Y], shapes, 8)["x"])
    rng = np.random.default_rng(0)
    for name in ("bool", "int8", "uint8", "int64", "float16", "bfloat16", "complex64", "int4", "uint2", "string"):
        array = random_array(rng, dtype_of(name), (3, 2))
        assert array.shape == (3, 2)
        assert array.dtype == dtype_of(name).numpy


def test_an_integer_mask_lets_everything_through() -> None:
    mask = Port("attention_mask", TensorType(dtype_of("int64"), (2, 5)))
    floats = Port("mask", TensorType(dtype_of("float32"), (2, 5)))
    feeds = random_feeds([mask, floats], {"attention_mask": (2, 5), "mask": (2, 5)}, 0)
    assert (feeds["attention_mask"] == 1).all()
    assert feeds["attention_mask"].dtype == np.int64
    assert len(np.unique(feeds["mask"])) == 10


def test_sequences_cannot_be_made_up() -> None:
    with pytest.raises(InputError, match="sequence"):
        random_feeds([Port("s", SequenceType(Y.type))], {}, 0)


def test_arrays_come_from_files(tmp_path: Path) -> None:
    x, y = np.ones((1, 3, 2, 2), np.float32), np.zeros((1, 2), np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "both.npz", x=x, y=y)
    assert np.array_equal(read_arrays([f"x={tmp_path}/x.npy"], [X, Y])["x"], x)
    assert set(read_arrays([f"{tmp_path}/both.npz"], [X, Y])) == {"x", "y"}
    assert np.array_equal(read_arrays([f"y={tmp_path}/both.npz"], [X, Y])["y"], y)


def test_bad_input_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "zip.npz").write_text("hello")
    np.save(tmp_path / "pickle.npy", np.array([{}], object), allow_pickle=True)
    np.savez(tmp_path / "other.npz", z=np.zeros(1))
    for text in ("x=none.npy", "x=text.npy", "x=zip.npz", "x=pickle.npy", "other.npz", "x=other.npz", "z=text.npy"):
        name, _, file = text.rpartition("=")
        with pytest.raises(GraphcError):
            read_arrays([f"{name}={tmp_path / file}" if name else str(tmp_path / file)], [X, Y])


def test_sizes_and_times_have_units() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 1536, 3 << 20)] == ["0 B", "999 B", "0.977 KiB", "1.5 KiB", "3 MiB"]
    assert [seconds_text(t) for t in (1.5, 0.0123, 4e-6)] == ["1.5 s", "12.3 ms", "4 us"]


# --- usage and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["run"],
        ["fly", "x"],
        ["run", "m", "--fast"],
        ["run", "m", "--threads", "0"],
        ["run", "m", "--level", "9"],
        ["bench", "m", "--seconds", "0"],
        ["profile", "m", "--seconds", "nan"],
        ["profile", "m", "--seconds", "25h"],
    ],
)
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--repeat", "abc", "expected a whole number of at least 1, got 'abc'"),
        ("--repeat", "0", "expected a whole number of at least 1, got '0'"),
        ("--seed", "-1", "expected a whole number of at least 0, got '-1'"),
        ("--threads", "0", "expected a whole number from 1 to 1024, got '0'"),
        ("--threads", "1025", "expected a whole number from 1 to 1024, got '1025'"),
        ("--rep", "3", "unrecognized arguments: --rep 3"),
    ],
)
def test_a_usage_error_says_what_is_expected(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["run", "m.onnx", option, value])
    assert message in capsys.readouterr().err


def test_every_command_is_a_file_with_a_function_of_its_name() -> None:
    (commands,) = (a.choices for a in parser()._actions if a.dest == "command")
    assert isinstance(commands, dict)
    for name in commands:
        assert callable(getattr(import_module(f"graphc.cli.{name}"), name))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("graphc 0.")


def test_files_that_are_no_models(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str) -> None:
    assert "none.onnx" in fails(capsys, "run", str(tmp_path / "none.onnx"))
    assert "folder" in fails(capsys, "run", str(tmp_path))
    (tmp_path / "text.onnx").write_text("this is not a model\n" * 20)
    assert "text.onnx" in fails(capsys, "run", str(tmp_path / "text.onnx"))
    (tmp_path / "empty.onnx").touch()
    assert "empty" in fails(capsys, "inspect", str(tmp_path / "empty.onnx"))
    whole = Path(model).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    assert "cut.onnx" in fails(capsys, "run", str(tmp_path / "cut.onnx"))
    assert "resnet50" in fails(capsys, "run", "onnx:resnet51")
    for name in ("resnet50", "resnet50.onnx"):
        assert "did you mean onnx:resnet50?" in fails(capsys, "run", name)
    assert "did you mean" not in fails(capsys, "run", "resnet51")


def test_unsupported_operators_are_listed_together(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = classifier()
    for name in ("first", "second"):
        node = onnx.helper.make_node("NoSuchOperator", ["x"], [f"out_{name}"], name=name)
        wrong.graph.node.append(node)
    message = fails(capsys, "run", str(save(wrong, tmp_path / "wrong.onnx")))
    assert message.count("NoSuchOperator") == 2
    assert "'first'" in message
    assert "'second'" in message


def test_bad_inputs_and_options(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 7), np.float32))
    assert "8" in fails(capsys, "run", model, "--input", f"x={tmp_path}/x.npy")
    np.save(tmp_path / "x.npy", np.zeros((2, 8), np.float64))
    assert "float64" in fails(capsys, "run", model, "--input", f"x={tmp_path}/x.npy")
    np.save(tmp_path / "x.npy", np.zeros(8, np.float32))
    assert "rank" in fails(capsys, "run", model, "--input", f"x={tmp_path}/x.npy")
    assert "no input 'q'" in fails(capsys, "run", model, "--shape", "q=1")
    assert "rank" in fails(capsys, "run", model, "--shape", "x=1x2x3")
    assert "no folder" in fails(capsys, "run", model, "--output", str(tmp_path / "no" / "y.npz"))
    assert ".npz" in fails(capsys, "run", model, "--output", str(tmp_path / "y.txt"))
    assert "nonsense" in fails(capsys, "run", model, "--disable", "nonsense")
    assert "nonsense" in fails(capsys, "inspect", model, "--after", "nonsense")
    assert "nonsense" in fails(capsys, "inspect", model, "--kernels", "nonsense")
    assert "--memory" in fails(capsys, "inspect", model, "--save", "x.svg")


def test_a_traceback_only_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(GraphcError):
        main(["run", str(tmp_path / "none.onnx"), "--traceback"])
    monkeypatch.setenv("GRAPHC_TRACEBACK", "1")
    with pytest.raises(GraphcError):
        main(["run", str(tmp_path / "none.onnx")])


# --- run -------------------------------------------------------------------------------------------------------------


def test_run_shows_inputs_outputs_and_times(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str) -> None:
    out = tmp_path / "y.npz"
    assert main(["run", model, "--repeat", "3", "--output", str(out), "--check", "onnxruntime"]) == 0
    captured = capsys.readouterr()
    for text in (
        "x",
        "scores",
        "[1, 12]",
        "top 5",
        "load",
        "compile",
        "first run",
        "median of 3",
        "launches",
        "agrees",
    ):
        assert text in captured.out
    assert "batch of 1" in captured.err
    with np.load(out) as saved:
        assert saved["scores"].shape == (1, 12)
        np.testing.assert_allclose(saved["scores"].sum(), 1, rtol=1e-5)
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_run_takes_inputs_and_seeds(tmp_path: Path, model: str) -> None:
    x = np.random.default_rng(5).standard_normal((4, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    results = []
    for extra in (
        ["--input", f"x={tmp_path}/x.npy"],
        ["--seed", "1", "--shape", "x=2x8"],
        ["--seed", "2", "--shape", "2x8"],
    ):
        assert main(["run", model, "--repeat", "1", "--output", str(tmp_path / "y.npz"), *extra]) == 0
        with np.load(tmp_path / "y.npz") as saved:
            results.append(saved["scores"])
    assert results[0].shape == (4, 12)
    assert not np.array_equal(results[1], results[2])


@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_every_level_agrees(level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(save(convolutions(), tmp_path / "conv.onnx"))
    assert main(["run", path, "--level", level, "--repeat", "1", "--check", "onnxruntime"]) == 0


def test_precisions_are_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(save(convolutions(), tmp_path / "conv.onnx"))
    results = {}
    for precision in ("strict", "float32", "bfloat16"):
        out = str(tmp_path / f"{precision}.npz")
        assert main(["run", path, "--precision", precision, "--repeat", "1", "--output", out]) == 0
        with np.load(out) as saved:
            results[precision] = np.concatenate([saved[name].ravel() for name in saved.files])
        assert main(["inspect", path, "--precision", precision, "--after", "layout"]) == 0
    strict, close, rounded = results.values()
    largest = np.abs(strict).max()
    assert np.abs(close - strict).max() < 1e-5 * largest < np.abs(rounded - strict).max() < 3e-2 * largest
    with pytest.raises(SystemExit):
        main(["run", path, "--precision", "half"])


def test_run_control_flow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(save(chooser(), tmp_path / "if.onnx"))
    for flag in (False, True):
        np.savez(tmp_path / "in.npz", flag=np.array(flag), x=np.arange(4, dtype=np.float32))
        assert main(["run", path, "--repeat", "1", "--input", f"{tmp_path}/in.npz", "--check", "onnxruntime"]) == 0


# --- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_summary_and_sections(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(save(convolutions(), tmp_path / "conv.onnx"))
    assert main(["inspect", path]) == 0
    summary = capsys.readouterr().out
    for text in ("conv.onnx", "float32[1, 3, 16, 16]", "launches", "planned", "on the host: nothing"):
        assert text in summary
    assert main(["inspect", path, "--passes", "--plan", "--memory", "--host", "--why"]) == 0
    sections = capsys.readouterr().out
    for text in ("import", "fold", "kernel", "tasks", "conv1", "lower bound", "nothing runs on the host"):
        assert text in sections


def test_inspect_prints_graphs_that_parse_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(save(classifier(batch=2), tmp_path / "classifier.onnx"))
    for where in ("import", "last", "fold"):
        assert main(["inspect", path, "--after", where]) == 0
        text = capsys.readouterr().out
        assert text.startswith("graph(%x: float32[2, 8]) {")
        assert 'as "scores"' in text or where != "import"


def test_inspect_prints_kernels(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = str(save(convolutions(), tmp_path / "conv.onnx"))
    assert main(["inspect", path, "--kernels"]) == 0
    text = capsys.readouterr().out
    assert "def " in text
    compile(text, "kernels", "exec")  # it is Python


def test_inspect_draws_the_memory_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from xml.etree import ElementTree

    path = str(save(convolutions(), tmp_path / "conv.onnx"))
    assert main(["inspect", path, "--memory", "--save", str(tmp_path / "memory.svg")]) == 0
    assert ElementTree.parse(tmp_path / "memory.svg").getroot().tag.endswith("svg")


def test_inspect_says_what_runs_on_the_host(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"], name="first"), helper.make_node("NonZero", ["r"], ["y"], name="where")],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.INT64, [1, None])],
    )
    path = str(
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    )
    assert main(["inspect", path, "--host"]) == 0
    out = capsys.readouterr().out
    assert "nonzero" in out
    assert "where" in out


# --- processes -------------------------------------------------------------------------------------------------------


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    path = save(classifier(batch=1), tmp_path / "m.onnx")
    command = f"{sys.executable} -m graphc inspect {path} --after import --kernels | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("graph(")
    assert not done.stderr


@pytest.mark.slow
def test_an_interrupted_run_exits_with_130_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        [sys.executable, "-m", "graphc", "run", "onnx:inception_v1"],
        env={**os.environ, "GRAPHC_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not any(path.is_file() for path in cache.rglob("*")):
        time.sleep(0.01)  # the first kernel is there: thirty more are being compiled
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the helper processes too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().endswith("graphc: interrupted")
    assert "Traceback" not in errors
    assert [
        p for p in cache.rglob("*") if p.is_file() and (p.suffix in (".tmp", ".part") or not p.stat().st_size)
    ] == []


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    path = save(classifier(batch=1), tmp_path / "m.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "graphc", "run", str(path), "--repeat", "1"],
        env={**os.environ, "GRAPHC_CACHE": str(blocked / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"graphc: warning: graphc keeps nothing compiled in {blocked / 'cache'}")


_IMPORTED = """
import sys
from graphc.cli import main
status = main(sys.argv[1:])
heavy = ("numba", "llvmlite", "onnx", "onnxruntime", "graphc.ops", "graphc.passes", "graphc.kernels")
print(*(name for name in heavy if name in sys.modules), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="models are stored on x86-64 alone")
def test_a_warm_run_takes_the_stored_model(tmp_path: Path) -> None:
    """It compiles nothing, not even for the line about memory; a check needs the other runtime alone."""
    path = save(classifier(batch=2), tmp_path / "m.onnx")

    def process(*arguments: str) -> tuple[list[str], list[str]]:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _IMPORTED, "run", str(path), "--threads", "1", *arguments],
            env={**os.environ, "GRAPHC_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        return [line for line in done.stdout.splitlines() if "launches" in line], done.stderr.splitlines()[-1].split()

    (first, imported), (second, later) = process(), process()
    assert "numba" in imported
    assert not later
    assert len(first) == 1
    assert second == first
    assert process("--check", "onnxruntime", "--output", str(tmp_path / "y.npz"))[1] == ["onnxruntime"]


def test_tune_measures_keeps_and_says_what_it_saves(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphc.runtime import measured, tuning

    monkeypatch.setattr(measured, "default_directory", lambda: tmp_path)
    monkeypatch.setattr(tuning, "CANDIDATES", 2)
    model = str(save(convolutions(), tmp_path / "model.onnx"))
    assert main(["tune", model, "--threads", "1", "--budget", "5m"]) == 0
    shown = capsys.readouterr().out
    assert "conv" in shown
    assert "estimated" in shown
    assert len(measured.kept()) >= 1
    assert main(["tune", model, "--threads", "1"]) == 0
    assert "have been measured before" in capsys.readouterr().err
    for text in ("0", "-3s", "soon"):
        with pytest.raises(SystemExit):
            main(["tune", model, f"--budget={text}"])
        assert "expected a time such as" in capsys.readouterr().err


def test_tune_says_what_it_had_no_time_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphc.runtime import measured, tuning

    monkeypatch.setattr(measured, "default_directory", lambda: tmp_path)
    monkeypatch.setattr(tuning, "CANDIDATES", 1)
    model = str(save(convolutions(), tmp_path / "model.onnx"))

    def tuned(*arguments: str) -> str:
        assert main(["tune", model, "--threads", "1", *arguments]) == 0
        return capsys.readouterr().err.splitlines()[-1]

    too_short = tuned("--budget", "0.000001")
    assert too_short.startswith("graphc: the budget of 1e-06 s is spent: 0 of ")
    problems = int(too_short.split(" 0 of ")[1].split()[0])
    assert not measured.kept()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "candidates", interrupted)
        assert tuned() == too_short.replace("the budget of 1e-06 s is spent", "interrupted")
    assert tuned() == f"graphc: {problems} of {problems} problems measured"
    assert tuned().startswith(f"graphc: nothing to measure: all {problems} problems")
    assert main(["tune", str(save(chooser(), tmp_path / "if.onnx"))]) == 0
    assert "no kernel of this model is a convolution or product" in capsys.readouterr().err


def test_export_saves_what_graphc_imports(capsys: pytest.CaptureFixture[str], tmp_path: Path, model: str) -> None:
    target = tmp_path / "saved.onnx"
    assert main(["export", model, str(target), "--shape", "x=2x8"]) == 0
    assert "nodes" in capsys.readouterr().out
    saved = onnx.load(target)
    onnx.checker.check_model(saved, full_check=True)
    assert [d.dim_value for d in saved.graph.input[0].type.tensor_type.shape.dim] == [2, 8]
    (tmp_path / "folder.onnx").mkdir()
    assert "is a folder" in fails(capsys, "export", model, str(tmp_path / "folder.onnx"))
    for wrong in ("saved.txt", "saved"):
        assert "ends in .onnx" in fails(capsys, "export", "none.onnx", str(tmp_path / wrong))
    assert "no folder" in fails(capsys, "export", model, str(tmp_path / "no" / "saved.onnx"))
