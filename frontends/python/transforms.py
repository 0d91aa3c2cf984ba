"""Derivatives of Python functions, spelled and behaving as JAX's functions of these names.

Each traces the function for the arguments at hand and transforms the graph (`graphc.autodiff`), so what comes out is
graph while something is traced, and arrays outside of any trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.autodiff.prune import tidied
from graphc.autodiff.reverse import carries_gradient, pullback
from graphc.autodiff.transforms import pushforward, zeros_like
from graphc.errors import NotDifferentiableError, TraceError
from graphc.frontends.python.functions import evaluate, value_of
from graphc.frontends.python.promotion import is_number
from graphc.frontends.python.tensor import Tensor
from graphc.frontends.python.trace import Body, argument_names, describe, subtrace
from graphc.frontends.python.tracing import current
from graphc.frontends.python.tree import Structure, flatten, leaves_with_paths, unflatten
from graphc.frontends.python.where import here
from graphc.ir.graph import Graph, Value, input_value, substitute
from graphc.ops.functions import full

__all__ = [
    "Call",
    "Spread",
    "argument_value",
    "deliver",
    "dressed",
    "grad",
    "hessian_vector_product",
    "jvp",
    "matching",
    "result_and_aux",
    "value_and_grad",
    "vjp",
]

Function = Callable[..., Any]


class Call:
    """A function traced for some arguments, ready to be transformed.

    The graph is over inputs of its own; `apply` puts the arguments in their place.
    """

    def __init__(self, function: Function, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> None:
        kwargs = kwargs or {}
        self.name = getattr(function, "__name__", type(function).__name__)
        self.leaves, self.structure = flatten((tuple(args), kwargs))
        self.names = argument_names(function, args, kwargs)
        self.specs = [describe(leaf, n) for leaf, n in zip(self.leaves, self.names, strict=True)]
        spread = Spread(function, self.name)
        self.body: Body = subtrace(spread, self.leaves, self.specs, self.structure)

    def keep_arguments(self) -> None:
        """Copy the arrays, for a transformation that is applied later: the caller may write into his meanwhile."""
        self.leaves = [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in self.leaves]

    def inputs_of(self, position: int) -> tuple[list[int], Structure]:
        """The numbers of the leaves of a positional argument, and the argument's structure."""
        positional = self.structure.children[0].children
        if not -len(positional) <= position < len(positional):
            raise TraceError(
                f"{self.name} is differentiated with respect to argument {position}, it was given {len(positional)}"
            )
        position %= len(positional)
        start = sum(c.count for c in positional[:position])
        return list(range(start, start + positional[position].count)), positional[position]

    def value(self, leaf: int) -> Value:
        """The input that stands for a leaf. Raises NotDifferentiableError when it cannot be differentiated."""
        s = self.specs[leaf]
        if s is None or not carries_gradient(s.type):
            what = type(self.leaves[leaf]).__name__ if s is None else str(s.type)
            raise NotDifferentiableError(
                f"{self.name} is differentiated with respect to {self.names[leaf]!r}, which is {what}: only floating "
                "point arrays have derivatives; convert it (x.astype), or leave it out with argnums"
            )
        traced = [k for k, other in enumerate(self.specs) if other is not None]
        return self.body.inputs[traced.index(leaf)]

    def stand_in(self, name: str, like: Value) -> Value:
        """An input for what comes later, a cotangent or tangent: other than those of any trace it may come from."""
        return input_value(name, like.type, level=max((v.node.level for v in self.body.inputs), default=0))

    def apply(self, outputs: Sequence[Value], known: Mapping[Value, Value] | None = None) -> list[Any]:
        """Values over the function's inputs as tensors, or arrays, over its arguments; `known` says what to put in the
        place of others."""
        return deliver(self.substituted(outputs, known))

    def substituted(self, outputs: Sequence[Value], known: Mapping[Value, Value] | None = None) -> list[Value]:
        """The values of `apply`."""
        now = current()
        if now is not None:
            for v, owner in self.body.captured.items():
                now.capture(v, owner)
        same = {v: v for v in self.body.captured}
        given = [leaf for leaf, s in zip(self.leaves, self.specs, strict=True) if s is not None]
        new = {v: argument_value(a) for v, a in zip(self.body.inputs, given, strict=True)}
        return substitute(outputs, same | new | dict(known or {}))


