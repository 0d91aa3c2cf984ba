"""A compiled Python function: traced and compiled for each signature of arguments it is called with.

The signature is the arrangement of the arguments (dicts, lists, ...), the shape and element type of every array, and
the value of everything that is no array. What was compiled again and why goes to the log
(`logging.getLogger("graphc")`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MethodType
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.array_utils import byte_bounds

from graphc.errors import OptionError
from graphc.frontends.python.control import checkpointing
from graphc.frontends.python.debug import check_nans, nans_are_errors
from graphc.frontends.python.functions import as_array
from graphc.frontends.python.promotion import is_number
from graphc.frontends.python.trace import Traced, argument_names, describe, trace_function
from graphc.frontends.python.tracing import current
from graphc.frontends.python.tree import Structure, flatten
from graphc.ir.graph import Graph
from graphc.ir.interpret import run
from graphc.options import Options
from graphc.passes.pipeline import prepare
from graphc.passes.rematerialise import checkpoints_within, longest_scan
from graphc.runtime.arguments import Roles
from graphc.runtime.planned import arena_bytes
from graphc.runtime.specialisation import Specialisation

__all__ = ["CompiledFunction"]

log = logging.getLogger("graphc")


class _Signature(NamedTuple):
    """What a program is chosen by."""

    structure: Structure
    statics: tuple[object, ...]
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

    #: signatures kept; the one that was not used for longest goes first
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
        self._roles = Roles(function, donate_argnums, static_argnums, static_argnames)
        self._programs: OrderedDict[_Signature, _Program] = OrderedDict()
        self._lock = threading.RLock()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: the instance is the first argument, a tree if it is a dataclass, else a value."""
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}, {len(self._programs)} signatures>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current() is not None:
            return self.function(*args, **kwargs)
        key, leaves = self._signature(args, kwargs)
        if nans_are_errors():
            traced = self._traced(args, kwargs)
            return traced.arranged(run(traced.graph, *_arrays(leaves), on_node=check_nans))
        program = self._known(key) or self._compile(key, args, kwargs)
        arrays = _arrays(leaves)
        donated = self._apart(program.donated, arrays) if program.donated else None
        return program.traced.arranged(program.specialisation.run(arrays, donated))

    def _known(self, key: _Signature) -> _Program | None:
        program = self._programs.get(key)
        if program is not None:
            with contextlib.suppress(KeyError):  # another thread may just have dropped it
                self._programs.move_to_end(key)
        return program

    def trace(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph for arguments like these (arrays or specs), before any pass."""
        return self._traced(args, kwargs).graph

    def compile(self, *args: Any, **kwargs: Any) -> Specialisation:
        """The native program for arguments like these (arrays, or specs of known sizes), compiled now."""
        key, _ = self._signature(args, kwargs)
        return (self._programs.get(key) or self._compile(key, args, kwargs)).specialisation

    # -- signatures ---------------------------------------------------------------------------------------------------

    def _with_statics(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Callable[..., Any]:
        """The function of the other arguments alone."""
        if not self._roles.static:
            return self.function
        fixed = dict(self._roles.statics(args, kwargs))

        def partial(*rest: Any, **named: Any) -> Any:
            remaining = iter(rest)
            positional = [fixed[k] if k in fixed else next(remaining) for k in range(len(args))]
            return self.function(*positional, **named, **{n: a for n, a in fixed.items() if isinstance(n, str)})

        partial.__name__ = self.__name__
        return partial

    def _signature(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[_Signature, list[Any]]:
        leaves, structure = flatten(self._roles.dynamic(args, kwargs))
        keys = tuple(map(_leaf_key, leaves))
        if _NO_KEY in keys:
            names = argument_names(self._with_statics(args, kwargs), *self._roles.dynamic(args, kwargs))
            name, leaf = names[keys.index(_NO_KEY)], leaves[keys.index(_NO_KEY)]
            raise OptionError(
                f"{self.__name__}: argument {name!r} is {leaf!r:.80}, a {type(leaf).__name__}: neither an array nor a "
                "value with a hash, by which its program could be found again; pass an array, or something that cannot "
                "change (a tuple, a frozenset)"
            )
        return _Signature(structure, self._roles.key(args, kwargs), keys), leaves

    def _apart(self, donated: Mapping[int, int], arrays: Sequence[np.ndarray]) -> dict[int, int]:
        """What is donated and shares no memory with another argument, which would change under the program."""
        spans = sorted((*byte_bounds(a), k) for k, a in enumerate(arrays) if a.nbytes)
        shared: set[int] = set()
        end, last = 0, -1
        for first, past, k in spans:
            if first < end:
                shared |= {last, k}
            if past > end:
                end, last = past, k
        for k in shared & set(donated.values()):
            log.warning(
                "%s: donated argument %d shares memory with another argument, so it is not overwritten",
                self.__name__,
                k,
            )
        return {output: k for output, k in donated.items() if k not in shared}

    def _traced(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Traced:
        return trace_function(self._with_statics(args, kwargs), *self._roles.dynamic(args, kwargs))

    def _compile(self, key: _Signature, args: Sequence[Any], kwargs: dict[str, Any]) -> _Program:
        with self._lock:
            if key in self._programs:  # another thread was faster
                return self._programs[key]
            started = time.perf_counter()
            traced = self._within_budget(args, kwargs)
            specialisation = Specialisation(traced.graph, self.options)
            program = _Program(traced, specialisation, specialisation.sharing(self._roles.given_away(args, kwargs)))
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

    def _reason(self, key: _Signature, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
        """Why this signature is a new one: what differs from the latest."""
        structure, statics, leaves = key
        before_structure, before_statics, before = next(reversed(self._programs))
        if structure != before_structure:
            return f" again: the arguments are arranged as {structure}, before as {before_structure}"
        if statics != before_statics:
            shown = ", ".join(f"{k}={a!r:.40}" for k, a in self._roles.statics(args, kwargs))
            return f" again: static arguments changed, to {shown}"
        names = argument_names(self._with_statics(args, kwargs), *self._roles.dynamic(args, kwargs))
        changed = [
            f"{name} is {_shown(new)}, before {_shown(old)}"
            for name, new, old in zip(names, leaves, before, strict=True)
            if new != old
        ]
        return f" again: {'; '.join(changed)}"


#: the key of a leaf by which no program can be found again
_NO_KEY = object()


def _leaf_key(leaf: Any) -> object:
    """What a program is chosen by: shape and element type of an array, the type of a number, else the value."""
    if isinstance(leaf, np.ndarray):
        return leaf.dtype, leaf.shape
    if is_number(leaf):
        return type(leaf)
    described = describe(leaf, "an argument")
    if described is None:
        try:
            hash(leaf)
        except TypeError:
            return _NO_KEY
        return leaf
    return described.dtype.numpy, described.shape


def _shown(key: Any) -> str:
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], tuple):
        return f"{np.dtype(key[0]).name}{list(key[1])}"
    return key.__name__ if isinstance(key, type) else repr(key)


def _arrays(leaves: Iterable[Any]) -> list[np.ndarray]:
    """The arrays among the leaves, numbers as arrays of NumPy's type for them."""
    return [as_array(leaf) for leaf in leaves if is_number(leaf) or describe(leaf, "") is not None]
