"""Mixed precision: contractions multiply bfloat16 numbers and sum in float32; everything else stays float32.

A convolution or matrix product of float32 becomes one of operands rounded to bfloat16 and widened again, which is exact:

    dot(a, b)  ->  dot(cast(cast(a, bfloat16), float32), cast(cast(b, bfloat16), float32))

So the graph says what the result is, in operations there are anyway. Layout recognises such operands and takes a kernel
that reads bfloat16; the casts of constant weights fold, and the cast of an activation joins the kernel that computes it,
which then stores half the bytes.

Only what is summed over many products gains: the kernels of depthwise convolutions stay as they are.
"""

from __future__ import annotations

from graphc import ops
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Uses, rule

__all__ = ["MIXED_PRECISION_RULES", "PARTS_RULES", "multiply_bfloat16", "round_parts", "rounded_from"]

BFLOAT16, FLOAT32 = dtype_of("bfloat16"), dtype_of("float32")


def multiply_bfloat16(graph: Graph) -> Graph:
    """The graph with the operands of its float32 contractions rounded to bfloat16."""
    return rewrite(graph, MIXED_PRECISION_RULES)


def round_parts(graph: Graph) -> Graph:
    """The graph with what is rounded behind a concatenation rounded before: by the kernels that compute the parts, in
    their places. Layout comes between, and asks for what was rounded."""
    return rewrite(graph, PARTS_RULES)


def rounded_from(v: Value) -> Value | None:
    """The bfloat16 numbers that a float32 value holds, when a cast says that it holds such."""
    if v.dtype == FLOAT32 and v.node.op.name == "cast" and v.node.inputs[0].dtype == BFLOAT16:
        return v.node.inputs[0]
    return None


def _multiplies_float32(node: Node, uses: Uses) -> str | None:
    x, w = node.inputs
    if node.outputs[0].dtype != FLOAT32:
        return f"the element type is {node.outputs[0].dtype}"
    if node.op.name == "conv" and w.shape[1] == 1:
        return "it does not sum over channels"
    return "its operands are rounded" if rounded_from(x) and rounded_from(w) else None


@rule("conv", "dot", check=_multiplies_float32)
def rounded_operands(node: Node) -> Value:
    """contraction of float32 = contraction of operands rounded to bfloat16"""
    rounded = [ops.cast(_narrowed(v), dtype=FLOAT32) for v in node.inputs]
    result: Value = node.op(*rounded, **node.attrs)
    return result


def _narrowed(v: Value) -> Value:
    """A value as bfloat16; what repeats is rounded once."""
    repeated: list[Node] = []
    while (narrow := rounded_from(v)) is None and v.node.op.name == "broadcast_to":
        repeated.append(v.node)
        v = v.node.inputs[0]
    result: Value = ops.cast(v, dtype=BFLOAT16) if narrow is None else narrow
    for node in reversed(repeated):
        result = ops.broadcast_to(result, **node.attrs)
    return result


def _rounds_a_concatenation(node: Node, uses: Uses) -> str | None:
    x = node.inputs[0]
    if (x.dtype, node.outputs[0].dtype) != (FLOAT32, BFLOAT16):
        return f"it is a cast from {x.dtype} to {node.outputs[0].dtype}"
    return None if x.node.op.name == "concat" else "its operand is not a concatenation"


@rule("cast", check=_rounds_a_concatenation)
def rounded_parts(node: Node) -> Value:
    """concatenation rounded = concatenation of rounded parts"""
    concat = node.inputs[0].node
    result: Value = ops.concat(*[ops.cast(v, **node.attrs) for v in concat.inputs], **concat.attrs)
    return result


MIXED_PRECISION_RULES = (rounded_operands,)
PARTS_RULES = (rounded_parts,)
