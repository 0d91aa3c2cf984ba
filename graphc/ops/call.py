"""Functions kept whole: `call`, a body as one node, and `custom_vjp`, a body with a gradient of its own.

They matter to differentiation only. The first thing that a compilation does is to put their bodies in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import NotDifferentiableError
from graphc.ir.graph import Graph, Node, Value, describe_location, inline, input_value
from graphc.ir.interpret import run
from graphc.ir.types import Type, tensor
from graphc.ops.control import by_walk, check_body, passed
from graphc.ops.elementwise import add, mul, sin
from graphc.ops.gradient import zeros
from graphc.ops.spec import Kind, OpSpec, Sample, expect, register
from graphc.ops.typing import fits, outside

__all__ = ["call", "custom_vjp"]

# ---------------------------------------------------------------------------------------------------------- call


def _call_type(*operands: Type, body: Graph, remat: bool = False) -> tuple[Type, ...]:
    check_body("call", body, operands)
    return tuple(outside(v.type, operands) for v in body.outputs)


def _call_samples() -> Iterable[Sample]:
    x, y = (input_value(n, tensor("float32", 3)) for n in "xy")
    operands = np.array([1, 2, 3], np.float32), np.array([0.5, -1, 2], np.float32)
    for remat in (False, True):
        yield Sample(operands, {"body": Graph([x, y], [mul(sin(x), y), add(x, y)]), "remat": remat})


call = register(
    OpSpec(
        name="call",
        kind=Kind.CONTROL,
        summary=(
            "The results of `body` on the operands. With `remat` its gradient computes the body's values again instead "
            "of keeping them."
        ),
        infer=_call_type,
        reference=lambda *operands, body, remat=False: run(body, *operands),
        body_types=lambda types, *, body, remat=False: (passed(body, types),),
        gradient=by_walk("call"),
        samples=_call_samples,
    )
)

# ---------------------------------------------------------------------------------------------------- custom_vjp


def _custom_type(*operands: Type, body: Graph, forward: Graph, backward: Graph, arguments: int) -> tuple[Type, ...]:
    check_body("custom_vjp", body, operands)
    check_body("custom_vjp, forward", forward, operands)
    expect(0 <= arguments <= len(operands), f"custom_vjp: {arguments} arguments among {len(operands)} operands")
    results = len(body.outputs)
    expect(
        len(forward.outputs) >= results and all(map(_alike, forward.outputs, body.outputs)),
        f"custom_vjp: forward gives {_types(forward.outputs)}; it must begin with the results {_types(body.outputs)}",
    )
    residuals = [v.type for v in forward.outputs[results:]]
    check_body("custom_vjp, backward", backward, (*residuals, *(v.type for v in body.outputs)))
    expect(
        len(backward.outputs) == arguments
        and all(fits(v.type, t) for v, t in zip(backward.outputs, operands, strict=False)),
        f"custom_vjp: backward gives {_types(backward.outputs)}; the {arguments} arguments are "
        f"({', '.join(map(str, operands[:arguments]))})",
    )
    return tuple(outside(v.type, operands) for v in body.outputs)


def _alike(a: Value, b: Value) -> bool:
    return a.type == b.type


def _types(values: Sequence[Value]) -> str:
    return f"({', '.join(str(v.type) for v in values)})"


def _custom_bodies(
    types: Sequence[Type], *, body: Graph, forward: Graph, backward: Graph, **_: Any
) -> tuple[tuple[Type, ...], ...]:
    # in the order of the attributes: backward, body, forward
    residuals = [v.type for v in forward.outputs[len(body.outputs) :]]
    given = (*residuals, *(v.type for v in body.outputs))
    return passed(backward, given), passed(body, types), passed(forward, types)


def _custom_gradient(
    node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]
) -> Sequence[Value | None]:
    attrs = node.attrs
    arguments: int = attrs["arguments"]
    for k in range(arguments, len(wanted)):
        if wanted[k]:
            raise NotDifferentiableError(
                f"custom_vjp: operand {k} ({node.inputs[k].type}) is read from around the function, whose own gradient "
                f"says nothing about it; hand it over as an argument{describe_location(node)}"
            )
    ahead = inline(attrs["forward"], node.inputs)
    residuals = ahead[len(node.outputs) :]
    given = [zeros(v.shape, v) if g is None else g for g, v in zip(cotangents, node.outputs, strict=True)]
    found = inline(attrs["backward"], (*residuals, *given))
    return [g if want else None for g, want in zip((*found, *node.inputs[arguments:]), wanted, strict=True)]


def _custom_samples() -> Iterable[Sample]:
    x, r, g = (input_value(n, tensor("float32", 3)) for n in ("x", "r", "g"))
    attrs = {
        "body": Graph([x], [sin(x)]),
        "forward": Graph([x], [sin(x), x]),
        "backward": Graph([r, g], [mul(mul(g, r), 2.0)]),
        "arguments": 1,
    }
    yield Sample((np.array([1, 2, 3], np.float32),), attrs)


custom_vjp = register(
    OpSpec(
        name="custom_vjp",
        kind=Kind.CONTROL,
        summary=(
            "The results of `body` on the operands. Differentiated, `forward` computes results and residuals, and "
            "`backward` maps residuals and cotangents of the results to the cotangents of the first `arguments` "
            "operands; the others are what the function reads from around it."
        ),
        infer=_custom_type,
        reference=lambda *operands, body, **_: run(body, *operands),
        body_types=_custom_bodies,
        gradient=_custom_gradient,
        samples=_custom_samples,
    )
)
