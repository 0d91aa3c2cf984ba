"""The derivatives under their public names: of a Graph they give a Graph, of a Python function a Python function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.autodiff import transforms as on_graphs
from graphc.frontends.python import transforms as on_functions
from graphc.ir.graph import Graph

__all__ = ["grad", "hessian_vector_product", "jvp", "value_and_grad", "vjp"]


def value_and_grad(
    function: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    wrt: on_graphs.Names | None = None,
    of: Any = None,
) -> Any:
    """The value and the gradient of a scalar.

    Of a Python function, as JAX's: a function that gives `(value, gradient)` with respect to the arguments `argnums`.
    Of a Graph: a Graph with the gradients of `of` with respect to `wrt` as further outputs.
    See `graphc.frontends.python.transforms` and `graphc.autodiff.transforms`.
    """
    if isinstance(function, Graph):
        return on_graphs.value_and_grad(function, wrt, of)
    return on_functions.value_and_grad(function, argnums, has_aux)


def grad(
    function: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    wrt: on_graphs.Names | None = None,
    of: Any = None,
) -> Any:
    """The gradient of a scalar: of a Python function, as JAX's; of a Graph with respect to the names `wrt`."""
    if isinstance(function, Graph):
        return on_graphs.grad(function, wrt, of)
    return on_functions.grad(function, argnums, has_aux)


def vjp(
    function: Any,
    *primals: Any,
    has_aux: bool = False,
    wrt: on_graphs.Names | None = None,
    of: on_graphs.Names | None = None,
) -> Any:
    """The vector-Jacobian product: `vjp(f, *primals)` as JAX's, or `vjp(graph, wrt=, of=)` as a Graph."""
    if isinstance(function, Graph):
        return on_graphs.vjp(function, wrt, of)
    return on_functions.vjp(function, *primals, has_aux=has_aux)


def jvp(
    function: Any,
    primals: Sequence[Any] = (),
    tangents: Sequence[Any] = (),
    has_aux: bool = False,
    *,
    wrt: on_graphs.Names | None = None,
    of: on_graphs.Names | None = None,
) -> Any:
    """The Jacobian-vector product: `jvp(f, primals, tangents)` as JAX's, or `jvp(graph, wrt=, of=)` as a Graph."""
    if isinstance(function, Graph):
        return on_graphs.jvp(function, wrt, of)
    return on_functions.jvp(function, primals, tangents, has_aux)


def hessian_vector_product(
    function: Any,
    primals: Sequence[Any] = (),
    tangents: Sequence[Any] = (),
    *,
    wrt: on_graphs.Names | None = None,
    of: Any = None,
) -> Any:
    """The second derivative of a scalar in a direction: of a Python function at `primals` along `tangents`, or of a
    Graph as a Graph."""
    if isinstance(function, Graph):
        return on_graphs.hessian_vector_product(function, wrt, of)
    return on_functions.hessian_vector_product(function, primals, tangents)
