"""What stands next to a convolution becomes part of it, once its algorithm and the form of its weights are known.

**A scale for every channel of the image moves into the weights.** Behind a squeeze and excitation every channel is
multiplied by a number that the run computes. Applied to the image that is one more way through its memory; the weights
that read those channels are mostly far fewer numbers, and the convolution itself stays as it is. (Constant scales were
folded with batch normalisation. Weights by minimal filtering or for Strassen's algorithm hold sums over channels, which a
scale cannot enter.)

**Maximum pooling happens inside of minimal filtering**, whose tiles of pixels are in registers at once: the pixels before
it are never in memory, and whatever follows is computed for the largest alone. `pooling` has moved bias and activation
behind it.
"""

from __future__ import annotations

import math

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, location
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, located, rule
from graphc.passes.match import is_constant

__all__ = ["CONV_NEIGHBOUR_RULES", "absorb_neighbours"]

#: the image must have at least this many times the elements of the packed weights: these may come from memory, the image
#: comes from a cache
IMAGE_OVER_WEIGHTS = 2


def absorb_neighbours(graph: Graph) -> Graph:
    """The graph of blocked images and packed weights with scales and pooling inside of convolutions."""
    return rewrite(graph, CONV_NEIGHBOUR_RULES)


# --- scales of channels ---------------------------------------------------------------------------------------------


def _scale(image: Value) -> tuple[Value, Value] | None:
    """An image [N, blocks, H, W, lanes] as a product: what is scaled, and the numbers [blocks, 1, 1, lanes] it is
    scaled by (where blocks or lanes have the same, 1)."""
    if image.node.op.name != "mul":
        return None
    for scaled, factor in (image.node.inputs, image.node.inputs[::-1]):
        source = factor.node.inputs[0] if factor.node.op.name == "broadcast_to" else factor
        n, blocks, *pixel, lanes = (1,) * (image.rank - source.rank) + source.shape
        if (n, *pixel) == (1, 1, 1):
            return scaled, ops.reshape(source, shape=(blocks, 1, 1, lanes))
    return None


def _scaling_weights_pays(node: Node, uses: Uses) -> str | None:
    image, packed = node.inputs
    found = _scale(image)
    if found is None:
        return "the image is not scaled by one number a channel, the same for all images"
    scaled, _ = found
    if not is_constant(packed) or packed.dtype != image.dtype:
        return "the weights are not constant, or rounded"
    if packed.shape[0] != 1:
        return "the convolution has groups"
    if uses(image) != 1:
        return "the scaled image has another reader"
    if uses(scaled) == 1:
        return "what computes the image can scale it"
    if math.prod(image.shape) < IMAGE_OVER_WEIGHTS * math.prod(packed.shape):
        return f"the image has fewer than {IMAGE_OVER_WEIGHTS} times the elements of the weights"
    return None


@rule("conv_blocked", check=_scaling_weights_pays)
def scale_weights(node: Node) -> Value:
    """conv(x * scale, w) = conv(x, w * scale), the weights as [1, panels, blocks, KH, KW, lanes, columns]"""
    image, packed = node.inputs
    found = _scale(image)
    assert found is not None
    scaled, scale = found
    with location(*located(image.node, node)):
        steps = ops.reshape(scale, shape=(*scale.shape, 1))  # as the packed weights have them
        weights = ops.mul(packed, ops.broadcast_to(steps, shape=packed.shape))
        result: Value = node.op(scaled, weights, **node.attrs)
    return result


# --- pooling --------------------------------------------------------------------------------------------------------


def _tiles_hold_the_windows(node: Node, uses: Uses) -> str | None:
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


@rule("reduce_window", check=_tiles_hold_the_windows)
def pool_tiles(node: Node) -> Value:
    """max(conv(x, w)) over windows side by side, inside of each tile"""
    conv = node.inputs[0].node
    with location(*located(conv, node)):
        result: Value = conv.op(*conv.inputs, **conv.attrs, pool=node.attrs["window"])
    return result


CONV_NEIGHBOUR_RULES: tuple[Rule, ...] = (scale_weights, pool_tiles)
