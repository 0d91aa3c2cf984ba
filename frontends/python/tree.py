"""Trees: arguments and results are arrays in nested dicts, lists, tuples, named tuples and dataclasses.

A tree is taken apart into its leaves, in a fixed order, and a `Structure` that puts leaves of any kind back together.
Dicts are walked in the order of their keys' text, so that two dicts with the same keys are one structure. None is a
tree without leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

__all__ = ["Structure", "flatten", "leaves_with_paths", "map_tree", "unflatten"]


@dataclass(frozen=True)
class Structure:
    """A tree without its leaves. `kind` is the container's class, or None for a leaf."""

    kind: type | None
    keys: tuple[Any, ...] = ()
    children: tuple[Structure, ...] = ()

    @property
    def count(self) -> int:
        """How many leaves it holds."""
        return 1 if self.kind is None else sum(c.count for c in self.children)

    def __str__(self) -> str:
        return self.showing("*" for _ in range(self.count))

    def showing(self, leaves: Iterable[object]) -> str:
        """The tree as text, with these (types, say) in place of its leaves: `{'h': float32[3]}`."""
        return self._text(iter(leaves))

    def _text(self, leaves: Iterator[object]) -> str:
        if self.kind is None:
            return str(next(leaves))
        inner = [c._text(leaves) for c in self.children]
        if self.kind is type(None):
            return "None"
        if self.kind is list:
            return f"[{', '.join(inner)}]"
        if self.kind is tuple:
            return f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
        if self.kind is dict:
            return "{" + ", ".join(f"{k!r}: {c}" for k, c in zip(self.keys, inner, strict=True)) + "}"
        return f"{self.kind.__name__}({', '.join(f'{k}={c}' for k, c in zip(self.keys, inner, strict=True))})"


_LEAF = Structure(None)
_NOTHING = Structure(type(None))


def _parts(tree: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """The keys and the children of a container; None for a leaf."""
    if isinstance(tree, dict):
        keys = tuple(sorted(tree, key=str))
        return keys, tuple(tree[k] for k in keys)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return tuple(tree._fields), tuple(tree)
    if isinstance(tree, list | tuple):
        return tuple(range(len(tree))), tuple(tree)
    if is_dataclass(tree) and not isinstance(tree, type) and not getattr(tree, "__graphc_leaf__", False):
        names = tuple(f.name for f in fields(tree))
        return names, tuple(getattr(tree, n) for n in names)
    return None


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of a tree, and its structure."""
    leaves: list[Any] = []

    def walk(t: Any) -> Structure:
        if t is None:
            return _NOTHING
        parts = _parts(t)
        if parts is None:
            leaves.append(t)
            return _LEAF
        return Structure(dict if isinstance(t, dict) else type(t), parts[0], tuple(map(walk, parts[1])))

    return leaves, walk(tree)


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Any:
    """The tree of this structure with the given leaves."""
    return _build(structure, iter(leaves))


def _build(s: Structure, rest: Iterator[Any]) -> Any:
    if s.kind is None:
        return next(rest)
    if s.kind is type(None):
        return None
    children = [_build(c, rest) for c in s.children]
    if s.kind is dict:
        return dict(zip(s.keys, children, strict=True))
    if s.kind in (list, tuple):
        return s.kind(children)
    if is_dataclass(s.kind):
        # as copy does it: __init__ may compute and check, which a tree of tracers or gradients would not pass
        made = object.__new__(s.kind)
        for name, child in zip(s.keys, children, strict=True):
            object.__setattr__(made, name, child)
        return made
    return s.kind(*children)  # a named tuple


def map_tree(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree of `function(leaf, leaves of the others at the same place)`.

    Raises ValueError when the trees have different structures.
    """
    leaves, structure = flatten(tree)
    columns: list[Sequence[Any]] = [leaves]
    for other in others:
        more, found = flatten(other)
        if found != structure:
            raise ValueError(f"the trees have different structures: {structure} and {found}")
        columns.append(more)
    return unflatten(structure, [function(*row) for row in zip(*columns, strict=True)])


def leaves_with_paths(tree: Any, root: str = "") -> list[tuple[str, Any]]:
    """Every leaf with what to call it: `params.layers.0.w` for root "params"."""
    if tree is None:
        return []
    parts = _parts(tree)
    if parts is None:
        return [(root, tree)]
    result: list[tuple[str, Any]] = []
    for key, child in zip(*parts, strict=True):
        result += leaves_with_paths(child, f"{root}.{key}" if root else str(key))
    return result
