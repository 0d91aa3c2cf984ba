"""The fusion: a group of operations that become one kernel, as one node.

Its body is an ordinary closed graph, so everything that works on graphs works on it: the verifier, the text form, the
interpreter. The fusion pass makes fusions; nothing that reads graphs needs to know why a group was formed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from graphc.errors import GraphTypeError
from graphc.ir.graph import Graph, Value, input_value, location, location_of, remake
from graphc.ir.types import Type, tensor
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register

__all__ = ["body_of", "fusion"]


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
        kind=Kind.CONTROL,
        summary="The operations of `body` as one kernel; the operands are the body's inputs, the results its outputs.",
        infer=_fusion_type,
        reference=_fusion_reference,
        body_types=lambda operands, *, body: (tuple(operands),),
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
