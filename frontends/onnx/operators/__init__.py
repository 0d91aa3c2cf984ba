"""The importers, a file a family; importing this package registers all of them."""

from graphc.frontends.onnx.operators import (
    activation,
    control,
    convolution,
    elementwise,
    generate,
    indexing,
    linear,
    movement,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    sequence,
    text,
)

__all__ = [
    "activation",
    "control",
    "convolution",
    "elementwise",
    "generate",
    "indexing",
    "linear",
    "movement",
    "normalization",
    "pooling",
    "quantization",
    "recurrent",
    "reduction",
    "resize",
    "sequence",
    "text",
]  # fmt: skip
