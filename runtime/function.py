"""A compiled Python function: traced and compiled for each signature of arguments it is called with.

The signature is the arrangement of the arguments (dicts, lists, ...), the shape and element type of every array, and
the value of everything that is no array. What was compiled again and why goes to the log
(`logging.getLogger("graphc")`).
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.errors import OptionError
from graphc.frontends.python.control import checkpointing
from graphc.frontends.python.debug import check_nans, nans_are_errors
from graphc.frontends.python.functions import as_array
from graphc.frontends.python.promotion import is_number
from graphc.frontends.python.trace import Traced, argument_names, describe, trace_function
from graphc.frontends.python.tracing import current
from graphc.frontends.python.tree import Structure, flatten, unflatten
from graphc.ir.graph import Graph
from graphc.ir.interpret import run
from graphc.options import Options
from graphc.passes.pipeline import prepare
from graphc.passes.rematerialise import checkpoints_within, longest_scan
from graphc.runtime.executable import Specialisation
from graphc.runtime.planned import arena_bytes

__all__ = ["CompiledFunction"]

log = logging.getLogger("graphc")


class _Signature(NamedTuple):
    """What a program is chosen by."""

    structure: Structure
    statics: tuple[tuple[int | str, Any], ...]
    leaves: tuple[object, ...]


class _Program(NamedTuple):
    """What was compiled for one signature."""

    traced: Traced
    specialisation: Specialisation
    donated: dict[int, int]


class CompiledFunction:
    """A Python function that runs as native code. Called with arrays it gives arrays; called inside of another traced
    function it is a part of that one.

    donate_argnums   positional arguments whose arrays may be overwritten by results of the same type: the caller
                     gives them away. Parameters and optimiser states are updated in place that way
    static_argnums,  arguments that are compiled in, by value: they need a hash and equality
    static_argnames
    """

    #: signatures kept; the oldest goes first
    KEEP = 64

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        *,
        donate_argnums: int | Sequence[int] = (),
        static_argnums: int | Sequence[int] = (),
        static_argnames: str | Sequence[str] = (),
    ) -> None:
        functools.update_wrapper(self, function)
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.function, self.options = function, options
        self._donated = _numbers(donate_argnums)
        self._static = _numbers(static_argnums)
        self._static_names = frozenset([static_argnames] if isinstance(static_argnames, str) else static_argnames)
        if overlap := set(self._donated) & set(self._static):
            raise OptionError(f"argument {min(overlap)} cannot be both static and donated")
        self._check_names()
        self._programs: OrderedDict[_Signature, _Program] = OrderedDict()
        self._lock = threading.RLock()

    def _check_names(self) -> None:
        try:
            parameters = list(inspect.signature(self.function).parameters)
        except (TypeError, ValueError):
            return
        for name in self._static_names:
            if name not in parameters:
                raise OptionError(f"static_argnames: no parameter {name!r}; there are {', '.join(parameters)}")
        self._static = tuple({*self._static, *(parameters.index(n) for n in self._static_names)})

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}, {len(self._programs)} signatures>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            return self.function(*args, **kwargs)
        key, leaves = self._signature(args, kwargs)
        if nans_are_errors():
            traced = trace_function(self._with_statics(args, kwargs), *self._dynamic(args, kwargs))
            results = run(traced.graph, *_arrays(leaves), on_node=check_nans)
            return unflatten(traced.results, results)
        program = self._programs.get(key) or self._compile(key, args, kwargs)
        return unflatten(program.traced.results, program.specialisation.run(_arrays(leaves), program.donated))

    def trace(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph for arguments like these (arrays or specs), before any pass."""
        return self._traced(args, kwargs).graph

    def compile(self, *args: Any, **kwargs: Any) -> Specialisation:
        """The native program for arguments like these (arrays, or specs of known sizes), compiled now."""
        key, _ = self._signature(args, kwargs)
        return (self._programs.get(key) or self._compile(key, args, kwargs)).specialisation

    # -- signatures ---------------------------------------------------------------------------------------------------

    def _dynamic(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that are not static."""
        positional = tuple(a for k, a in enumerate(args) if k not in self._static)
        return positional, {n: a for n, a in kwargs.items() if n not in self._static_names}

    def _statics(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        return (
            *((k, a) for k, a in enumerate(args) if k in self._static),
            *((n, a) for n, a in sorted(kwargs.items()) if n in self._static_names),
        )

    def _with_statics(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        """The function of the other arguments alone."""
        if not self._static and not self._static_names:
            return self.function
        fixed = dict(self._statics(args, kwargs))

        def partial(*rest: Any, **named: Any) -> Any:
            remaining = iter(rest)
            positional = [fixed[k] if k in fixed else next(remaining) for k in range(len(args))]
            return self.function(*positional, **named, **{n: a for n, a in fixed.items() if isinstance(n, str)})

        partial.__name__ = self.__name__
        return partial

    def _signature(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[_Signature, list[Any]]:
        leaves, structure = flatten(self._dynamic(args, kwargs))
        statics = self._statics(args, kwargs)
        try:
            hash(statics)
        except TypeError:
            bad = next(k for k, a in statics if not _hashable(a))
            raise OptionError(
                f"{self.__name__}: static argument {bad!r} has no hash; a static value needs one"
            ) from None
        return _Signature(structure, statics, tuple(map(_leaf_key, leaves))), leaves

    def _traced(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Traced:
        return trace_function(self._with_statics(args, kwargs), *self._dynamic(args, kwargs))

    def _compile(self, key: _Signature, args: Sequence[Any], kwargs: dict[str, Any]) -> _Program:
        with self._lock:
            if key in self._programs:  # another thread was faster
                return self._programs[key]
            started = time.perf_counter()
            traced = self._within_budget(args, kwargs)
            specialisation = Specialisation(traced.graph, self.options)
            program = _Program(traced, specialisation, specialisation.sharing(self._given_away(args, kwargs)))
            log.info(
                "compiled %s in %.2f s%s",
                self.__name__,
                time.perf_counter() - started,
                self._reason(key, args, kwargs) if self._programs else "",
            )
            self._programs[key] = program
            while len(self._programs) > self.KEEP:
                self._programs.popitem(last=False)
            return program

    def _within_budget(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Traced:
        """The function traced with as many checkpoints in its loops as the memory budget asks for."""
        traced = self._traced(args, kwargs)
        budget, turns = self.options.memory_budget, longest_scan(traced.graph)
        if budget is None or not turns:
            return traced

        def with_checkpoints(every: int) -> Traced:
            with checkpointing(every):
                return self._traced(args, kwargs)

        def needs(every: int) -> int:
            return arena_bytes(prepare(with_checkpoints(every).graph, self.options), self.options)

        return with_checkpoints(checkpoints_within(needs, turns, budget))

    def _given_away(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[int]:
        """The numbers of the graph's inputs that stand for donated arrays."""
        numbers, at = [], 0
        for k, a in enumerate(args):
            if k in self._static:
                continue
            for leaf in flatten(a)[0]:
                if describe(leaf, "") is not None:
                    if k in self._donated and isinstance(leaf, np.ndarray):
                        numbers.append(at)
                    at += 1
        return numbers

    def _reason(self, key: _Signature, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        """Why this signature is a new one: what differs from the latest."""
        structure, statics, leaves = key
        before_structure, before_statics, before = next(reversed(self._programs))
        if structure != before_structure:
            return f" again: the arguments are arranged as {structure}, before as {before_structure}"
        if statics != before_statics:
            changed = [
                f"{k}={new!r}" for (k, new), (_, old) in zip(statics, before_statics, strict=False) if new != old
            ]
            return f" again: static arguments changed: {', '.join(changed)}"
        names = argument_names(self._with_statics(args, kwargs), *self._dynamic(args, kwargs))
        changed = [
            f"{name} is {_shown(new)}, before {_shown(old)}"
            for name, new, old in zip(names, leaves, before, strict=True)
            if new != old
        ]
        return f" again: {'; '.join(changed)}"


def _numbers(given: int | Iterable[int]) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)


def _hashable(x: Any) -> bool:
    try:
        hash(x)
    except TypeError:
        return False
    return True


def _leaf_key(leaf: Any) -> object:
    """What a program is chosen by: shape and element type of an array, the type of a number, else the value."""
    if isinstance(leaf, np.ndarray):
        return leaf.dtype, leaf.shape
    if is_number(leaf):
        return type(leaf)
    described = describe(leaf, "an argument")
    if described is None:
        return leaf if _hashable(leaf) else id(leaf)
    return described.dtype.numpy, described.shape


def _shown(key: Any) -> str:
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], tuple):
        return f"{np.dtype(key[0]).name}{list(key[1])}"
    return key.__name__ if isinstance(key, type) else repr(key)


def _arrays(leaves: Iterable[Any]) -> list[np.ndarray]:
    """The arrays among the leaves, numbers as arrays of NumPy's type for them."""
    return [as_array(leaf) for leaf in leaves if is_number(leaf) or describe(leaf, "") is not None]
