"""Two loops over the same steps become one: what the joined loop returns."""

from __future__ import annotations

from graphc import ops
from graphc.autodiff.merge import returning
from graphc.ir.graph import Graph, constant, input_value, make
from graphc.ir.types import tensor


def test_types_that_inference_does_not_agree_with_are_not_insisted_on() -> None:
    x, go, stop = input_value("x", tensor("float32", 3)), input_value("go", tensor("bool")), constant(True)
    i = input_value("i", tensor("int64"))
    body = Graph([i, go, x], [stop, ops.neg(x)])
    (found,) = make(ops.loop, constant(4), stop, x, body=body, carries=1)
    wrong = (tensor("int64", 7),)
    assert [v.type for v in returning(found.node, found.node.inputs, body, wrong)] == [x.type]
    assert [v.type for v in returning(found.node, found.node.inputs, body, (x.type,))] == [x.type]
