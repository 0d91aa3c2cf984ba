"""Whole models against onnxruntime: the 21 of the benchmarks, and what else a compiled model promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import convolutions, save

import graphc
from bench.compare import check
from bench.models import SHIPPED, TRAINED, Case, cases, default_folder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("weights", ["equal", "random"])
def test_shipped_topologies_agree(name: str, weights: str) -> None:
    (case,) = cases(only=[name])
    if weights == "random":
        case = case.with_random_weights()
    agreement, _, _ = check(case, threads=2)
    assert agreement, agreement.reason


@pytest.mark.zoo
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("threads", [1, 2])
def test_trained_models_agree(name: str, threads: int) -> None:
    if not (default_folder() / f"{name}.onnx").exists():
        pytest.skip("python -m bench.fetch brings the trained models")
    (case,) = cases(only=[name])
    agreement, _, _ = check(case, threads)
    assert agreement, agreement.reason


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model whose weights differ by two thousandths from what onnxruntime gets is told apart."""
    model = convolutions()
    right = save(model, tmp_path / "right.onnx")
    changed = np.frombuffer(model.graph.initializer[0].raw_data, np.float32) * np.float32(1.01)
    model.graph.initializer[0].raw_data = changed.tobytes()
    wrong = save(model, tmp_path / "wrong.onnx")
    feeds = {"x": np.random.default_rng(0).random((1, 3, 16, 16), np.float32)}
    monkeypatch.setattr(Case, "feeds", lambda self: feeds)
    assert check(Case("right", str(right), right), 1)[0]
    assert not check(Case("wrong", str(wrong), right), 1)[0]


_WARM = """
import json, sys
import numpy as np
import graphc
exe = graphc.compile(sys.argv[1], threads=2)
y = exe.run(None, {"x": np.ones((1, 3, 16, 16), np.float32)})[0]
print(json.dumps({"numba": "numba" in sys.modules, "y": y.tolist()}))
"""


@pytest.mark.parametrize("models", ["2048", "0"])
def test_a_warm_process_compiles_nothing_and_does_not_import_numba(tmp_path: Path, models: str) -> None:
    """Neither one that finds its model nor one that finds only kernels."""
    path = save(convolutions(), tmp_path / "m.onnx")
    environment = {**os.environ, "GRAPHC_CACHE": str(tmp_path / "cache"), "GRAPHC_CACHE_MODELS_MB": models}
    command = [sys.executable, "-P", "-c", _WARM, str(path)]
    cold, warm = (
        json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)
        for _ in range(2)
    )
    assert not warm["numba"]
    assert warm["y"] == cold["y"]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v1", "densenet121"])
def test_planned_memory_is_close_to_the_lower_bound(name: str) -> None:
    (case,) = cases(only=[name])
    exe = graphc.compile(case.model, threads=2)
    (plan,) = exe.specialisation(case.feeds()).plans
    assert plan.memory.lower_bound <= plan.memory.arena <= 1.05 * plan.memory.lower_bound


@pytest.mark.zoo
def test_silero_runs_without_python_between_kernels() -> None:
    """`If` on the sampling rate and an LSTM, in one native program: nothing on the host, one plan."""
    if not (default_folder() / "silero_vad_16k_op15.onnx").exists():
        pytest.skip("python -m bench.fetch brings the trained models")
    (case,) = cases(only=["silero_vad_16k_op15"])
    specialisation = graphc.compile(case.model, threads=1).specialisation(case.feeds())
    assert not [stage for stage in specialisation.parts.stages if stage.node is not None]
    assert len(specialisation.plans) == 1
