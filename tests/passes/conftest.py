"""What the tests of passes share: checking that a pass keeps the meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from graphc.ir.graph import Graph
from graphc.ir.interpret import run
from graphc.ir.trace import trace
from graphc.ir.verify import verify

Agree = Callable[..., None]


def random_inputs(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """An array for each input, of static shapes: small numbers, positive and negative."""
    rng = np.random.default_rng(seed)
    arrays = []
    for v in graph.inputs:
        shape, dtype = v.tensor.static_shape, v.dtype
        if dtype.is_float:
            arrays.append(rng.uniform(-2, 2, shape).astype(dtype.numpy))
        elif dtype.kind == "bool":
            arrays.append(rng.integers(0, 2, shape).astype(bool))
        else:
            arrays.append(rng.integers(0 if dtype.kind == "uint" else -3, 4, shape).astype(dtype.numpy))
    return arrays


@pytest.fixture
def refuses() -> Callable[[Callable[[Graph], Graph], Graph, str], None]:
    """`refuses(transform, graph, why)`: the pass leaves the graph as it is and says why."""

    def check(transform: Callable[[Graph], Graph], graph: Graph, why: str) -> None:
        with trace(explain=True) as t:
            assert transform(graph) is graph
        assert why in str(t)

    return check


@pytest.fixture
def agree() -> Agree:
    """`agree(before, after)`: both graphs verify and give the same results, and inputs stay as they were."""

    def check(
        before: Graph, after: Graph, inputs: Sequence[Any] | None = None, rtol: float = 1e-5, atol: float = 1e-5
    ) -> None:
        verify(after)
        assert after.input_names == before.input_names
        assert after.output_names == before.output_names
        arrays = list(inputs) if inputs is not None else random_inputs(before)
        kept = [np.array(a) for a in arrays]
        with np.errstate(all="ignore"):
            wanted, found = run(before, *arrays), run(after, *arrays)
        for a, b in zip(kept, arrays, strict=True):
            np.testing.assert_array_equal(a, b, "an input was written to")
        for name, w, f in zip(before.output_names, wanted, found, strict=True):
            assert (w.dtype, w.shape) == (f.dtype, f.shape), name
            scale = np.abs(w[np.isfinite(w)]).max(initial=1.0) if w.dtype.kind == "f" and w.size else 1.0
            np.testing.assert_allclose(f, w, rtol, atol * scale, err_msg=name)

    return check
