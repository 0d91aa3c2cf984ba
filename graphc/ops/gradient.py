"""How the gradient of an operation is written down: a rule an operand, next to the operation's other facts.

A rule maps the cotangent g of the result (the derivative of some scalar with respect to it, of its type) to the
cotangent of one operand, by ordinary operations:

    tanh = unary("tanh", ..., gradient=by_operand(lambda g, x, y: mul(g, sub(1.0, mul(y, y)))))

Rules must be linear in g. That is all that is needed for derivatives of any order and for forward mode, which is the
reverse mode of the reverse mode (see `graphc.autodiff.forward`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.graph import Node, Value
from graphc.ops.spec import Gradient

__all__ = ["Rule", "by_operand", "zero"]

#: rule(g, *operands, result, **attributes) -> the operand's cotangent
Rule = Callable[..., Value | None]


def by_operand(*rules: Rule | None) -> Gradient:
    """The gradient of an operation with one result from a rule for each operand; None for one that has no cotangent."""

    def gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
        (g,) = cotangents
        return [
            rule(g, *node.inputs, node.outputs[0], **node.attrs) if rule is not None and want else None
            for rule, want in zip(rules, wanted, strict=True)
        ]

    return gradient


def zero(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
    """The gradient of what is constant almost everywhere; the entry's `no_gradient` says why it is."""
    return [None] * len(node.inputs)
