"""Geometry of sliding windows: attributes of convolutions and pools in one form, automatic padding worked out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graphc.frontends.onnx.context import Context
from graphc.ir.dims import Dim, DimLike, ceil_div

__all__ = ["Windows", "windows"]


class Windows(NamedTuple):
    """One entry a spatial axis. `padding` is what the operator asks for; a ceiling adds `extra` after it."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    extra: tuple[int, ...]

    @property
    def span(self) -> tuple[int, ...]:
        """How many elements a window reaches over, its gaps included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True))

    @property
    def full_padding(self) -> tuple[tuple[int, int], ...]:
        """The padding with what the ceiling adds."""
        return tuple((low, high + extra) for (low, high), extra in zip(self.padding, self.extra, strict=True))


def windows(c: Context, extents: Sequence[DimLike], size: Sequence[int], ceiling: bool = False) -> Windows:
    """The windows of a node over spatial axes of the given extents."""
    rank = len(extents)
    strides = _entries(c, "strides", rank, 1)
    dilation = _entries(c, "dilations", rank, 1)
    result = Windows(tuple(size), strides, dilation, ((0, 0),) * rank, (0,) * rank)
    if len(size) != rank or min((*size, 1)) < 1:
        c.invalid(f"the window {list(size)} does not fit {rank} spatial axes")
    auto = c.string("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = _entries(c, "pads", 2 * rank, 0)
        padding = tuple(zip(pads[:rank], pads[rank:], strict=True))
    elif auto == "VALID":
        c.ignore("pads")
        padding = result.padding
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        c.ignore("pads")
        totals = [_same(c, d, span, s) for d, span, s in zip(extents, result.span, strides, strict=True)]
        padding = tuple((t // 2, t - t // 2) if auto == "SAME_UPPER" else (t - t // 2, t // 2) for t in totals)
    else:
        c.invalid(f"auto_pad is {auto!r}; known are NOTSET, VALID, SAME_UPPER and SAME_LOWER")
    extra = (0,) * rank
    if ceiling and auto in ("NOTSET", ""):
        extra = tuple(
            _ceiling(c, d, span, s, p) for d, span, s, p in zip(extents, result.span, strides, padding, strict=True)
        )
    return result._replace(padding=padding, extra=extra)


def _entries(c: Context, name: str, count: int, default: int) -> tuple[int, ...]:
    entries = c.ints(name, None) or (default,) * count
    if len(entries) != count:
        c.invalid(f"{name} has {len(entries)} entries, {count} are needed")
    return tuple(entries)


def _same(c: Context, extent: DimLike, span: int, stride: int) -> int:
    """All padding of an axis whose windows shall number extent / stride, rounded up."""
    if stride == 1:
        return span - 1
    if isinstance(extent, Dim):
        c.unsupported("automatic padding of a symbolic extent; give the inputs' concrete shapes")
    return max((ceil_div(extent, stride) - 1) * stride + span - extent, 0)


def _ceiling(c: Context, extent: DimLike, span: int, stride: int, padding: tuple[int, int]) -> int:
    """Elements beyond the padding that the last window needs when the number of windows is rounded up."""
    low, high = padding
    if stride == 1:
        return 0
    if isinstance(extent, Dim):
        c.unsupported("ceil_mode over a symbolic extent; give the inputs' concrete shapes")
    count = ceil_div(extent + low + high - span, stride) + 1
    if (count - 1) * stride >= extent + low:  # a window that would start after the data is dropped
        count -= 1
    return max((count - 1) * stride + span - extent - low - high, 0)
