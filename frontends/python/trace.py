"""`trace`: a Python function as a graph. `spec` describes an argument that is not there yet."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from graphc.autodiff.prune import tidied
from graphc.errors import GraphTypeError, TraceError
from graphc.frontends.python.functions import as_array, value_of
from graphc.frontends.python.promotion import is_number, kind_of
from graphc.frontends.python.tensor import Tensor
from graphc.frontends.python.tracing import Trace, current, tracing
from graphc.frontends.python.tree import Structure, flatten, leaves_with_paths, unflatten
from graphc.ir.dims import Dim, DimLike, Symbol
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Graph, Node, Value, input_value, substitute
from graphc.ir.types import TensorType

__all__ = [
    "Body",
    "Spec",
    "Traced",
    "argument_names",
    "close",
    "describe",
    "spec",
    "subtrace",
    "trace",
    "trace_function",
]


@dataclass(frozen=True)
class Spec:
    """The type of an argument: shape and element type."""

    __graphc_leaf__ = True
    type: TensorType
    weak: bool = False

    @property
    def shape(self) -> tuple[DimLike, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __repr__(self) -> str:
        return f"spec({self.type})"


def spec(shape: Sequence[int | str | None] | int, dtype: Any = "float32") -> Spec:
    """An argument of this shape and element type, for `trace`.

    A dimension is a number, a name (`"batch"`: an open size; equal names are equal sizes), or None (an open size of
    its own). Raises GraphTypeError for anything else.
    """
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    return Spec(TensorType(dtype_of(dtype), tuple(_dim(d, k) for k, d in enumerate(dims))))


def _dim(d: Any, axis: int) -> DimLike:
    if d is None:
        return Dim(Symbol(f"?{axis}"))  # `describe` names it after the argument
    if isinstance(d, str | Dim):
        return Dim(Symbol(d)) if isinstance(d, str) else d
    if not hasattr(d, "__index__") or operator.index(d) < 0:
        raise GraphTypeError(
            f"spec: dimension {axis} is {d!r:.80}; it is a number from 0, a name, or None for an open size"
        )
    return operator.index(d)


class Traced(NamedTuple):
    """A traced function: its graph, and how arguments and results are arranged in trees.

    `handed_back` are the leaves of the result that are no arrays: they came in as arguments, and go out as they are.
    """

    graph: Graph
    arguments: Structure
    results: Structure
    handed_back: dict[int, Any]

    def arranged(self, outputs: Iterable[Any]) -> Any:
        """The result, from the graph's outputs."""
        rest = iter(outputs)
        count = self.results.count
        return unflatten(
            self.results, [self.handed_back[k] if k in self.handed_back else next(rest) for k in range(count)]
        )