class Spread:
    """`function` as a function of the pair of its positional and its keyword arguments."""

    def __init__(self, function: Function, name: str) -> None:
        self._function, self.__name__ = function, name

    def __call__(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        return self._function(*args, **kwargs)


def argument_value(argument: Any) -> Value:
    """An argument as a value of the type that `describe` gives it: a Python number has NumPy's."""
    if isinstance(argument, Tensor):
        return argument.value
    return value_of(np.asarray(argument) if is_number(argument) else argument)


def deliver(results: Sequence[Value]) -> list[Any]:
    """Values as tensors of the current trace; as arrays outside of any."""
    if current() is not None:
        return [Tensor(v) for v in results]
    return list(evaluate(tidied(Graph((), results)).outputs))  # a gradient leaves its loops twice


def dressed(derived: Function, function: Function, prefix: str) -> Function:
    """A function derived from another one with its signature, so that arguments have the names of its parameters."""
    derived.__name__ = f"{prefix}_{getattr(function, '__name__', 'function')}"
    derived.__wrapped__ = function  # type: ignore[attr-defined]  # what inspect.signature follows
    return derived


def _both_given(name: str, function: Function, primals: Any, tangents: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """Primals and tangents. Raises TraceError unless both are there and are tuples."""
    what = getattr(function, "__name__", "the function")
    shown = _parameters(function).split(", ")
    usage = f"{name}({what}, ({', '.join(shown)},), ({', '.join(f't_{n}' for n in shown)},))"
    for label, value in (("primals", primals), ("tangents", tangents)):
        if value is None:
            raise TraceError(f"{name} of {what} is given no {label}: call it as {usage}")
        if not isinstance(value, list | tuple):
            kind = "an array" if describe(value, label) is not None else f"a {type(value).__name__}"
            raise TraceError(f"{name} of {what}: {label} is {kind}; a tuple is needed, one entry an argument: {usage}")
    return primals, tangents


def _parameters(function: Function) -> str:
    """What the positional arguments of a function are called, for messages."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return "x"
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return ", ".join(p.name for p in parameters if p.kind in kinds) or "x"


def value_and_grad(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that gives `(function(*args), gradient)`.

    The gradient is with respect to the positional argument `argnums`, and arranged as it is; a tuple of gradients when
    `argnums` is a sequence. With `has_aux` the function returns `(loss, aux)`, and so does the new one, as
    `((loss, aux), gradient)`. On a Graph, see `graphc.autodiff.transforms.value_and_grad`.

    Where the loss does not depend on an argument the gradient is zero.
    Raises NotDifferentiableError when the loss is not a floating point scalar, or an argument not floating point.
    """

    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        with here():
            call = Call(function, args, kwargs)
            several = isinstance(argnums, Sequence)
            chosen = [call.inputs_of(n) for n in (argnums if isinstance(argnums, Sequence) else [argnums])]
            wrt = [call.value(leaf) for leaves, _ in chosen for leaf in leaves]
            loss = _loss(call, has_aux)
            found = pullback([loss], [full(1.0, (), loss.dtype)], wrt)
            grads = [zeros_like(v) if g is None else g for g, v in zip(found, wrt, strict=True)]
            results = call.apply([*call.body.outputs, *grads])
        values, rest = unflatten(call.body.results, results[: len(call.body.outputs)]), results[-len(grads) :]
        trees, at = [], 0
        for leaves, structure in chosen:
            trees.append(unflatten(structure, rest[at : at + len(leaves)]))
            at += len(leaves)
        return values, tuple(trees) if several else trees[0]

    return dressed(value_and_gradient, function, "value_and_grad")


def grad(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that gives the gradient of a scalar-valued one; with `has_aux`, `(gradient, aux)`.

    See `value_and_grad`, which gives the value as well.
    """
    both = value_and_grad(function, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, result = both(*args, **kwargs)
        return (result, value[1]) if has_aux else result

    return dressed(gradient, function, "grad")


def vjp(function: Function, *primals: Any, has_aux: bool = False) -> Any:
    """`(function(*primals), pull)`: pull maps cotangents, arranged as the result, to a tuple of cotangents of the
    arguments. With `has_aux` the function returns `(result, aux)`, and this `(result, pull, aux)`.

    Raises TraceError when there are no primals."""
    if not primals:
        what = getattr(function, "__name__", "the function")
        raise TraceError(f"vjp of {what} is given no primals: call it as vjp({what}, {_parameters(function)})")
    with here():
        call = Call(function, primals)
        call.keep_arguments()
        structure, count, aux = result_and_aux(call, has_aux)
        outputs = call.body.outputs[:count]
        wrt = [call.value(k) for k in range(len(call.leaves))]
        results = call.apply(call.body.outputs)

    def pull(cotangents: Any) -> Any:
        with here():
            given = matching(cotangents, structure, outputs, f"the cotangent of {call.name}")
            seeds = {
                call.stand_in(f"cotangent{k}", v): value_of(g)
                for k, (g, v) in enumerate(zip(given, outputs, strict=True))
            }
            arriving = [s if carries_gradient(s.type) else None for s in seeds]
            found = pullback(outputs, arriving, wrt)
            grads = [zeros_like(v) if g is None else g for g, v in zip(found, wrt, strict=True)]
            return unflatten(call.structure.children[0], call.apply(grads, seeds))

    value = unflatten(structure, results[:count])
    return (value, pull, unflatten(aux, results[count:])) if has_aux else (value, pull)


def jvp(
    function: Function,
    primals: Sequence[Any] | None = None,
    tangents: Sequence[Any] | None = None,
    has_aux: bool = False,
) -> Any:
    """`(function(*primals), tangent)`: the derivative in the direction `tangents`, which are arranged as the primals.

    With `has_aux` the function returns `(result, aux)`, and this `(result, tangent, aux)`.
    Raises TraceError when primals or tangents are missing, are no tuples, or do not fit each other.
    """
    primals, tangents = _both_given("jvp", function, primals, tangents)
    with here():
        call = Call(function, primals)
        structure, count, aux = result_and_aux(call, has_aux)
        outputs = call.body.outputs[:count]
        wrt = [call.value(k) for k in range(len(call.leaves))]
        given = matching(tuple(tangents), call.structure.children[0], wrt, f"the tangent of {call.name}")
        directions = [value_of(t) for t in given]
        found = pushforward(outputs, wrt, directions)
        moved = [zeros_like(v) if t is None else t for t, v in zip(found, outputs, strict=True)]
        results = call.apply([*call.body.outputs, *moved], {t: t for t in directions})
    value, tangent = unflatten(structure, results[:count]), unflatten(structure, results[-count:] if count else [])
    return (value, tangent, unflatten(aux, results[count:-count])) if has_aux else (value, tangent)


def hessian_vector_product(
    function: Function, primals: Sequence[Any] | None = None, tangents: Sequence[Any] | None = None
) -> Any:
    """The derivative of the gradient of a scalar-valued function in the direction `tangents`: forward over reverse.

    A tuple arranged as the primals; a single tree when there is one primal.
    """
    primals, tangents = _both_given("hessian_vector_product", function, primals, tangents)
    every = tuple(range(len(primals)))
    _, product = jvp(grad(function, argnums=every), primals, tangents)
    return product[0] if len(primals) == 1 else product


def _loss(call: Call, has_aux: bool) -> Value:
    structure, count, _ = result_and_aux(call, has_aux)
    if count != 1 or structure.kind is not None:
        raise NotDifferentiableError(
            f"the gradient of {call.name} was asked for, which returns {structure}: only a scalar has a gradient"
            + ("" if has_aux else " (with has_aux=True the function may return a pair of the loss and anything else)")
        )
    loss = call.body.outputs[0]
    if loss.rank or not carries_gradient(loss.type):
        raise NotDifferentiableError(
            f"the gradient of {call.name} was asked for, whose result is {loss.type}: it must be a floating point "
            "scalar; reduce it to one (a sum, a mean), or use vjp or jvp"
        )
    return loss


def result_and_aux(call: Call, has_aux: bool) -> tuple[Structure, int, Structure]:
    """The structure of the result proper, its number of leaves, and the structure of what comes beside it."""
    whole = call.body.results
    if not has_aux:
        return whole, whole.count, Structure(type(None))
    if whole.kind is not tuple or len(whole.children) != 2:
        raise TraceError(f"{call.name} returns {whole}; with has_aux=True it must return a pair (result, aux)")
    return whole.children[0], whole.children[0].count, whole.children[1]


def matching(tree: Any, structure: Structure, like: Sequence[Value], what: str) -> list[Any]:
    """The leaves of a tree that must be arranged as `structure`, with the types of `like`."""
    leaves, found = flatten(tree)
    if found != structure:
        raise TraceError(f"{what} is arranged as {found}; it must be as {structure}")
    for (path, leaf), v in zip(leaves_with_paths(tree), like, strict=True):
        s = describe(leaf, path)
        if s is None or s.shape != v.shape or not (s.weak or s.dtype == v.dtype or not carries_gradient(v.type)):
            shown = "no array" if s is None else s.type
            raise TraceError(f"{what}{f' at {path}' if path else ''} is {shown}; {v.type} is needed")
    return [value_of(leaf, v.dtype.numpy) if is_number(leaf) else leaf for leaf, v in zip(leaves, like, strict=True)]
