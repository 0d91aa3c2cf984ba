"""One value, one rounding: what a reduction has seen is what a later stage must see.

Stages compute a value again where they need it, and compilers fuse a product into the sum that takes it. In a softmax
of scaled scores, `max(x * c)` has seen the product rounded, and `x * c - max` fused has not: at the maximum it gives
the rounding error of the product instead of 0. That is half a unit in the last place, which for large scores is a
large number, and its exponential infinite.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.scalar import Scalar, rewrite, scalar
from graphc.kernels import loops
from graphc.kernels.ir import LoopNest, Reduce

__all__ = ["settle_extrema"]


def settle_extrema(nest: LoopNest) -> LoopNest:
    """The nest with `v - max(v)` written as `min(v, max(v)) - max(v)`, and the mirror image for minima.

    The same number, and one instruction more; but no product or sum can be fused through the minimum.
    """
    clamps: dict[tuple[Scalar, int], str] = {}

    def settle(e: Scalar) -> Scalar | None:
        if e.op != "sub" or e.args[1].op != "temp":
            return None
        value, extremum = e.args
        clamp = clamps.get((value, extremum.attr))
        return scalar("sub", scalar(clamp, value, extremum), extremum) if clamp else None

    stages = []
    for stage in nest.stages:
        stages.append(loops.rewritten(stage, lambda e: rewrite(e, settle)) if clamps else stage)
        if isinstance(stage, Reduce) and stage.value.dtype.is_float and stage.value.op in ("add", "sub", "mul"):
            opposite = {"maximum": "minimum", "minimum": "maximum"}.get(stage.combine)
            if opposite:
                clamps[stage.value, stage.result] = opposite
    return replace(nest, stages=tuple(stages))
