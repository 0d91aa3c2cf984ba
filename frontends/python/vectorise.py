"""`vmap`: a function of one case as a function of many, along a new leading axis, spelled and behaving as JAX's.

The function is traced once, for one case, and the graph is batched (`graphc.autodiff.batching`): a product with weights
that all cases share becomes one larger product, not many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.autodiff.batching import batch
from graphc.errors import TraceError
from graphc.frontends.python.functions import Array
from graphc.frontends.python.trace import Body, Spec, argument_names, describe, subtrace
from graphc.frontends.python.tracing import current
from graphc.frontends.python.transforms import Spread, argument_value, deliver, dressed
from graphc.frontends.python.tree import Structure, flatten, leaves_with_paths, unflatten
from graphc.frontends.python.where import here
from graphc.ir.dims import DimLike
from graphc.ir.graph import Value, substitute
from graphc.ops.batching import lead, move_axis

__all__ = ["vmap"]

#: an axis, None for "the same in all cases", or a tree of them that is a prefix of the tree it speaks of
Axes = Any


def vmap(
    function: Callable[..., Any], in_axes: Axes = 0, out_axes: Axes = 0, *, axis_size: DimLike | None = None
) -> Callable[..., Any]:
    """A function that computes `function` for every slice of its arguments along an axis.

    in_axes    which axis of an argument holds the cases; None for an argument that is the same in all of them. One
               entry for all positional arguments, or a tuple with one for each; an entry may be a tree with the
               beginnings of the argument's structure. Keyword arguments are sliced along axis 0
    out_axes   where the cases are in the results, likewise; None for a result that does not depend on the case
    axis_size  the number of cases, needed only where no argument tells it

    Raises TraceError when the arguments' extents disagree, an axis does not exist, or a result with `out_axes` None
    depends on the case.
    """
    name = f"vmap of {getattr(function, '__name__', type(function).__name__)}"

    def vectorised(*args: Any, **kwargs: Any) -> Any:
        with here():
            leaves, structure = flatten((tuple(args), kwargs))
            names = argument_names(function, args, kwargs)
            specs = [describe(leaf, n) for leaf, n in zip(leaves, names, strict=True)]
            axes = _argument_axes(in_axes, structure, name)
            axes = [
                None if a is None or s is None else _axis(a, s, f"{name}: argument {n!r}")
                for a, s, n in zip(axes, specs, names, strict=True)
            ]
            size = _size(specs, axes, names, axis_size, name)
            slices = [
                s if s is None or a is None else Spec(s.type.with_shape((*s.shape[:a], *s.shape[a + 1 :])), s.weak)
                for s, a in zip(specs, axes, strict=True)
            ]
            body = subtrace(Spread(function, name), leaves, slices, structure)
            given = [(leaf, a) for leaf, a, s in zip(leaves, axes, specs, strict=True) if s is not None]
            outputs, batched = _applied(body, given, size)
            places = _spread(out_axes, body.results, f"{name}: out_axes")
            labels = [label for label, _ in leaves_with_paths(unflatten(body.results, range(len(outputs))), "result")]
            placed = [
                _placed(v, b, place, size, f"{name}: {label}")
                for v, b, place, label in zip(outputs, batched, places, labels, strict=True)
            ]
            return unflatten(body.results, deliver(placed))

    return dressed(vectorised, function, "vmap")


def _applied(
    body: Body, given: Sequence[tuple[Array, int | None]], size: DimLike
) -> tuple[Sequence[Value], Sequence[bool]]:
    """A body's outputs for the arguments, each with the axis of its cases."""
    now = current()
    if now is not None:
        for v, owner in body.captured.items():
            now.capture(v, owner)
    values = [argument_value(leaf) for leaf, _ in given]
    shared = {v: x for v, x, (_, a) in zip(body.inputs, values, given, strict=True) if a is None}
    cases = {v: move_axis(x, a, 0) for v, x, (_, a) in zip(body.inputs, values, given, strict=True) if a is not None}
    # first the shared arguments: what depends on them alone is then part of the program around
    outputs = substitute(body.outputs, {v: v for v in (*body.captured, *cases)} | shared)
    return batch(outputs, cases, size)


def _argument_axes(in_axes: Axes, structure: Structure, what: str) -> list[Any]:
    positional, keywords = structure.children
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    return [*_spread(in_axes, positional, f"{what}: in_axes"), *([0] * keywords.count)]


def _spread(axes: Axes, structure: Structure, what: str) -> list[Any]:
    """A prefix of a tree with an entry for each leaf of the tree."""
    if axes is None or (isinstance(axes, int) and not isinstance(axes, bool)):
        return [axes] * structure.count
    if structure.kind is None:
        raise TraceError(f"{what} has {axes!r} for an array; an int or None is needed")
    children = [] if structure.kind is type(None) else list(structure.children)
    if isinstance(axes, dict) and structure.kind is dict and set(axes) == set(structure.keys):
        parts = [axes[k] for k in structure.keys]
    elif isinstance(axes, list | tuple) and structure.kind not in (dict, type(None)) and len(axes) == len(children):
        parts = list(axes)
    elif type(axes) is structure.kind and structure.kind is not dict and not isinstance(axes, list | tuple):
        parts = [getattr(axes, k) for k in structure.keys]
    else:
        raise TraceError(f"{what} is {axes!r}, which does not fit what it speaks of: {structure}")
    return [axis for part, child in zip(parts, children, strict=True) for axis in _spread(part, child, what)]


def _axis(axis: int, s: Spec, what: str) -> int:
    """An axis counted from the front."""
    rank = len(s.shape)
    if not -rank <= axis < rank:
        hint = "; in_axes=None hands it on as it is" if not rank else ""
        raise TraceError(f"{what} is {s.type}, which has no axis {axis} to take the cases from{hint}")
    return axis % rank


def _size(
    specs: Sequence[Spec | None], axes: Sequence[int | None], names: Sequence[str], wanted: DimLike | None, what: str
) -> DimLike:
    """The number of cases. Raises TraceError where arguments disagree about it."""
    size, said_by = wanted, "axis_size"
    for s, a, n in zip(specs, axes, names, strict=True):
        if s is None or a is None:
            continue
        if size is None:
            size, said_by = s.shape[a], f"argument {n!r}, {s.type} along axis {a},"
        elif s.shape[a] != size:
            raise TraceError(
                f"{what}: argument {n!r} is {s.type} and has {s.shape[a]} cases along axis {a}, but {said_by} gives "
                f"{size}"
            )
    if size is None:
        raise TraceError(f"{what}: no argument has an axis of cases (in_axes is None for all of them); give axis_size")
    return size


def _placed(v: Value, batched: bool, place: int | None, size: DimLike, what: str) -> Value:
    """A result with its cases along the axis that was asked for."""
    if place is None:
        if batched:
            raise TraceError(f"{what} depends on the case, so it needs an axis for them; out_axes is None there")
        return v
    many = lead(v, size, batched)
    if not -many.rank <= place < many.rank:
        raise TraceError(f"{what} is {many.type}, in which out_axes cannot be {place}")
    return move_axis(many, 0, place % many.rank)
