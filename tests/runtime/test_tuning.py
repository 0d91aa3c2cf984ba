"""Measured choices: which are measured, how they are kept, and that compilations use them and still agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graphc import ops
from graphc.ir.graph import Graph, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.kernels.choice import ALGORITHMS, Asked, Choice, asking, key_of, using
from graphc.kernels.lower_contraction import ContractionKernel
from graphc.kernels.lower_winograd import WinogradKernel
from graphc.kernels.machine import host_machine
from graphc.kernels.problems import ConvProblem, GemmProblem
from graphc.options import Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime import measured, tuning
from graphc.runtime.assemble import CompiledGraph
from graphc.runtime.measured import kept
from graphc.runtime.planned import planned
from graphc.runtime.tuning import Tuner, candidates, graph_of

OPTIONS = Options.of(threads=1)
LANES = host_machine().isa.lanes(4)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own for choices; kernels stay where they are compiled already."""
    monkeypatch.setattr(measured, "default_directory", lambda: tmp_path)
    return tmp_path


def network() -> Graph:
    rng = np.random.default_rng(0)
    x = input_value("x", tensor("float32", 1, 32, 12, 12))
    w = constant(rng.standard_normal((32, 32, 3, 3)).astype(np.float32) / 17)
    y = ops.relu(ops.conv(x, w, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1))
    rows = ops.reshape(y, shape=(32, 144))
    return Graph([x], [ops.dot(rows, constant(rng.standard_normal((144, 40)).astype(np.float32) / 12))])


def kernels(graph: Graph) -> list[object]:
    program = planned(optimise(prepare(graph, OPTIONS), OPTIONS), OPTIONS).program
    return [k.kernel for k in program.launches if isinstance(k.kernel, ContractionKernel | WinogradKernel)]


def test_a_compilation_asks_about_its_convolutions_and_products() -> None:
    with asking() as questions:
        kernels(network())
    names = sorted(k.split(",")[0] for k, n in questions.lowered.items() if n)
    assert names == ["conv 32x12x12 to 32 by 3x3", "product 32x144 by 144x40"]
    assert all(k in questions.asked for k in questions.lowered)


def test_choices_are_used_and_results_agree() -> None:
    graph = network()
    x = np.random.default_rng(1).standard_normal((1, 32, 12, 12)).astype(np.float32)
    (expected,) = run(graph, x)
    with asking() as questions:
        kernels(graph)
    conv, product = sorted(k for k, n in questions.lowered.items() if n)
    for chosen in (Choice(3, 2), Choice(5, 1, (2, 4)), Choice(4, 2, (6, 6))):
        with using({conv: chosen, product: Choice(5, 1)}):
            first, second = kernels(graph)
            if chosen.tile is None:
                assert isinstance(first, ContractionKernel)
                assert (first.variant.rows, first.variant.vectors) == (3, 2)
            else:
                assert isinstance(first, WinogradKernel)
                assert first.variant.tile == chosen.tile
                assert (first.variant.product.rows, first.variant.product.vectors) == (chosen.rows, chosen.vectors)
            assert isinstance(second, ContractionKernel)
            assert (second.variant.rows, second.variant.vectors) == (5, 1)
            (got,) = CompiledGraph(optimise(prepare(graph, OPTIONS), OPTIONS), OPTIONS).run([x])
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_choice_that_does_not_apply_is_passed_over() -> None:
    strict = Options.of(threads=1, precision="strict")
    graph = network()
    with asking() as questions:
        kernels(graph)
    conv, _ = sorted(k for k, n in questions.lowered.items() if n)
    with using({conv: Choice(4, 2, (4, 4))}):
        program = planned(optimise(prepare(graph, strict), strict), strict).program
    assert not any(isinstance(k.kernel, WinogradKernel) for k in program.launches)


def test_a_first_layer_is_measured_as_it_is_computed() -> None:
    """By minimal filtering over the phases of its image."""
    x = input_value("x", tensor("float32", 1, 3, 64, 64))
    w = constant(np.random.default_rng(2).standard_normal((32, 3, 7, 7)).astype(np.float32))
    y = ops.conv(x, w, strides=(2, 2), padding=((3, 3), (3, 3)), dilation=(1, 1), groups=1)
    with asking() as questions:
        (kernel,) = kernels(Graph([x], [y]))
    assert isinstance(kernel, WinogradKernel)
    (key,) = [k for k, n in questions.lowered.items() if n]
    assert candidates(questions.asked[key])[0].tile == kernel.variant.tile


