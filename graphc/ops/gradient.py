"""How the gradient of an operation is written down: a rule an operand, next to the operation's other facts.

A rule maps the cotangent g of the result (the derivative of some scalar with respect to it, of its type) to the
cotangent of one operand, by ordinary operations:

    tanh = unary("tanh", ..., gradient=by_operand(lambda g, x, y: mul(g, sub(1.0, mul(y, y)))))

Rules must be linear in g. That is all that is needed for derivatives of any order and for forward mode, which is the
reverse mode of the reverse mode (see `graphc.autodiff.transforms.pushforward`).

Where an operation has a kink or a tie, its rule chooses what JAX and torch choose; docs/gradients.md lists the choices.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from graphc import ops
from graphc.ir.dims import DimLike, product
from graphc.ir.graph import Node, Value, constant
from graphc.ops.spec import Gradient

__all__ = ["Rule", "by_operand", "flip", "put", "restore", "spread", "zero", "zeros"]

#: rule(g, *operands, result, **attributes) -> the operand's cotangent
Rule = Callable[..., Value | None]


def by_operand(*rules: Rule | None) -> Gradient:
    """The gradient of an operation with one result from a rule for each operand; None for one that has no cotangent."""

    def gradient(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
        (g,) = cotangents
        return [
            _applied(rule, k, g, node) if rule is not None and want else None
            for k, (rule, want) in enumerate(zip(rules, wanted, strict=True))
        ]

    return gradient


def _applied(rule: Rule, k: int, g: Value | None, node: Node) -> Value | None:
    """The rule's cotangent of operand k. Raises TypeError, naming the operation, for a rule that cannot be so called."""
    given = (g, *node.inputs, node.outputs[0])
    try:
        return rule(*given, **node.attrs)
    except TypeError as error:
        try:
            inspect.signature(rule).bind(*given, **node.attrs)
        except TypeError as misfit:
            names = ", ".join(["g", *(f"operand {n}" for n in range(len(node.inputs))), "result", *node.attrs])
            raise TypeError(
                f"{node.op.name}: the gradient rule of operand {k} takes {inspect.signature(rule)}, it is called with "
                f"({names}): {misfit}"
            ) from error
        error.add_note(f"in the gradient rule of operand {k} of {node.op.name}")
        raise


def zero(node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]) -> Sequence[Value | None]:
    """The gradient of what is constant almost everywhere; the entry's `no_gradient` says why it is."""
    return [None] * len(node.inputs)


# ------------------------------------------------------------------------- what the rules of several operations need


def zeros(shape: Sequence[DimLike], like: Value) -> Value:
    """Zeros of a shape, of the element type of `like`; a broadcast, nothing is stored."""
    return ops.broadcast_to(constant(np.zeros((), like.dtype.numpy), like.dtype), shape=tuple(shape))


def restore(reduced: Value, x: Value, axes: Sequence[int]) -> Value:
    """What a reduction of `x` over `axes` gave, repeated to the shape of `x`: the transpose of a sum."""
    kept = ops.reshape(reduced, shape=tuple(1 if k in axes else d for k, d in enumerate(x.shape)))
    return ops.broadcast_to(kept, shape=x.shape)


def put(g: Value, shape: Sequence[DimLike], indices: Value, axis: int) -> Value:
    """Zeros of a shape with the slices of `g` added at `indices` along `axis`: the transpose of gather.

    `g` has the axes of `indices` in the place of `axis`. A slice that is chosen several times gets the sum.
    """
    if axis == 0:
        coordinates = ops.reshape(indices, shape=(*indices.shape, 1))
        return ops.scatter_nd(zeros(shape, g), coordinates, g, reduction="add")
    before, after = tuple(shape[:axis]), tuple(shape[axis + 1 :])
    count = product(indices.shape)
    line = ops.reshape(indices, shape=(*(1 for _ in before), count, *(1 for _ in after)))
    flat = (*before, count, *after)
    places, updates = ops.broadcast_to(line, shape=flat), ops.reshape(g, shape=flat)
    return ops.scatter_elements(zeros(shape, g), places, updates, axis=axis, reduction="add")


def flip(x: Value, axes: Sequence[int]) -> Value:
    """`x` backwards along `axes`."""
    return ops.slice(
        x,
        starts=tuple(d - 1 if k in axes else 0 for k, d in enumerate(x.shape)),
        stops=tuple(-1 if k in axes else d for k, d in enumerate(x.shape)),
        steps=tuple(-1 if k in axes else 1 for k in range(x.rank)),
    )


def spread(x: Value, steps: Sequence[int]) -> Value:
    """`x` with steps[k] - 1 zeros after each of its elements along axis k."""
    if all(step == 1 for step in steps):
        return x
    apart = ops.reshape(x, shape=tuple(n for d in x.shape for n in (d, 1)))
    padded = ops.pad(
        apart,
        np.zeros((), x.dtype.numpy),
        low=(0,) * (2 * x.rank),
        high=tuple(n for step in steps for n in (0, step - 1)),
    )
    return ops.reshape(padded, shape=tuple(d * step for d, step in zip(x.shape, steps, strict=True)))
