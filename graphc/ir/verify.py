"""The verifier: a graph keeps every invariant of the IR, or `verify` says which node breaks which.

Construction infers types already, so that a pass cannot break most of them. The verifier infers everything again and
compares, which catches an operation whose inference is not a function of its operands, a body that is not closed, and a
graph put together by hand.
"""

from __future__ import annotations

from typing import NoReturn
from weakref import WeakSet

from graphc.errors import GraphcError, VerifyError
from graphc.ir.graph import Graph, Node, describe_location
from graphc.ir.types import fresh_renames

__all__ = ["verify"]

# Nodes are immutable: what was found right once stays right, and the next pass pays only for its own new nodes.
_verified: WeakSet[Node] = WeakSet()


def verify(graph: Graph, what: str = "graph") -> None:
    """Raise VerifyError when `graph`, or a body in it, breaks an invariant; `what` names the graph in the message.

    Checked: inputs are input nodes with unique names; every input that is read is declared; outputs and their names
    agree in number, names are unique; the recorded types are what inference gives; bodies are closed and take the
    types that their operation passes them.
    """
    pending = [(graph, what)]
    while pending:
        g, name = pending.pop()
        _verify_signature(g, name)
        for node in g.nodes:
            if node not in _verified:
                _verify_node(node, name)
                _verified.add(node)
            if node.bodies:
                pending += [(body, f"{name}, body of {node.op.name}{describe_location(node)}") for body in node.bodies]


def _fail(message: str, what: str) -> NoReturn:
    raise VerifyError(f"{what}: {message}")


def _verify_signature(graph: Graph, what: str) -> None:
    for v in graph.inputs:
        if v.node.op.name != "input":
            _fail(f"an input of the graph is the result of {v.node.op.name}, not an input node", what)
    for kind, names in (("input", graph.input_names), ("output", graph.output_names)):
        twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
        if twice:
            _fail(f"two {kind}s are called {twice[0]!r}", what)
    if len(graph.outputs) != len(graph.output_names):
        _fail(f"{len(graph.outputs)} outputs but {len(graph.output_names)} output names", what)
    declared = set(graph.inputs)
    for node in graph.nodes:
        if node.op.name == "input" and node.outputs[0] not in declared:
            name, t = node.attrs["name"], node.types[0]
            readers = {u.op.name + describe_location(u) for u in graph.users.get(node.outputs[0], ())}
            _fail(
                f"{', '.join(sorted(readers)) or 'an output'} reads {name!r}: {t}, "
                "which is not among the graph's inputs",
                what,
            )


def _verify_node(node: Node, what: str) -> None:
    place = f"{node.op.name}{describe_location(node)}"
    for i, v in enumerate(node.inputs):
        if not 0 <= v.index < len(v.node.types):
            _fail(f"{place}: operand {i} is result {v.index} of {v.node.op.name}, which has {len(v.node.types)}", what)
    operands = [v.type for v in node.inputs]
    try:
        found = node.op.infer(*operands, **node.attrs)
    except (GraphcError, TypeError) as e:
        _fail(f"{place}: type inference refuses it: {e}", what)
    inferred = found if type(found) is tuple else (found,)
    if fresh_renames(node.types, inferred, operands) is None:
        _fail(
            f"{place}: recorded as {', '.join(map(str, node.types))}, inferred as {', '.join(map(str, inferred))}", what
        )
    if node.op.body_types is not None and node.bodies:
        wanted = node.op.body_types(tuple(operands), **node.attrs)
        for body, types in zip(node.bodies, wanted, strict=True):
            given = tuple(v.type for v in body.inputs)
            if given != tuple(types):
                _fail(
                    f"{place}: a body takes ({', '.join(map(str, given))}) "
                    f"but is passed ({', '.join(map(str, types))})",
                    what,
                )
