"""Shape arithmetic that operations, importers and users share: broadcasting, axes, slice bounds, views of reshapes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from graphc.errors import GraphTypeError
from graphc.ir.dims import Dim, DimLike, Symbol, dim_max, dim_min, product
from graphc.ops.spec import Layout

__all__ = [
    "broadcast_shapes",
    "factor_groups",
    "normalize_axes",
    "normalize_axis",
    "reshaped_layout",
    "resolve_shape",
    "slice_bounds",
    "slice_extent",
]

Shape = tuple[DimLike, ...]


def broadcast_shapes(*shapes: Sequence[DimLike], what: str = "broadcast") -> Shape:
    """The shape that NumPy broadcasting gives, aligned at the right.

    Of an int other than 1 and a symbol the int wins; two different symbols give their maximum, which is right
    whenever the broadcast is (one of them is 1, or they are equal). `what` names the caller in the error.
    """
    rank = max(map(len, shapes), default=0)
    result: list[DimLike] = []
    for axis in range(-rank, 0):
        extent: DimLike = 1
        for shape in shapes:
            d = shape[axis] if len(shape) >= -axis else 1
            if d == 1 or d == extent:
                continue
            if extent == 1:
                extent = d
            elif isinstance(extent, int) and isinstance(d, int):
                listing = " and ".join(str(list(s)) for s in dict.fromkeys(map(tuple, shapes)))
                raise GraphTypeError(f"{what}: the shapes {listing} do not broadcast: axis {axis} is {extent} and {d}")
            elif isinstance(extent, Dim) and isinstance(d, Dim):
                extent = dim_max(extent, d)
            else:
                extent = d if isinstance(d, int) else extent
        result.append(extent)
    return tuple(result)


def normalize_axis(axis: int, rank: int, what: str = "axis") -> int:
    """An axis in [-rank, rank) counted from the front. Raises GraphTypeError outside."""
    if not -rank <= axis < rank:
        raise GraphTypeError(f"{what}: axis {axis} does not exist in a tensor of rank {rank}")
    return axis % rank


def normalize_axes(axes: Sequence[int] | int | None, rank: int, what: str = "axes") -> tuple[int, ...]:
    """Sorted axes counted from the front; None means all of them. Raises GraphTypeError for a repeated axis."""
    if axes is None:
        return tuple(range(rank))
    given = (axes,) if isinstance(axes, int) else axes
    found = sorted(normalize_axis(int(a), rank, what) for a in given)
    if len(set(found)) != len(found):
        raise GraphTypeError(f"{what}: an axis stands twice in {list(given)}")
    return tuple(found)


def resolve_shape(shape: Sequence[DimLike], wanted: Sequence[DimLike], what: str = "reshape") -> Shape:
    """`wanted` with its one -1, if any, replaced by what is left of the elements of `shape`."""
    holes = [k for k, d in enumerate(wanted) if d == -1]
    if not holes:
        return tuple(wanted)
    if len(holes) > 1:
        raise GraphTypeError(f"{what}: the shape {list(wanted)} has more than one -1")
    known, size = product(tuple(d for d in wanted if d != -1)), product(tuple(shape))
    if known == 0 or (isinstance(size, int) and isinstance(known, int) and size % known):
        raise GraphTypeError(f"{what}: {list(shape)} has {size} elements, which do not fit {list(wanted)}")
    filled = list(wanted)
    filled[holes[0]] = size // known
    return tuple(filled)


def slice_extent(start: DimLike, stop: DimLike, step: int) -> DimLike:
    """How many elements `start, start + step, ...` visits before it reaches `stop`."""
    extent = (stop - start + step - 1) // step if step > 0 else (start - stop - step - 1) // -step
    return max(extent, 0) if isinstance(extent, int) else extent


def slice_bounds(start: DimLike | None, stop: DimLike | None, step: int, extent: DimLike) -> tuple[DimLike, DimLike]:
    """Bounds as Python's `slice` means them (negative ones count from the end, far ones are cut off) in normal form.

    The result counts from the front: `start` in range, `stop` at most `extent`, and -1 for "before 0" when the step
    is negative. An int bound against a symbolic extent stays an int where the symbol's lower bound allows it.
    """
    if step == 0:
        raise GraphTypeError("slice: the step is 0")
    if isinstance(extent, int) and not isinstance(start, Dim) and not isinstance(stop, Dim):
        first, last, _ = slice(start, stop, step).indices(extent)
        return first, max(last, first) if step > 0 else min(last, first)
    return _bound(start, 0 if step > 0 else extent - 1, extent, step), _bound(
        stop, extent if step > 0 else -1, extent, step
    )


def _bound(bound: DimLike | None, default: DimLike, extent: DimLike, step: int) -> DimLike:
    if bound is None:
        return default
    far = 2**31 - 1
    if isinstance(bound, int) and not -far < bound < far:
        return (extent if step > 0 else extent - 1) if bound > 0 else (0 if step > 0 else -1)
    if isinstance(bound, int) and bound < 0:
        bound = bound + extent
    if bound == 0 or bound == extent or (isinstance(bound, int) and bound <= _smallest(extent)):
        return bound
    return dim_min(bound, extent if step > 0 else extent - 1) if isinstance(bound, int) else bound


def _smallest(extent: DimLike) -> int:
    """A lower bound of a dimension: exact for ints, the declared one for a bare symbol, else 0."""
    if isinstance(extent, int):
        return extent
    if extent.name is not None:
        ((symbol,), _), *_ = extent.terms
        return symbol.lower if isinstance(symbol, Symbol) else 0
    return 0


def factor_groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Match the axes of two shapes of one size: the finest runs of axes (old, new) that hold the same elements.

    Axes of extent 1 are left out; no extent may be 0.
    `factor_groups((2, 3, 4), (6, 4)) == [((0, 1), (0,)), ((2,), (1,))]`.
    """
    groups = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [], []
        a = b = 1
        while True:
            if a == b and a != 1:
                break
            if a <= b and i < len(old):
                a *= old[i]
                left += [i] if old[i] != 1 else []
                i += 1
            elif j < len(new):
                b *= new[j]
                right += [j] if new[j] != 1 else []
                j += 1
            else:
                break
        if left or right:
            groups.append((tuple(left), tuple(right)))
    return groups


def reshaped_layout(layout: Layout, shape: tuple[int, ...]) -> Layout | None:
    """The layout of `layout`'s elements seen in another shape, or None when that needs a copy."""
    if math.prod(shape) == 0:
        return Layout.dense(shape, layout.offset)
    strides = [0] * len(shape)
    for old, new in factor_groups(layout.shape, shape):
        for outer, inner in itertools.pairwise(old):
            if layout.strides[outer] != layout.strides[inner] * layout.shape[inner]:
                return None
        step = layout.strides[old[-1]]
        for axis in reversed(new):
            strides[axis] = step
            step *= shape[axis]
    # axes of extent 1 may have any stride; the dense one keeps `is_dense` and text plain
    dense = Layout.dense(shape).strides
    return Layout(
        layout.offset, shape, tuple(d if n == 1 else s for s, d, n in zip(strides, dense, shape, strict=True))
    )
