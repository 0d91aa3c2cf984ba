"""The importers, a file a family; importing this package registers all of them."""

from graphc.frontends.onnx.operators import (  # noqa: F401
    activation,
    control,
    convolution,
    elementwise,
    generate,
    indexing,
    linear,
    ml,
    movement,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resize,
    sequence,
    signal,
    text,
    training,
    vision,
)
