"""Derivatives of whole graphs: `vjp`, `jvp`, `grad`, `value_and_grad` and `hessian_vector_product` as Graph to Graph.

What to differentiate and with respect to what is said by name: of inputs, of outputs, or of values in between as the
text form numbers them (`"%7"`); a `Value` will do as well. By default it is the only output, and every floating point
input. The results are graphs over the same inputs, so transformations can be applied to transformations; where a name
such as `ct_NAME` is taken by an earlier one, a number tells them apart: `ct2_NAME`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from graphc import ops
from graphc.autodiff.prune import pruned, tidied
from graphc.autodiff.reverse import PROBE_LEVEL, active_nodes, carries_gradient, pullback
from graphc.errors import GradientError, NotConnectedError, NotDifferentiableError
from graphc.ir.graph import Graph, Node, Value, describe_location, input_value, remake, toposort
from graphc.ir.text import value_names
from graphc.ops.functions import full

__all__ = [
    "Names",
    "grad",
    "hessian_vector_product",
    "jvp",
    "not_linear",
    "pushforward",
    "value_and_grad",
    "vjp",
    "zeros_like",
]

#: one value or several, each by name or itself
Names: TypeAlias = "str | Value | Sequence[str | Value]"


def vjp(graph: Graph, wrt: Names | None = None, of: Names | None = None) -> Graph:
    """The vector-Jacobian product: cotangents of `wrt` from cotangents of `of` (default: all floating outputs).

    Inputs: those of `graph`, then a cotangent `ct_NAME` for every value of `of`. Outputs: those of `graph`, then
    `grad_NAME` for every value of `wrt`; zeros where nothing arrives.
    """
    chosen = _outputs(graph, of)
    sources = _sources(graph, wrt)
    cotangents = _new_inputs("ct", chosen, graph)
    found = pullback(list(chosen.values()), cotangents, list(sources.values()))
    results = [zeros_like(v) if g is None else g for g, v in zip(found, sources.values(), strict=True)]
    return tidied(
        Graph(
            (*graph.inputs, *cotangents),
            (*graph.outputs, *results),
            (*graph.output_names, *_new_names("grad", sources, graph.output_names)),
        )
    )


def jvp(graph: Graph, wrt: Names | None = None, of: Names | None = None) -> Graph:
    """The Jacobian-vector product: tangents of `of` from tangents of `wrt`.

    Inputs: those of `graph`, then a tangent `t_NAME` for every value of `wrt`. Outputs: those of `graph`, then
    `t_NAME` for every value of `of`; zeros where nothing arrives.
    """
    chosen = _outputs(graph, of)
    sources = _sources(graph, wrt)
    tangents = _new_inputs("t", sources, graph)
    found = pushforward(list(chosen.values()), list(sources.values()), tangents)
    results = [zeros_like(v) if t is None else t for t, v in zip(found, chosen.values(), strict=True)]
    return tidied(
        Graph(
            (*graph.inputs, *tangents),
            (*graph.outputs, *results),
            (*graph.output_names, *_new_names("t", chosen, graph.output_names)),
        )
    )


def pushforward(
    outputs: Sequence[Value], wrt: Sequence[Value], tangents: Sequence[Value | None]
) -> tuple[Value | None, ...]:
    """Forward mode: the tangents of `outputs` from those of `wrt`; None where none arrives.

    The pullback is linear in the cotangents u, and the derivative of that linear map is its transpose, the
    pushforward: so forward mode is reverse mode applied to reverse mode with respect to u. u itself drops out.
    (J. Townsend, "A new trick for calculating Jacobian vector products", 2017.)

    Raises GradientError when u does not drop out: then a gradient on the way is not linear in its cotangent.
    Out of loops it drops with the results that nobody reads (`graphc.autodiff.prune`).
    """
    level = max([PROBE_LEVEL, *(v.node.level + 1 for v in (*outputs, *tangents) if v is not None)])
    probes = [input_value(f"probe{k}", v.type, level=level) for k, v in enumerate(outputs)]
    pulled = pullback(outputs, [p if carries_gradient(p.type) else None for p in probes], wrt)
    pairs = [(g, t) for g, t in zip(pulled, tangents, strict=True) if g is not None and t is not None]
    found = pullback([g for g, _ in pairs], [t for _, t in pairs], probes)
    left = {k: t for k, t in enumerate(found) if t is not None and t.node.level == level}
    if left:
        results = dict(zip(left, pruned(list(left.values()), level), strict=True))
        found = tuple(results.get(k, t) for k, t in enumerate(found))
        if any(t.node.level == level for t in results.values()):
            raise GradientError(_why_not_linear(outputs, wrt, [t for t in results.values() if t.node.level == level]))
    return found


def value_and_grad(graph: Graph, wrt: Names | None = None, of: str | Value | None = None) -> Graph:
    """`graph` with the gradients of the scalar `of` with respect to `wrt` as further outputs, `grad_NAME`.

    Raises NotDifferentiableError when `of` is not a floating point scalar or a value of `wrt` not a floating point
    tensor, and NotConnectedError when a value of `wrt` does not influence `of`.
    """
    sources = _sources(graph, wrt)
    ((name, loss),) = _outputs(graph, of if of is not None else _only(graph)).items()
    if loss.rank:
        raise NotDifferentiableError(
            f"the gradient of {name!r} was asked for, which is {loss.type}: only a scalar has a gradient; reduce it to "
            "one (a sum, a mean), or use vjp or jvp"
        )
    found = pullback([loss], [full(1.0, (), loss.dtype)], list(sources.values()))
    for (label, v), g in zip(sources.items(), found, strict=True):
        if g is None:
            raise NotConnectedError(_why_not_connected(label, v, name, loss))
    grads = [g for g in found if g is not None]
    names = _new_names("grad", sources, graph.output_names)
    return tidied(Graph(graph.inputs, (*graph.outputs, *grads), (*graph.output_names, *names)))


def grad(graph: Graph, wrt: Names | None = None, of: str | Value | None = None) -> Graph:
    """The gradients of the scalar `of` with respect to `wrt`, called `grad_NAME`. See `value_and_grad`."""
    both = value_and_grad(graph, wrt, of)
    n = len(graph.outputs)
    return Graph(both.inputs, both.outputs[n:], both.output_names[n:])


def hessian_vector_product(graph: Graph, wrt: Names | None = None, of: str | Value | None = None) -> Graph:
    """The second derivative of the scalar `of` in a direction: d/de grad(x + e t), for `wrt` = x.

    Inputs: those of `graph`, then `t_NAME` for every value of `wrt`. Outputs: `hvp_NAME` for every value of `wrt`.
    """
    sources = _sources(graph, wrt)
    first = grad(graph, wrt, of)
    tangents = _new_inputs("t", sources, graph)
    found = pushforward(first.outputs, list(sources.values()), tangents)
    results = [zeros_like(v) if t is None else t for t, v in zip(found, sources.values(), strict=True)]
    return tidied(Graph((*graph.inputs, *tangents), results, [f"hvp_{name}" for name in sources]))


def zeros_like(v: Value) -> Value:
    """Zeros of a value's type; a broadcast, nothing is stored."""
    if not all(isinstance(d, int) for d in v.shape):
        # a size that only the run can tell comes from the value itself; no number is below itself, NaN and infinity too
        return ops.cast(ops.lt(v, v), dtype=v.dtype)
    return full(0.0, v.shape, v.dtype)


