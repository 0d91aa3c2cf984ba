"""The derivatives under their public names: of a Graph they give a Graph, of a Python function a Python function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.autodiff import transforms as on_graphs
from graphc.errors import GradientError
from graphc.frontends.python import transforms as on_functions
from graphc.ir.graph import Graph

__all__ = ["grad", "hessian_vector_product", "jvp", "value_and_grad", "vjp"]

Names = on_graphs.Names


def value_and_grad(
    function: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    wrt: Names | None = None,
    of: Any = None,
) -> Any:
    """The value and the gradient of a scalar.

    Of a Python function, as JAX's: a function that gives `(value, gradient)` with respect to the arguments `argnums`.
    Of a Graph: a Graph with the gradients of `of` with respect to `wrt` as further outputs.
    See `graphc.frontends.python.transforms` and `graphc.autodiff.transforms`.
    """
    if isinstance(function, Graph):
        _for_functions(argnums=argnums or None, has_aux=has_aux or None)
        return on_graphs.value_and_grad(function, wrt, of)
    _for_graphs(wrt=wrt, of=of)
    return on_functions.value_and_grad(function, argnums, has_aux)


def grad(
    function: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    wrt: Names | None = None,
    of: Any = None,
) -> Any:
    """The gradient of a scalar: of a Python function, as JAX's; of a Graph with respect to the names `wrt`."""
    if isinstance(function, Graph):
        _for_functions(argnums=argnums or None, has_aux=has_aux or None)
        return on_graphs.grad(function, wrt, of)
    _for_graphs(wrt=wrt, of=of)
    return on_functions.grad(function, argnums, has_aux)


def vjp(function: Any, *primals: Any, has_aux: bool = False, wrt: Names | None = None, of: Names | None = None) -> Any:
    """The vector-Jacobian product: `vjp(f, *primals)` as JAX's, or `vjp(graph, wrt=, of=)` as a Graph."""
    if isinstance(function, Graph):
        _for_functions(primals=primals or None, has_aux=has_aux or None)
        return on_graphs.vjp(function, wrt, of)
    _for_graphs(wrt=wrt, of=of)
    return on_functions.vjp(function, *primals, has_aux=has_aux)


def jvp(
    function: Any,
    primals: Sequence[Any] | None = None,
    tangents: Sequence[Any] | None = None,
    has_aux: bool = False,
    *,
    wrt: Names | None = None,
    of: Names | None = None,
) -> Any:
    """The Jacobian-vector product: `jvp(f, primals, tangents)` as JAX's, or `jvp(graph, wrt=, of=)` as a Graph."""
    if isinstance(function, Graph):
        _for_functions(primals=_given(primals), tangents=_given(tangents), has_aux=has_aux or None)
        return on_graphs.jvp(function, wrt, of)
    _for_graphs(wrt=wrt, of=of)
    return on_functions.jvp(function, primals, tangents, has_aux)


def hessian_vector_product(
    function: Any,
    primals: Sequence[Any] | None = None,
    tangents: Sequence[Any] | None = None,
    *,
    wrt: Names | None = None,
    of: Any = None,
) -> Any:
    """The second derivative of a scalar in a direction: of a Python function at `primals` along `tangents`, or of a
    Graph as a Graph."""
    if isinstance(function, Graph):
        _for_functions(primals=_given(primals), tangents=_given(tangents))
        return on_graphs.hessian_vector_product(function, wrt, of)
    _for_graphs(wrt=wrt, of=of)
    return on_functions.hessian_vector_product(function, primals, tangents)


def _given(values: Any) -> Any:
    return None if isinstance(values, tuple | list) and not values else values


def _for_graphs(**given: Any) -> None:
    """Raise GradientError for an argument that means something for a Graph only."""
    for name, value in given.items():
        if value is not None:
            raise GradientError(f"{name}= names values of a Graph; of a Python function say argnums=, by position")


def _for_functions(**given: Any) -> None:
    """Raise GradientError for an argument that means something for a Python function only."""
    for name, value in given.items():
        if value is not None:
            raise GradientError(
                f"{name} is for Python functions; of a Graph say wrt= (with respect to which values) and of= (of which)"
            )
