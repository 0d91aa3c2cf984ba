"""Every operation by name, `ops.add(x, y)`, and the REGISTRY that lists them; the families stand in the modules here.

Compositions of operations (softmax, layer normalisation, ...) are plain functions in `graphc.ops.functions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# importing a family registers its operations
from graphc.ops import (  # noqa: F401
    attention,
    barrier,
    call,
    control,
    convolution,
    elementwise,
    frames,
    fusion,
    host,
    injective,
    layout,
    leaf,
    linalg,
    picked,
    random,
    recurrence,
    recurrent,
    reduce,
    scatter,
    sequences,
    sorting,
    strassen,
    winograd,
)  # fmt: skip
from graphc.ops.spec import REGISTRY, Kind, Layout, OpSpec, Sample, expect, has_kernel, register

globals().update(REGISTRY)

__all__ = ["REGISTRY", "Kind", "Layout", "OpSpec", "Sample", "expect", "has_kernel", "register"]

if TYPE_CHECKING:
    __getattr__: Any
