"""An imported model as a Python function: called, composed and differentiated like any other.

model = graphc.function("classifier.onnx")
y = model(x)                                            # eagerly on arrays, or as a part of a traced function
loss = lambda params, x, t: graphc.mean((model(x, params=params) - t) ** 2)
grads = graphc.compile(graphc.grad(loss))(model.params, x, t)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from graphc.errors import InputError, NeedsValue
from graphc.frontends.python.functions import evaluate, value_of
from graphc.frontends.python.tensor import Tensor
from graphc.frontends.python.tracing import current
from graphc.frontends.python.where import here
from graphc.ir.graph import Graph, Value, substitute
from graphc.ir.interpret import run
from graphc.ir.types import TensorType

__all__ = ["ModelFunction", "parameters_of"]


class _Source(Protocol):
    """What the function needs of a model: see `graphc.runtime.executable.Source`."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> Sequence[Any]: ...
    @property
    def outputs(self) -> Sequence[Any]: ...
    def graph(self, arguments: Mapping[str, Any], known: Collection[str]) -> Graph: ...


class ModelFunction:
    """A model as a function of its inputs, in order or by name; several outputs come as a tuple.

    `params` are its trainable weights by name, float arrays. A call may give others in their place, all or some of
    them: `model(x, params={"fc.weight": w})`.
    """

    #: graphs kept, one for each signature of inputs; the one that was not used for longest goes first
    KEEP = 16

    def __init__(self, source: _Source, load: Callable[[], Graph]) -> None:
        self._source, self._load = source, load
        self._graphs: OrderedDict[object, Graph] = OrderedDict()
        self.__name__ = source.name

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self._source.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self._source.outputs)

    @cached_property
    def params(self) -> dict[str, np.ndarray]:
        """The floating point constants of the model by their names in it."""
        return {name: np.asarray(v.literal) for name, v in parameters_of(self._load()).items()}

    def __repr__(self) -> str:
        return f"<function of the model {self.__name__}: {', '.join(self.input_names)}>"

    def __call__(self, *args: Any, params: Mapping[str, Any] | None = None, **kwargs: Any) -> Any:
        given = self._named(args, kwargs)
        with here():
            graph = self._graph_for(given)
            weights = self._weights(graph, params or {})
            if current() is None and not any(isinstance(a, Tensor) for a in weights.values()):
                results: Sequence[Any] = self._run(graph, given, weights)
            else:
                new = {v: value_of(given[n]) for v, n in zip(graph.inputs, graph.input_names, strict=True)}
                new |= {v: value_of(w) for v, w in weights.items()}
                results = [Tensor(v) for v in substitute(graph.outputs, new)]
        return results[0] if len(results) == 1 else tuple(results)

    def _run(self, graph: Graph, given: dict[str, Any], weights: dict[Value, Any]) -> Sequence[Any]:
        if weights:
            changed = {v: value_of(w) for v, w in weights.items()}
            graph = Graph(graph.inputs, substitute(graph.outputs, {v: v for v in graph.inputs} | changed))
        if not graph.inputs:
            return evaluate(graph.outputs)
        return run(graph, *(given[n] for n in graph.input_names))

    def _named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        names = self.input_names
        if len(args) > len(names):
            raise InputError(f"{self.__name__} takes {len(names)} inputs ({', '.join(names)}), {len(args)} were given")
        given = dict(zip(names, args, strict=False))
        for name, value in kwargs.items():
            if name not in names or name in given:
                what = "was given twice" if name in given else f"does not exist; there are {', '.join(names)}"
                raise InputError(f"{self.__name__}: the input {name!r} {what}")
            given[name] = value
        if missing := [n for n in names if n not in given]:
            raise InputError(f"{self.__name__}: missing input{'s' * (len(missing) > 1)} {', '.join(missing)}")
        return {p.name: self._argument(p, given[p.name]) for p in self._source.inputs}

    def _argument(self, port: Any, argument: Any) -> Any:
        """The argument, checked; Python numbers and lists get the input's element type."""
        wanted = port.type
        if not isinstance(wanted, TensorType):
            if current() is not None:
                raise InputError(f"{self.__name__}: input {port.name!r} is {wanted}, which cannot be traced")
            return argument
        x = argument if isinstance(argument, Tensor | np.ndarray) else np.asarray(argument, wanted.dtype.numpy)
        if x.dtype != wanted.dtype.numpy:
            raise InputError(
                f"{self.__name__}: input {port.name!r} is {wanted}, but {x.dtype} was given; convert it with astype"
            )
        fits = x.ndim == wanted.rank and all(
            a == b or not isinstance(b, int) for a, b in zip(x.shape, wanted.shape, strict=True)
        )
        if not fits:
            raise InputError(f"{self.__name__}: input {port.name!r} is {wanted}, but the shape {x.shape} was given")
        return x

    def _graph_for(self, given: Mapping[str, Any]) -> Graph:
        """The graph for arguments of these types; where sizes depend on an argument's value, for that value."""
        known: tuple[str, ...] = ()
        while True:
            key = tuple((a.tobytes() if n in known else None, getattr(a, "shape", None)) for n, a in given.items())
            if key in self._graphs:
                self._graphs.move_to_end(key)
                return self._graphs[key]
            # an array without memory of its own stands for a traced tensor: only its type is looked at
            stand_in = {
                n: np.broadcast_to(np.zeros((), a.dtype), a.shape) if isinstance(a, Tensor) else a
                for n, a in given.items()
            }
            try:
                graph = self._graphs[key] = self._source.graph(stand_in, known)
                while len(self._graphs) > self.KEEP:
                    self._graphs.popitem(last=False)
                return graph
            except NeedsValue as request:
                for name in request.names:
                    if isinstance(given[name], Tensor) or name in known:
                        raise
                known = (*known, *request.names)

    def _weights(self, graph: Graph, params: Mapping[str, Any]) -> dict[Value, Any]:
        """The graph's constants that `params` replaces, and what replaces them."""
        if not params:
            return {}
        known = parameters_of(graph)
        result = {}
        for name, w in params.items():
            v = known.get(name)
            if v is None:
                if name in self.params:
                    continue  # it is not read for inputs of these shapes
                raise InputError(
                    f"{self.__name__} has no parameter {name!r}; there are {', '.join(sorted(self.params))}"
                )
            if tuple(w.shape) != v.shape or np.dtype(w.dtype) != v.dtype.numpy:
                raise InputError(
                    f"{self.__name__}: parameter {name!r} is {v.type}, but {w.dtype}{list(w.shape)} was given"
                )
            result[v] = w
        return result


def parameters_of(graph: Graph) -> dict[str, Value]:
    """The constants of a graph that training would change: floating point arrays that have a name."""
    return {
        node.attrs["data"].name: node.outputs[0]
        for node in graph.nodes
        if node.op.name == "constant" and node.attrs["data"].name and node.attrs["data"].dtype.is_float
    }
