"""The operations' gradients: held against finite differences over every sample, and against conventions at kinks."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from cases import operands_of, results_of, type_of

from graphc.autodiff.reverse import carries_gradient
from graphc.ir.graph import Graph, input_value, make
from graphc.ops import REGISTRY, Kind, OpSpec
from graphc.ops.gradient import zero
from graphc.testing import check_grad

# -------------------------------------------------------------------------------------------------- every operation


@pytest.mark.parametrize("name", REGISTRY)
def test_every_operation_has_a_gradient_or_says_why_not(name: str) -> None:
    spec = REGISTRY[name]
    if spec.kind in (Kind.LEAF, Kind.CONTROL):
        return
    if spec.gradient is zero:
        assert spec.no_gradient, f"{name} is constant almost everywhere: say why"
    else:
        has_one = spec.gradient is not None or spec.decompose is not None
        assert has_one != bool(spec.no_gradient), f"{name} needs a gradient or a reason, not both"


def is_float(array: Any) -> bool:
    return isinstance(array, np.ndarray) and carries_gradient(type_of(array))


def _smooth_points(operands: list[Any], rng: np.random.Generator) -> Iterable[list[Any]]:
    """Random points near a sample's operands, in float64, without ties and away from 0 and whole numbers; then, for what is
    not defined there, positive ones, and ones above 1."""

    def near(x: np.ndarray, k: int, low: float) -> np.ndarray:
        inner = (0.85 - 0.17 * k) * np.clip(x.astype(np.float64), -4, 4)
        moved = inner + np.copysign(rng.uniform(0.07, 0.14, x.shape), inner + rng.uniform(-1e-3, 1e-3, x.shape))
        return moved if low < 0 else low + np.abs(moved)

    for low in (-1.0, 0.2, 1.2):
        yield [near(o, k, low) if is_float(o) else o for k, o in enumerate(operands)]


def _differentiable_samples() -> list[Any]:
    found = []
    for name, spec in REGISTRY.items():
        if spec.kind is Kind.LEAF or spec.gradient is None or name == "stop_gradient":
            continue
        seen = set()
        for k, sample in enumerate(spec.samples()):
            operands = operands_of(sample)
            floats = [o for o in operands if is_float(o)]
            if not floats or not all(np.all(np.isfinite(o)) for o in floats):
                continue
            if not any(np.size(r) and is_float(r) for r in results_of(spec, sample)) or not any(o.size for o in floats):
                continue
            # once widened, the samples that differ in their element type alone are one
            key = repr(([(np.shape(o), is_float(o) or o.tobytes()) for o in operands], sample.attrs))
            if key not in seen:
                seen.add(key)
                found.append(pytest.param(spec, operands, sample.attrs, id=f"{name}-{k}"))
    return found


@pytest.mark.parametrize(("spec", "operands", "attrs"), _differentiable_samples())
def test_gradients_agree_with_finite_differences(spec: OpSpec, operands: list[Any], attrs: dict[str, Any]) -> None:
    rng = np.random.default_rng(zlib.crc32(spec.name.encode()))
    assert spec.reference is not None
    for point in _smooth_points(operands, rng):
        inputs = [input_value(f"x{k}", type_of(o)) for k, o in enumerate(point)]
        graph = Graph(inputs, make(spec, *inputs, **attrs))
        with np.errstate(all="ignore"):
            results = spec.reference(*point, **attrs)
        results = results if isinstance(results, tuple) else (results,)
        if all(np.all(np.isfinite(r)) for r in results if is_float(np.asarray(r))):
            check_grad(graph, *point, order=2)
            return
    pytest.fail("no sample point lies where the operation is defined")
