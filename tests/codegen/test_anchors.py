"""Operations with lowerings of their own (places, running totals, sorting, windows) against their references."""

from __future__ import annotations

import numpy as np
import pytest
from nests import run_launches
from test_nodes import assert_agree

from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, input_value, make
from graphc.ir.interpret import run_node as interpret_node
from graphc.ir.types import TensorType
from graphc.kernels.build import build
from graphc.ops import REGISTRY

NAMES = (
    "argmax",
    "argmin",
    "window_argmax",
    "scatter_elements",
    "scatter_nd",
    "cumsum",
    "cumprod",
    "sort",
    "top_k",
    "reduce_window",
    "attention",
)
CASES = [(name, k) for name in NAMES for k, _ in enumerate(REGISTRY[name].samples())]


@pytest.mark.parametrize(("name", "k"), CASES, ids=str)
def test_sample(name: str, k: int) -> None:
    sample = list(REGISTRY[name].samples())[k]
    arrays = [np.asarray(a) for a in sample.operands]
    inputs = [input_value(f"x{i}", TensorType(dtype_of(a), a.shape)) for i, a in enumerate(arrays)]
    outputs = make(REGISTRY[name], *inputs, **sample.attrs)
    expected = interpret_node(outputs[0].node, tuple(arrays), {})
    for threads in (1, 2):
        got = run_launches(build(Graph(inputs, outputs), threads), arrays, outputs)
        for g, e in zip(got, expected, strict=True):
            assert_agree(g, np.asarray(e))
