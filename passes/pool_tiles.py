"""Maximum pooling happens inside of minimal filtering, whose tiles of pixels are in registers at once.

The pixels before the pooling are never in memory, and whatever follows is computed for the largest alone: `maxima_first`
has moved bias and activation behind it.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node, Value, location
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, located, rule

__all__ = ["POOLING_RULES", "pool_tiles"]


def pool_tiles(graph: Graph) -> Graph:
    """The graph of blocked images with maximum pooling inside of the filterings whose tiles hold whole windows."""
    return rewrite(graph, POOLING_RULES)


def _behind_a_filtering(node: Node, uses: Uses) -> str | None:
    image, a = node.inputs[0], node.attrs
    conv = image.node
    if conv.op.name != "conv_winograd":
        return f"the operand is a {conv.op.name}, not a minimal filtering"
    if "pool" in conv.attrs or a["combine"] != "maximum":
        return "the filtering pools already, or this is no maximum"
    if uses(image) != 1:
        return "the pixels before the pooling have another reader"
    if a["axes"] != (2, 3) or any(d != 1 for d in a["dilation"]) or any(map(any, a["padding"])):
        return "the windows are padded or dilated, or not of pixels"
    if a["window"] != a["strides"]:
        return "the windows overlap, or leave pixels out"
    if any(m % p for m, p in zip(conv.attrs["tile"], a["window"], strict=True)):
        return f"windows {a['window']} do not fill tiles of {conv.attrs['tile']} pixels"
    return None


@rule("reduce_window", check=_behind_a_filtering)
def pool_filtered(node: Node) -> Value:
    """max(conv(x, w)) over windows side by side, inside of each tile"""
    conv = node.inputs[0].node
    with location(*located(conv, node)):
        result: Value = conv.op(*conv.inputs, **conv.attrs, pool=node.attrs["window"])
    return result


POOLING_RULES: tuple[Rule, ...] = (pool_filtered,)
