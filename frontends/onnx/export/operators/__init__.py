"""The exporters, a family of operations a file. Importing this registers all of them."""

from graphc.frontends.onnx.export.operators import (  # noqa: F401
    contraction,
    control,
    elementwise,
    host,
    movement,
    reduction,
    sequence,
)
