"""Every operation by name, `ops.add(x, y)`, and the REGISTRY that lists them; the families stand in the modules here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphc.ops import elementwise, injective, layout, leaf, reduce
from graphc.ops.spec import REGISTRY, Kind, Layout, OpSpec, Sample, expect, has_kernel, register

__all__ = ["REGISTRY", "Kind", "Layout", "OpSpec", "Sample", "expect", "has_kernel", "register"]

globals().update(REGISTRY)
__all__ += [*REGISTRY]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