def trace(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Graph:
    """The graph of `function` for arguments like these: specs, or arrays whose shapes and types are taken.

    Arguments may be trees of them (dicts, lists, tuples, dataclasses). Inputs are called after the parameters, with
    the path into a tree (`params.w`); outputs are out, or out0, out1, ..., or the keys of a dict.
    """
    return trace_function(function, args, kwargs).graph


def trace_function(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Traced:
    """`trace`, with the structure of arguments and results. Leaves that hold no numbers (strings, functions) are
    handed to the function as they are."""
    leaves, structure = flatten((tuple(args), kwargs))
    names = argument_names(function, args, kwargs)
    with tracing(getattr(function, "__name__", type(function).__name__)) as now:
        inputs: list[Value] = []
        given: list[Any] = []
        for name, leaf in zip(names, leaves, strict=True):
            described = describe(leaf, name)
            if described is None:
                given.append(leaf)
                continue
            v = input_value(name, described.type, level=now.level)
            inputs.append(v)
            given.append(Tensor(v, now, weak=described.weak))
        call_args, call_kwargs = unflatten(structure, given)
        result = function(*call_args, **call_kwargs)
        results, shape = flatten(result)
        static = [leaf for leaf, value in zip(leaves, given, strict=True) if leaf is value]
        back = {k: r for k, r in enumerate(results) if any(r is leaf for leaf in static)}
        outputs = [_result(r, now) for k, r in enumerate(results) if k not in back]
        labels = [label for k, (label, _) in enumerate(leaves_with_paths(result)) if k not in back]
        output_names = ["out" if not n else f"out{n}" if n[0].isdigit() else n for n in labels]
        # derivatives taken on the way leave loops beside like ones that return more
        return Traced(tidied(Graph(inputs, outputs, output_names)), structure, shape, back)


def describe(leaf: Any, name: str) -> Spec | None:
    """The spec of an argument; None for one that is handed on as it is."""
    if isinstance(leaf, Spec):
        renamed = tuple(
            Dim(Symbol(f"{name.replace('.', '_')}_{k}")) if isinstance(d, Dim) and (d.name or "").startswith("?") else d
            for k, d in enumerate(leaf.shape)
        )
        return Spec(leaf.type.with_shape(renamed), leaf.weak)
    if isinstance(leaf, Tensor):
        return Spec(leaf.type, leaf.weak)
    if is_number(leaf):
        return Spec(TensorType(dtype_of(np.asarray(leaf).dtype), ()), weak=True)
    if isinstance(leaf, np.ndarray | np.generic) or hasattr(leaf, "__dlpack__") or hasattr(leaf, "__array__"):
        array = as_array(leaf, f"argument {name!r}")
        return Spec(TensorType(dtype_of(array.dtype), array.shape))
    return None


def _result(r: Any, now: Trace) -> Value:
    if not isinstance(r, Tensor) and kind_of(np.asarray(r).dtype) == "other":
        raise TraceError(f"{now.name} returns {type(r).__name__}; a traced function returns arrays, or trees of them")
    return value_of(r, what=f"a result of {now.name}")


def argument_names(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> list[str]:
    """What to call every leaf of the arguments: the parameter, and the path into a tree."""
    try:
        bound = inspect.signature(function).bind_partial(*args)
        roots: list[str] = []
        for name, value in bound.arguments.items():
            variadic = inspect.signature(function).parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            roots += [f"{name}{k}" for k in range(len(value))] if variadic else [name]
    except (TypeError, ValueError):  # no signature, or arguments that do not fit: the call itself will say so
        roots = [f"arg{k}" for k in range(len(args))]
    names: list[str] = []
    for root, arg in zip(roots, args, strict=True):
        names += [path for path, _ in leaves_with_paths(arg, root)]
    for key in sorted(kwargs, key=str):
        names += [path for path, _ in leaves_with_paths(kwargs[key], key)]
    return _apart(names)


def _apart(names: Sequence[str]) -> list[str]:
    """The names, those that stand twice with a number: an input is known by its name."""
    result: list[str] = []
    taken = set(names)
    seen: set[str] = set()
    for name in names:
        own, number = name, 2
        while own in seen or (own != name and own in taken):
            own, number = f"{name}_{number}", number + 1
        seen.add(own)
        result.append(own)
    return result


# ---------------------------------------------------------------------------------------------- traces inside traces


class Body(NamedTuple):
    """A function traced inside another trace: it may read the values around it."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    results: Structure
    weak: tuple[bool, ...]  # which outputs came from Python numbers
    captured: dict[Value, Trace]  # what it reads from around it

    @property
    def graph(self) -> Graph:
        """As a graph, whose nodes may still depend on values outside of it."""
        return Graph(self.inputs, self.outputs)


def subtrace(
    function: Callable[..., Any], leaves: Sequence[Any], specs: Sequence[Spec | None], structure: Structure
) -> Body:
    """`function(*arguments)` traced on inputs of its own: the structure of the tuple of arguments, with a tensor for
    every leaf that has a spec, and the leaf itself where it has none."""
    with tracing(getattr(function, "__name__", type(function).__name__)) as now:
        inputs: list[Value] = []
        given: list[Any] = []
        for k, (leaf, s) in enumerate(zip(leaves, specs, strict=True)):
            if s is None:
                given.append(leaf)
                continue
            v = input_value(f"x{k}", s.type, level=now.level)
            inputs.append(v)
            given.append(Tensor(v, now, weak=s.weak))
        results, shape = flatten(function(*unflatten(structure, given)))
        outputs = tuple(_result(r, now) for r in results)
        weak = tuple(r.weak if isinstance(r, Tensor) else is_number(r) for r in results)
        return Body(tuple(inputs), outputs, shape, weak, now.captured)


def close(bodies: Sequence[Body], names: Sequence[str], *, hoist: bool) -> tuple[list[Graph], list[Value]]:
    """Bodies as closed graphs, and the values around them that they read, which become further inputs of each.

    With `hoist`, what a body computes from outer values alone is computed once, outside. The branches of a choice must
    not do that: only the one that is taken may run.
    """
    now = current()
    captures: dict[Value, None] = {}
    for body in bodies:
        for v in _invariants(body) if hoist else body.captured:
            captures.setdefault(v)
        for v, owner in body.captured.items():
            if now is not None:
                now.capture(v, owner)  # which may lie further out still
    held = [input_value(f"held{k}", v.type) for k, v in enumerate(captures)]
    graphs = []
    for body in bodies:
        own = [input_value(name, v.type) for name, v in zip(names, body.inputs, strict=True)]
        new = dict(zip(captures, held, strict=True)) | dict(zip(body.inputs, own, strict=True))
        graphs.append(Graph((*own, *held), substitute(body.outputs, new)))
    read = {v for g in graphs for n in g.nodes for v in (*n.inputs, *g.outputs)}
    keep = [k for k, v in enumerate(held) if v in read]
    inputs = [(*g.inputs[: len(names)], *(held[k] for k in keep)) for g in graphs]
    closed = [Graph(own, g.outputs) for own, g in zip(inputs, graphs, strict=True)]
    return closed, [v for k, v in enumerate(captures) if k in set(keep)]


def _invariants(body: Body) -> Iterable[Value]:
    """The values that a body computes from outer values alone and goes on to use, as far down as that goes."""
    varies: dict[Node, bool] = {}  # whether a node depends on the body's inputs
    reads: dict[Node, bool] = {}  # whether it depends on captured values
    nodes = _inner_nodes(body)
    for node in nodes:
        varies[node] = any(v in body.inputs or varies.get(v.node, False) for v in node.inputs)
        reads[node] = any(v in body.captured or reads.get(v.node, False) for v in node.inputs)

    def invariant(v: Value) -> bool:
        return v in body.captured or (v.node in reads and reads[v.node] and not varies[v.node])

    found: dict[Value, None] = {}
    for node in nodes:
        if varies[node]:
            found |= {v: None for v in node.inputs if invariant(v)}
    return found | {v: None for v in body.outputs if invariant(v)}


def _inner_nodes(body: Body) -> list[Node]:
    """The nodes of a body, producers first: everything between its outputs and what it captured."""
    order: dict[Node, None] = {}
    stack = [(v, False) for v in reversed(body.outputs)]
    while stack:
        v, inputs_done = stack.pop()
        if v in body.captured or v.node in order or v in body.inputs:
            continue
        if inputs_done:
            order[v.node] = None
        else:
            stack.append((v, True))
            stack += [(u, False) for u in reversed(v.node.inputs)]
    return list(order)
