"""The rewriting engine and the pass manager."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphc import ops
from graphc.errors import PassError, VerifyError
from graphc.ir.dims import Dim
from graphc.ir.graph import Graph, Node, Value, constant, input_value, location, location_of
from graphc.ir.manager import Dump, Pass, PassManager, Timer, verify_between
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, located, rule
from graphc.ir.trace import trace
from graphc.ir.types import tensor

x = input_value("x", tensor("float32", 4))
y = input_value("y", tensor("float32", 4))


def double_negation_missing(node: Node, uses: Uses) -> str | None:
    return None if node.inputs[0].node.op.name == "neg" else "the operand is not negated"


@rule("neg", check=double_negation_missing)
def double_negation(node: Node) -> Value:
    """neg(neg(x)) = x"""
    return node.inputs[0].node.inputs[0]


def always(node: Node, uses: Uses) -> str | None:
    return None


def test_rules_apply_until_none_does() -> None:
    v = x
    for _ in range(7):
        v = ops.neg(v)
    assert rewrite(Graph([x], [v]), [double_negation]).outputs == (ops.neg(x),)


def test_an_unchanged_graph_is_the_same_object() -> None:
    g = Graph([x, y], [ops.add(ops.neg(x), y)])
    assert rewrite(g, [double_negation]) is g


def test_a_deep_graph_does_not_recurse() -> None:
    v = x
    for k in range(20_000):
        v = ops.neg(v) if k % 3 else ops.exp(v)
    out = rewrite(Graph([x], [v]), [double_negation])
    assert len(out.nodes) < 20_000 / 3 + 3


def test_what_a_rewrite_makes_is_rewritten_too() -> None:
    @rule("sub", check=always)
    def sub_to_add(node: Node) -> Value:
        return ops.add(node.inputs[0], ops.neg(node.inputs[1]))

    g = Graph([x, y], [ops.sub(x, ops.neg(y))])
    with trace() as t:
        assert rewrite(g, [sub_to_add, double_negation]).outputs == (ops.add(x, y),)
    assert t.counts == {"sub_to_add": 1, "double_negation": 1}


def test_a_changed_type_is_refused() -> None:
    @rule("exp", check=always)
    def bad(node: Node) -> Value:
        return ops.cast(node.inputs[0], dtype=ops.cast.name and tensor("float64").dtype)

    with pytest.raises(PassError, match=r"rule bad changed the type of exp \(at here\)"), location("here"):
        rewrite(Graph([x], [ops.exp(x)]), [bad])


def test_rules_that_undo_each_other_are_caught() -> None:
    def swap(name: str, root: str, to: object) -> Rule:
        return Rule(name, (root,), always, lambda node: to(*node.inputs))  # type: ignore[operator]

    with pytest.raises(PassError, match=r"circles at .*; last rules: there, back"):
        rewrite(Graph([x], [ops.sinh(x)]), [swap("there", "sinh", ops.cosh), swap("back", "cosh", ops.sinh)])


def test_fuel_runs_out() -> None:
    @rule("sin", check=always)
    def grow(node: Node) -> Value:
        return ops.sin(ops.neg(node.inputs[0]))

    with pytest.raises(PassError, match=r"does not come to an end: 50 applications; lately grow"):
        rewrite(Graph([x], [ops.sin(x)]), [grow], fuel=50)


def test_locations_follow_the_rewriting() -> None:
    with location("a"):
        v = ops.sqrt(x)
    with location("b"):
        w = ops.cos(v)

    @rule("cos", check=always)
    def merge(node: Node) -> Value:
        with location(*located(node.inputs[0].node, node)):
            return ops.tan(node.inputs[0].node.inputs[0])

    out = rewrite(Graph([x], [w]), [merge]).outputs[0].node
    assert location_of(out) == ("a", "b")


def test_uses_follow_the_rewriting() -> None:
    seen: list[int] = []

    def look(node: Node, uses: Uses) -> str | None:
        seen.append(uses(node.inputs[0]))
        return "only looking"

    looker = Rule("looker", ("atan",), look, lambda node: node.outputs)
    v = ops.asinh(x)
    through = ops.neg(ops.neg(v))  # goes away: its reader reads v instead
    rewrite(Graph([x], [ops.atan(through)]), [double_negation, looker])
    rewrite(Graph([x], [ops.atan(through), v]), [double_negation, looker])
    rewrite(Graph([x], [ops.atan(through), ops.exp(v)]), [double_negation, looker])
    assert seen == [1, 2, 2]


def test_refusals_say_why() -> None:
    with trace(explain=True) as t, location("n1"):
        rewrite(Graph([x], [ops.neg(ops.tanh(x))]), [double_negation])
    assert str(t) == "double_negation not at neg (n1): the operand is not negated"


def test_the_manager_runs_hooks_in_order(tmp_path: Path) -> None:
    g = Graph([x], [ops.neg(ops.neg(x))])
    timer, seen = Timer(), []
    clean = Pass("clean", lambda graph: rewrite(graph, [double_negation]))
    nothing = Pass("nothing", lambda graph: graph, requires=("clean",))
    manager = PassManager(
        [clean, nothing], [verify_between, timer, Dump(tmp_path), lambda p, a, b, s: seen.append((p.name, a is b))]
    )
    out = manager.run(g)
    assert out.outputs == (x,)
    assert seen == [("clean", False), ("nothing", True)]
    assert timer.changed == {"clean": True, "nothing": False}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00_start.txt", "01_clean.txt"]


def test_the_manager_names_the_pass_that_broke_the_graph() -> None:
    def unbind(graph: Graph) -> Graph:
        return graph.with_outputs([ops.add(v, y) for v in graph.outputs])

    with pytest.raises(VerifyError, match="after pass 'unbind'") as e:
        PassManager([Pass("unbind", unbind)], [verify_between]).run(Graph([x], [ops.exp(x)]))
    assert e.value.__notes__ == ["in pass 'unbind'"]


def test_the_order_of_passes_is_checked() -> None:
    def keep(graph: Graph) -> Graph:
        return graph

    first, second = Pass("first", keep), Pass("second", keep, requires=("first",))
    PassManager([first, second])
    PassManager([second])
    with pytest.raises(PassError, match="'second' needs 'first'"):
        PassManager([second, first])


def test_a_pass_keeps_the_signature() -> None:
    with pytest.raises(PassError, match="changed the signature"):
        PassManager([Pass("rename", lambda g: Graph(g.inputs, g.outputs, ["other"]))]).run(Graph([x], [x]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: ops.reshape(v, shape=(2, 2)), r"output 'y' from float32\[4\] to float32\[2, 2\]; rank and element"),
        (lambda v: ops.cast(v, dtype=tensor("int32").dtype), r"output 'y' from float32\[4\] to int32\[4\]"),
    ],
    ids=["rank", "element type"],
)
def test_a_pass_keeps_ranks_and_element_types(change: Callable[[Value], Value], message: str) -> None:
    with pytest.raises(PassError, match=message):
        PassManager([Pass("change", lambda g: g.with_outputs([change(g.outputs[0])]))]).run(Graph([x], [x], ["y"]))


def test_a_pass_may_learn_extents() -> None:
    open_, known = (input_value("x", tensor("float32", d)) for d in (Dim("n"), 4))
    learn = Pass("learn", lambda g: Graph([known], [ops.exp(known)]))
    assert PassManager([learn]).run(Graph([open_], [ops.exp(open_)])).inputs == (known,)


def test_a_pass_that_changes_an_input_is_named() -> None:
    other = input_value("x", tensor("float64", 4))
    with pytest.raises(PassError, match="the input 'x' from float32") as e:
        PassManager([Pass("widen", lambda g: Graph([other], [x]))]).run(Graph([x], [x]))
    assert e.value.__notes__ == ["in pass 'widen'"]


def test_constants_that_a_rewrite_makes_are_evaluated_at_once() -> None:
    @rule("sub", check=always)
    def sub_to_add(node: Node) -> Value:
        return ops.add(node.inputs[0], ops.neg(node.inputs[1]))

    def evaluate(node: Node) -> tuple[Value, ...] | None:
        data = node.inputs[0].literal
        return None if data is None or node.op.name != "neg" else (constant(-data),)

    c = np.arange(4, dtype=np.float32)
    out = rewrite(Graph([x], [ops.sub(x, constant(c))]), [sub_to_add], evaluate=evaluate)
    assert out.outputs == (ops.add(x, constant(-c)),)


def test_nodes_at_which_nothing_can_happen_are_not_looked_at() -> None:
    looked: list[str] = []

    def look(node: Node, uses: Uses) -> str | None:
        looked.append(node.op.name)
        return "only looking"

    v = ops.exp(ops.sin(ops.cos(x)))
    graph = Graph([x], [v])
    assert rewrite(graph, [Rule("looker", ("sin",), look, lambda node: node.outputs)]) is graph
    assert looked == ["sin"]


def test_readers_are_counted_only_when_a_rule_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Graph] = []
    count = Uses._up_to_date

    def counting(self: Uses) -> dict[Value, int]:
        counted.append(self._graph)
        return count(self)

    monkeypatch.setattr(Uses, "_up_to_date", counting)
    graph = Graph([x], [ops.atan(ops.neg(ops.neg(x)))])
    rewrite(graph, [double_negation])
    assert not counted
    rewrite(
        graph, [double_negation, Rule("looker", ("atan",), lambda n, uses: str(uses(n.inputs[0])), lambda n: n.outputs)]
    )
    assert counted == [graph]


def test_the_collector_waits_while_passes_run() -> None:
    seen: list[bool] = []

    def look(graph: Graph) -> Graph:
        seen.append(gc.isenabled())
        if len(seen) == 2:
            raise PassError("on purpose")
        return graph

    manager = PassManager([Pass("look", look)])
    manager.run(Graph([x], [x]))
    assert gc.isenabled()
    with pytest.raises(PassError):
        manager.run(Graph([x], [x]))
    assert gc.isenabled(), "after an error too"
    gc.disable()
    try:
        manager.run(Graph([x], [x]))
        assert not gc.isenabled(), "who turned it off wants it off"
    finally:
        gc.enable()
    assert seen == [False, False, False]


def test_a_graph_that_nobody_holds_is_gone_without_a_collection() -> None:
    gc.disable()
    try:
        v = ops.sinh(ops.neg(ops.neg(input_value("gone", tensor("float32", 3)))))
        ghost = weakref.ref(v.node)
        after = rewrite(Graph([], [v]), [double_negation])
        del v, after
        assert ghost() is None
    finally:
        gc.enable()
