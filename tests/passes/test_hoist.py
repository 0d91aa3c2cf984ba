"""What does not change from turn to turn is computed before the loop."""

from __future__ import annotations

from collections.abc import Callable

from graphc import ops
from graphc.ir.graph import Graph, input_value
from graphc.ir.types import tensor
from graphc.ir.verify import verify
from graphc.passes.hoist import hoist


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes if n.op.name != "input"]


def looped(reverse: bool = False) -> Graph:
    """h <- tanh(h exp(a b)') + x: the exponential of the captures is the same in every turn, its transpose is a view."""
    h, x, a, b = (
        input_value(n, tensor("float32", *s)) for n, s in zip("hxab", [(2, 4), (2, 4), (4, 3), (3, 4)], strict=True)
    )
    weight = ops.transpose(ops.exp(ops.dot(a, b)), perm=(1, 0))
    new = ops.add(ops.tanh(ops.dot(h, weight)), x)
    body = Graph([h, x, a, b], [new, ops.mul(new, 2.0)])
    start, rows = input_value("start", tensor("float32", 2, 4)), input_value("rows", tensor("float32", 5, 2, 4))
    return Graph([start, rows, a, b], ops.scan(start, rows, a, b, body=body, carries=1, scanned=1, reverse=reverse))


def test_work_on_captures_moves_before_the_loop(agree: Callable[..., None]) -> None:
    graph = looped()
    after = hoist(graph)
    verify(after)
    assert names(after) == ["dot", "exp", "scan"]
    (loop,) = (n for n in after.nodes if n.op.name == "scan")
    assert len(loop.inputs) == 5, "only the end of the computation is handed in"
    assert names(loop.attrs["body"]).count("dot") == 1
    assert "transpose" in names(loop.attrs["body"]), "views stay"
    agree(graph, after)
    assert hoist(after) is after


def test_what_changes_stays() -> None:
    h, x, w = (input_value(n, tensor("float32", 2, 2)) for n in "hxw")
    body = Graph([h, x, w], [ops.add(ops.dot(h, w), ops.dot(x, w))])
    rows = input_value("rows", tensor("float32", 5, 2, 2))
    graph = Graph([h, rows, w], [ops.scan(h, rows, w, body=body, carries=1, scanned=1)])
    assert hoist(graph) is graph


def test_out_of_inner_loops_all_the_way(agree: Callable[..., None]) -> None:
    h, w = (input_value(n, tensor("float32", 2, 2)) for n in "hw")
    inner = Graph([h, w], [ops.dot(h, ops.exp(w))])
    turn = Graph([h, w], [ops.scan(h, w, body=inner, carries=1, scanned=0, length=2)])
    graph = Graph([h, w], [ops.scan(h, w, body=turn, carries=1, scanned=0, length=3)])
    after = hoist(graph)
    verify(after)
    assert names(after) == ["exp", "scan"]
    agree(graph, after)