PROBLEMS = [
    GemmProblem(37, 50, 20),
    GemmProblem(7, 33, 16, batch=3, shared=False),
    ConvProblem(2, 2 * LANES, 24, 9, 7, (3, 3), pads=(1, 1, 1, 1), block=LANES),
    ConvProblem(1, 2 * LANES, 2 * LANES, 9, 9, (3, 3), stride=(2, 2), groups=2, block=LANES),
    ConvProblem(1, 8 * LANES, 8 * LANES, 28, 28, (3, 3), stride=(2, 2), pads=(1, 1, 1, 1), block=LANES),
    ConvProblem(2, 5, 24, 3, 2, (1, 1), groups=3, block=LANES, picked=True),
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: key_of(p, host_machine(), 1))
def test_candidates_begin_with_the_estimate_and_all_run(problem: ConvProblem | GemmProblem) -> None:
    asked = Asked(problem, host_machine(), 1, ALGORITHMS, 10**6)
    found = candidates(asked)
    assert len(set(found)) == len(found) <= tuning.CANDIDATES
    key = key_of(problem, host_machine(), 1)
    for chosen in {found[0], found[-1], *(c for c in found[:8] if c.tile is not None)}:
        with using({key: chosen}):
            graph = graph_of(asked, chosen)
            (kernel,) = [k.kernel for k in planned(graph, OPTIONS).program.launches]
        if isinstance(problem, ConvProblem):
            assert graph.outputs[0].shape[2:4] == problem.output
        variant = kernel.variant  # type: ignore[attr-defined]
        assert (getattr(variant, "product", variant).rows, getattr(variant, "tile", None)) == (chosen.rows, chosen.tile)


def test_what_is_better_is_kept_and_not_measured_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([5.0, 1.0] + [7.0] * 100)
    monkeypatch.setattr(tuning, "_seconds", lambda compiled: next(seconds))
    monkeypatch.setattr(tuning, "CANDIDATES", 3)
    tuner = Tuner(OPTIONS)
    tuner.run(lambda: kernels(network()), 1000)
    first, second = tuner.findings
    assert (first.estimated, first.best, first.kernels) == (5.0, 1.0, 1)
    assert second.choice is None, "the estimate was as good as the others"
    assert kept()[first.key] == first.choice
    again = Tuner(OPTIONS)
    again.run(lambda: kernels(network()), 1000)
    assert again.findings == []
    assert [p.name for p in folder.iterdir()] == [measured._file().name]  # type: ignore[union-attr]
    with using(None):
        used = [getattr(k.variant, "product", k.variant).rows for k in kernels(network())]  # type: ignore[attr-defined]
    assert first.choice is not None
    assert first.choice.rows in used


def test_the_budget_ends_it_and_what_was_not_finished_is_not_kept() -> None:
    tuner = Tuner(OPTIONS)
    tuner.run(lambda: kernels(network()), 0)
    assert tuner.findings == []
    assert kept() == {}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 99, "choices": {}}', '{"format": 1, "choices": {"conv": {"rows": "a", "vectors": 2}}}',
     '{"format": 1, "choices": {"conv": {"rows": 1000, "vectors": 2}}}', '{"format": 1, "choices": {"conv": [4, 2]}}', '{"format": 1, "choices": 3}'],
)  # fmt: skip
def test_a_file_that_is_not_sound_counts_as_absent(text: str) -> None:
    path = measured._file()
    assert path is not None
    path.write_text(text)
    assert kept() == {}


def test_choices_of_several_runs_add_up(folder: Path) -> None:
    measured.keep({"a": Choice(1, 2)})
    measured.keep({"b": Choice(3, 4, (2, 2))})
    assert kept() == {"a": Choice(1, 2), "b": Choice(3, 4, (2, 2))}
    (path,) = folder.iterdir()
    assert set(json.loads(path.read_text())) == {"format", "choices"}


def test_without_a_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "default_directory", lambda: None)
    measured.keep({"a": Choice(1, 2)})
    assert kept() == {}
