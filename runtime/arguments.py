"""Which arguments of a compiled function are static and which are given away, by position or by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import OptionError
from graphc.frontends.python.trace import describe
from graphc.frontends.python.tree import flatten

__all__ = ["Roles"]


class Roles:
    """The parameters of a function that `static_argnums`, `static_argnames` and `donate_argnums` mean.

    A parameter means the same however it is passed. Raises OptionError for a number or name that no parameter has, and
    for one that is both static and donated.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        donate_argnums: int | Sequence[int],
        static_argnums: int | Sequence[int],
        static_argnames: str | Sequence[str],
    ) -> None:
        self._name = getattr(function, "__name__", type(function).__name__)
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # a built-in function: its positions are all that is known
            parameters = None
        self._parameters = parameters
        names = [static_argnames] if isinstance(static_argnames, str) else list(static_argnames)
        self.static = self._of(static_argnums, names, "static")
        self.donated = self._of(donate_argnums, [], "donate")
        if both := {k for k in self.static & self.donated if isinstance(k, int)}:
            raise OptionError(f"{self._name}: argument {min(both)} cannot be both static and donated")

    def _of(self, numbers: int | Sequence[int], names: list[str], what: str) -> frozenset[int | str]:
        """Positions and names, each parameter under both."""
        found: set[int | str] = set()
        given = [numbers] if isinstance(numbers, int) else list(numbers)
        if self._parameters is None:
            return frozenset({*given, *names})
        known = list(self._parameters)
        kinds = [p.kind for p in self._parameters.values()]
        positional = [
            n
            for n, kind in zip(known, kinds, strict=True)
            if kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        ]
        shown = f"{self._name}({', '.join(map(str, self._parameters.values()))})"
        for number in given:
            k = number + len(positional) if number < 0 else number
            if 0 <= k < len(positional):
                found |= {k, positional[k]}
            elif number >= 0 and inspect.Parameter.VAR_POSITIONAL in kinds:
                found.add(number)
            else:
                raise OptionError(f"{what}_argnums: there is no positional argument {number} in {shown}")
        for name in names:
            if name in positional:
                found |= {positional.index(name), name}
            elif name in known or inspect.Parameter.VAR_KEYWORD in kinds:
                found.add(name)
            else:
                raise OptionError(f"{what}_argnames: there is no parameter {name!r} in {shown}")
        return frozenset(found)

    def dynamic(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that are not static."""
        if not self.static:
            return tuple(args), kwargs
        rest = tuple(a for k, a in enumerate(args) if k not in self.static)
        return rest, {n: a for n, a in kwargs.items() if n not in self.static}

    def statics(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[int | str, Any], ...]:
        """The static arguments by position or name. Raises OptionError for one without a hash."""
        if not self.static:
            return ()
        found = [(k, a) for k, a in enumerate(args) if k in self.static]
        named = [(n, a) for n, a in sorted(kwargs.items()) if n in self.static]
        for key, value in (*found, *named):
            try:
                hash(value)
            except TypeError:
                raise OptionError(
                    f"{self._name}: the static argument {key!r} is {value!r:.80}, a {type(value).__name__}, which has "
                    "no hash; pass something that cannot change (a tuple for a list)"
                ) from None
        return (*found, *named)

    def key(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[object, ...]:
        """What tells static arguments apart: 1, 1.0 and True are equal in Python, but not in a program."""
        return tuple((k, _exactly(a)) for k, a in self.statics(args, kwargs))

    def given_away(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[int]:
        """The numbers of the graph's inputs whose arrays results may be written into."""
        if not self.donated:
            return []
        rest = [(k in self.donated, a) for k, a in enumerate(args) if k not in self.static]
        rest += [(n in self.donated, kwargs[n]) for n in sorted(kwargs, key=str) if n not in self.static]
        leaves = [(mine, leaf) for mine, a in rest for leaf in flatten(a)[0] if describe(leaf, "") is not None]
        return [k for k, (mine, _) in enumerate(leaves) if mine]


def _exactly(value: Any) -> object:
    if isinstance(value, tuple | frozenset):
        return type(value), tuple(map(_exactly, value)) if isinstance(value, tuple) else frozenset(map(_exactly, value))
    return type(value), value