# ------------------------------------------------------------------------------------------------------ what is meant


def _only(graph: Graph) -> str:
    floats = [n for n, v in zip(graph.output_names, graph.outputs, strict=True) if carries_gradient(v.type)]
    if len(floats) != 1:
        raise GradientError(f"say what to differentiate: the graph has {len(floats)} floating point outputs, {floats}")
    return floats[0]


def _outputs(graph: Graph, of: Names | None) -> dict[str, Value]:
    if of is None:
        return {n: v for n, v in zip(graph.output_names, graph.outputs, strict=True) if carries_gradient(v.type)}
    return _named(graph, of, "differentiate", dict(zip(graph.output_names, graph.outputs, strict=True)))


def _sources(graph: Graph, wrt: Names | None) -> dict[str, Value]:
    inputs = dict(zip(graph.input_names, graph.inputs, strict=True))
    if wrt is None:
        return {n: v for n, v in inputs.items() if carries_gradient(v.type)}
    return _named(graph, wrt, "differentiate with respect to", inputs)


def _new_names(prefix: str, names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """`PREFIX_NAME`, or `PREFIX2_NAME` and so on where the graph has that name already: it may be a derivative itself."""
    used, result = set(taken), list[str]()
    for name in names:
        numbered = (f"{prefix}{k if k > 1 else ''}_{name}" for k in itertools.count(1))
        result.append(next(label for label in numbered if label not in used))
        used.add(result[-1])
    return result


def _new_inputs(prefix: str, values: Mapping[str, Value], graph: Graph) -> list[Value]:
    """An input of the type of each value."""
    names = _new_names(prefix, values, graph.input_names)
    return [input_value(name, v.type) for name, v in zip(names, values.values(), strict=True)]


def _named(graph: Graph, names: Names, purpose: str, first: dict[str, Value]) -> dict[str, Value]:
    """The values that are meant; a name is looked up in `first`, then among all of the graph."""
    result: dict[str, Value] = {}
    everything: dict[str, Value] = {}
    for k, name in enumerate([names] if isinstance(names, str | Value) else names):
        if isinstance(name, Value):
            label, v = f"value{k}", name
        else:
            if name not in first and not everything:
                everything = {n: v for v, n in value_names(graph).items()}
                everything |= dict(zip(graph.output_names, graph.outputs, strict=True))
                everything |= dict(zip(graph.input_names, graph.inputs, strict=True))
            v = first[name] if name in first else everything.get(name)  # type: ignore[assignment]
            label = name.removeprefix("%")
            if v is None:
                raise GradientError(
                    f"no value {name!r} to {purpose}: the inputs are {', '.join(graph.input_names)}, the outputs "
                    f"{', '.join(graph.output_names)}; print the graph to see the values between them"
                )
        if not carries_gradient(v.type):
            raise NotDifferentiableError(
                f"cannot {purpose} {label!r}: it is {v.type}, and only floating point tensors have derivatives"
            )
        result[label] = v
    return result


def _why_not_connected(label: str, v: Value, name: str, loss: Value) -> str:
    """What stands between a value and the loss: nothing, or operations that let no derivative through."""
    message = f"{name!r} does not depend on {label!r}"
    reached: set[Value] = {v}
    for node in toposort([loss]):
        if any(u in reached for u in node.inputs):
            reached.update(node.outputs)
            reason = node.op.no_gradient
            if not reason and not any(carries_gradient(u.type) for u in node.outputs):
                reason = f"it gives {node.types[0]}, and only floating point tensors have derivatives"
            if reason:
                where = f"{node.op.name}{describe_location(node)}: {reason}"
                message = f"no derivative leads from {name!r} to {label!r}; on the way stands {where}"
    return message


def _why_not_linear(outputs: Sequence[Value], wrt: Sequence[Value], found: Sequence[Value]) -> str:
    """Which operation's gradient is to blame, or where the probe stays when none is by itself."""
    node = not_linear(outputs, wrt)
    if node is not None:
        rule = (
            "its rule (see custom_vjp)" if node.op.name == "custom_vjp" else "the rule in its entry (OpSpec.gradient)"
        )
        return (
            f"forward mode needs gradients that are linear in the cotangent g: that of {node.op.name}"
            f"{describe_location(node)} is not linear in it; {rule} may only scale, move and add g"
        )
    level = found[0].node.level
    node = next(n for n in toposort(found, level) if n.op.name != "input")
    return (
        "forward mode needs gradients that are linear in the cotangent: the cotangent stays an operand of "
        f"{node.op.name}{describe_location(node)}"
    )


def not_linear(outputs: Sequence[Value], wrt: Sequence[Value]) -> Node | None:
    """The first node on the way, also in bodies, whose gradient alone is not linear in the cotangent."""
    for node in active_nodes(outputs, wrt):
        inner = node.bodies if node.op.name != "custom_vjp" else ()
        for body in inner:
            if found := not_linear(body.outputs, [v for v in body.inputs if carries_gradient(v.type)]):
                return found
        if not inner and not _is_linear(node):
            return node
    return None


def _is_linear(node: Node) -> bool:
    operands = [v if v.literal is not None else input_value(f"operand{k}", v.type) for k, v in enumerate(node.inputs)]
    alike = remake(node, tuple(operands))
    probes = [input_value(f"probe{k}", v.type, level=PROBE_LEVEL) for k, v in enumerate(alike)]
    moving = [v for v in operands if v.literal is None and carries_gradient(v.type)]
    pulled = [
        g for g in pullback(alike, [p if carries_gradient(p.type) else None for p in probes], moving) if g is not None
    ]
    tangents = [input_value(f"tangent{k}", g.type) for k, g in enumerate(pulled)]
    found = [t for t in pullback(pulled, tangents, probes) if t is not None]
    return all(t.node.level < PROBE_LEVEL for t in pruned(found, PROBE_LEVEL))
