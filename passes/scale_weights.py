"""A scale that the run computes for every channel of an image moves into the weights of the convolution that reads it.

Behind a squeeze and excitation every channel is multiplied by a number. Applied to the image that is one more way through
its memory; the weights that read those channels are mostly far fewer numbers, and the convolution itself stays as it is.
So this comes when convolutions have their algorithms: weights by minimal filtering or for Strassen's algorithm hold sums
over channels, which a scale cannot enter. (Constant scales were folded with batch normalisation.)
"""

from __future__ import annotations

import math

from graphc import ops
from graphc.ir.graph import Graph, Node, Value, location
from graphc.ir.rewrite import rewrite
from graphc.ir.rules import Rule, Uses, located, rule
from graphc.passes.match import is_constant

__all__ = ["SCALE_RULES", "scale_weights"]

#: the image must have at least this many times the elements of the packed weights: these may come from memory, the image
#: comes from a cache
IMAGE_OVER_WEIGHTS = 2


def scale_weights(graph: Graph) -> Graph:
    """The graph of blocked images and packed weights with scales of channels in the weights, where those are smaller."""
    return rewrite(graph, SCALE_RULES)


def _image_and_scale(product: Value) -> tuple[Value, Value] | None:
    """An image [N, blocks, H, W, lanes] as a product: what is scaled, and the numbers [blocks, 1, 1, lanes] it is scaled
    by."""
    if product.node.op.name != "mul":
        return None
    for image, factor in (product.node.inputs, product.node.inputs[::-1]):
        source = factor.node.inputs[0] if factor.node.op.name == "broadcast_to" else factor
        n, blocks, *pixel, lanes = (1,) * (product.rank - source.rank) + source.shape
        if (n, *pixel) == (1, 1, 1) and (blocks, lanes) == (product.shape[1], product.shape[4]):
            return image, ops.reshape(source, shape=(blocks, 1, 1, lanes))
    return None


def _image_is_scaled(node: Node, uses: Uses) -> str | None:
    product, packed = node.inputs
    found = _image_and_scale(product)
    if found is None:
        return "the image is not scaled by one number a channel, the same for all images"
    image, scale = found
    if is_constant(scale):
        return "the scale is constant, and folds with batch normalisation"
    if not is_constant(packed) or packed.dtype != image.dtype:
        return "the weights are not constant, or rounded"
    if packed.shape[0] != 1:
        return "the convolution has groups"
    if uses(product) != 1:
        return "the scaled image has another reader"
    if uses(image) == 1:
        return "what computes the image can scale it"
    if math.prod(image.shape) < IMAGE_OVER_WEIGHTS * math.prod(packed.shape):
        return f"the image has fewer than {IMAGE_OVER_WEIGHTS} times the elements of the weights"
    return None


@rule("conv_blocked", check=_image_is_scaled)
def scale_packed(node: Node) -> Value:
    """conv(x * scale, w) = conv(x, w * scale), the weights as [1, panels, blocks, KH, KW, lanes, columns]"""
    product, packed = node.inputs
    found = _image_and_scale(product)
    assert found is not None
    image, scale = found
    with location(*located(product.node, node)):
        steps = ops.reshape(scale, shape=(*scale.shape, 1))  # as the packed weights have them
        weights = ops.mul(packed, ops.broadcast_to(steps, shape=packed.shape))
        result: Value = node.op(image, weights, **node.attrs)
    return result


SCALE_RULES: tuple[Rule, ...] = (scale_packed,)
