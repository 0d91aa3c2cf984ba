"""The fusion: a group of operations that become one kernel, as one node.

Its body is an ordinary closed graph, so everything that works on graphs works on it: the verifier, the text form, the
interpreter. The fusion pass makes fusions; nothing that reads graphs needs to know why a group was formed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphc.errors import GraphTypeError
from graphc.ir.graph import Graph, Node, Value, input_value, location, location_of, remake
from graphc.ir.types import Type, tensor
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["anchor_of", "body_of", "fusion", "split_fusion", "template_of"]


def _fusion_type(*operands: Type, body: Graph) -> tuple[Type, ...]:
    expect(
        len(operands) == len(body.inputs), f"fusion: {len(operands)} operands for a body with {len(body.inputs)} inputs"
    )
    for k, (given, wanted) in enumerate(zip(operands, (v.type for v in body.inputs), strict=True)):
        if given != wanted:
            raise GraphTypeError(f"fusion: operand {k} is {given}, the body takes {wanted}")
    return tuple(v.type for v in body.outputs)


def _fusion_reference(*operands: np.ndarray, body: Graph) -> tuple[np.ndarray, ...]:
    from graphc.ir.interpret import run

    return run(body, *operands)


def _samples() -> Iterable[Sample]:
    from graphc.ops.elementwise import add, exp

    x, y = (input_value(name, tensor("float32", 2, 3)) for name in ("p0", "p1"))
    operands = (np.arange(6, dtype=np.float32).reshape(2, 3) / 6, np.ones((2, 3), np.float32))
    yield Sample(operands, {"body": Graph([x, y], [exp(add(x, y))])})
    yield Sample(operands, {"body": Graph([x, y], [add(x, y), exp(y)])})


fusion = register(
    OpSpec(
        name="fusion",
        kind=Kind.FUSION,
        summary="The operations of `body` as one kernel; the operands are the body's inputs, the results its outputs.",
        infer=_fusion_type,
        reference=_fusion_reference,
        body_types=lambda operands, *, body: (tuple(operands),),
        made_by_passes=True,
        no_gradient="fusions are made after differentiation",
        samples=_samples,
    )
)


def body_of(operands: Sequence[Value], results: Sequence[Value]) -> Graph:
    """Everything between `operands` and `results` as a closed graph.

    Its inputs are called p0, p1, ..., so that equal groups have equal bodies and share one kernel.
    """
    new: dict[Value, Value] = {v: input_value(f"p{k}", v.type) for k, v in enumerate(operands)}
    inputs = tuple(new.values())
    stack = [(v.node, False) for v in reversed(results) if v not in new]
    while stack:
        node, inputs_done = stack.pop()
        if node.outputs[0] in new:
            continue
        if inputs_done:
            with location(*location_of(node)):
                new.update(zip(node.outputs, remake(node, tuple(new[v] for v in node.inputs)), strict=True))
        else:
            stack.append((node, True))
            stack += [(v.node, False) for v in reversed(node.inputs) if v not in new]
    return Graph(inputs, [new[v] for v in results])


def anchor_of(node: Node) -> Node | None:
    """The anchor that a node computes: itself, or the one in a fusion's body (there is at most one); None when there is none."""
    candidates: Iterable[Node] = node.attrs["body"].nodes if node.op.kind is Kind.FUSION else (node,)
    return next((n for n in candidates if n.op.kind is Kind.ANCHOR), None)


def template_of(node: Node) -> str | None:
    """The kernel template of an anchor, or of the anchor in a fusion; None for what becomes a loop nest."""
    anchor = anchor_of(node)
    return anchor.op.template if anchor is not None else None


def split_fusion(node: Node) -> tuple[Node, Graph]:
    """The anchor in a fusion, and the rest of its body with the anchor's results as its first inputs."""
    body: Graph = node.attrs["body"]
    anchor = anchor_of(node)
    assert anchor is not None
    results = [input_value(f"anchor{k}", t) for k, t in enumerate(anchor.types)]
    new: dict[Value, Value] = dict(zip(anchor.outputs, results, strict=True)) | {v: v for v in body.inputs}
    for n in body.nodes:
        if n is not anchor and n.op.name != "input":
            new.update(zip(n.outputs, remake(n, tuple(new[v] for v in n.inputs)), strict=True))
    return anchor, Graph((*results, *body.inputs), [new[v] for v in body.outputs], body.output_names)
