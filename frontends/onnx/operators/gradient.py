"""Gradient of ai.onnx.preview.training: reverse mode over what was imported before the node."""

from __future__ import annotations

from graphc.autodiff.reverse import carries_gradient, pullback
from graphc.autodiff.transforms import zeros_like
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.operators._common import full
from graphc.frontends.onnx.registry import importer
from graphc.ir.graph import Graph, Value, inline
from graphc.ops.fusion import body_of

__all__: list[str] = []


@importer("Gradient", 1, domain="ai.onnx.preview.training")
def convert_gradient(c: Context, *at: Value) -> list[Value]:
    """The derivatives of `y` (of its sum, where it is no scalar) with respect to each of `xs`.

    `y` as a function of `xs` and `zs` is the graph between their names; the operands are the values at which it is
    taken, usually those very tensors.
    """
    xs, zs, name = c.strings("xs"), c.strings("zs", ()), c.string("y")
    if len(at) != len(xs) + len(zs):
        c.invalid(f"it has {len(at)} operands for {len(xs)} names in xs and {len(zs)} in zs")
    variables, y = [c.named(n) for n in (*xs, *zs)], c.named(name)
    for n, v in zip((name, *xs), (y, *variables), strict=False):
        if not carries_gradient(v.type):
            c.invalid(f"{n!r} is {v.type}; only floating point tensors have derivatives")
    sources = variables[: len(xs)]
    found = pullback([y], [full(1.0, y.dtype, y.shape)], sources)
    results = [zeros_like(v) if g is None else g for v, g in zip(sources, found, strict=True)]
    if list(at) == variables:
        return results
    for n, v, given in zip((*xs, *zs), variables, at, strict=True):
        if v.type != given.type:
            c.invalid(f"the operand for {n!r} is {given.type}; {n!r} itself is {v.type}")
    between: Graph = body_of(variables, results)
    return list(inline(between, at))
