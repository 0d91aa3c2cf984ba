"""A value that a reduction has seen and its later use are the same number, whatever the compiler fuses."""

import numpy as np
import pytest

import graphc
from graphc import ops
from graphc.ir.graph import Graph, input_value
from graphc.ir.types import tensor
from graphc.ops import functions


@pytest.mark.parametrize("magnitude", [1.0, 1e6, 1.7728462e12, 1e30])
def test_softmax_of_scaled_equal_scores_is_uniform(magnitude: float) -> None:
    x = input_value("x", tensor("float32", 3, 1000))
    scale = input_value("scale", tensor("float32", 1000))
    graph = Graph([x, scale], [functions.softmax(ops.mul(x, scale), axis=1)], ["y"])
    exe = graphc.compile(graph, threads=1)
    y = exe(np.full((3, 1000), magnitude, np.float32), np.full(1000, 1 / 169, np.float32))
    np.testing.assert_allclose(y, np.full((3, 1000), 1e-3, np.float32), rtol=1e-6)
