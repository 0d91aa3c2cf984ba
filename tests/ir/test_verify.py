"""The verifier names the node and the place."""

from __future__ import annotations

import pytest

from graphc import ops
from graphc.errors import VerifyError
from graphc.ir.graph import Graph, Node, Value, input_value, location
from graphc.ir.types import tensor
from graphc.ir.verify import verify

x = input_value("x", tensor("float32", 2, 3))
y = input_value("y", tensor("float32", 2, 3))


def test_a_good_graph_passes() -> None:
    verify(Graph([x, y], [ops.add(x, y), x]))


def test_an_input_that_is_not_declared() -> None:
    with location("layer1"):
        z = ops.add(x, y)
    with pytest.raises(VerifyError, match=r"add \(at layer1\) reads 'y': float32\[2, 3\], which is not among"):
        verify(Graph([x], [z]))


def test_names_are_unique() -> None:
    other = input_value("x", tensor("float32", 5))
    with pytest.raises(VerifyError, match="two inputs are called 'x'"):
        verify(Graph([x, other], [x]))
    with pytest.raises(VerifyError, match="two outputs are called 'a'"):
        verify(Graph([x], [x, x], ["a", "a"]))


def test_an_input_that_is_computed() -> None:
    with pytest.raises(VerifyError, match="result of neg"):
        verify(Graph([ops.neg(x)], [x]))


def test_output_names_agree_in_number() -> None:
    with pytest.raises(VerifyError, match="1 outputs but 2 output names"):
        verify(Graph([x], [x], ["a", "b"]))


def test_a_wrong_type_is_found_by_inferring_again() -> None:
    wrong = Node(ops.neg, (x,), {}, (tensor("float32", 7),))
    with pytest.raises(VerifyError, match=r"neg: recorded as float32\[7\], inferred as float32\[2, 3\]"):
        verify(Graph([x], [Value(wrong, 0)]), "graph after a bad pass")
    mixed = Node(ops.add, (x, input_value("z", tensor("int64", 2, 3))), {}, (x.type,))
    with pytest.raises(VerifyError, match="inference refuses it"):
        verify(Graph([x, mixed.inputs[1]], [Value(mixed, 0)]))
