"""Whole Jacobians and Hessians, and linear maps: `jacrev`, `jacfwd`, `hessian`, `linearize`, spelled and behaving as JAX's.

A Jacobian is a vector-Jacobian product (or Jacobian-vector product) for every row (or column) of the identity. The
function is traced and differentiated once; the products for all rows are one batched graph, not a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc import ops
from graphc.autodiff.batching import batch
from graphc.autodiff.reverse import carries_gradient, pullback
from graphc.autodiff.transforms import pushforward, zeros_like
from graphc.errors import NotDifferentiableError
from graphc.frontends.python.functions import value_of
from graphc.frontends.python.transforms import Call, deliver, dressed, matching, result_and_aux
from graphc.frontends.python.tree import Structure, unflatten
from graphc.frontends.python.where import here
from graphc.ir.dims import DimLike, product
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node, Value, substitute, toposort
from graphc.ops.batching import lead, move_axis

__all__ = ["hessian", "jacfwd", "jacrev", "linearize"]

Function = Callable[..., Any]
_INT64 = dtype_of("int64")


def jacrev(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that gives the Jacobian of `function` with respect to the arguments `argnums`, row by row.

    Of a result of shape R and an argument of shape A it has the shape R + A. It is arranged as the result, with the
    argument's tree in the place of each array (a tuple of such trees when `argnums` is a sequence). With `has_aux` the
    function returns `(result, aux)`, and the new one `(jacobian, aux)`.

    Cheaper than `jacfwd` where the result has fewer elements than the arguments.
    Raises NotDifferentiableError for arguments or results that are not floating point.
    """
    return _jacobian(function, argnums, has_aux, _rows, "jacrev")


def jacfwd(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """The Jacobian as `jacrev` gives it, column by column: cheaper where the arguments have fewer elements."""
    return _jacobian(function, argnums, has_aux, _columns, "jacfwd")


def hessian(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that gives the second derivatives, `jacfwd(jacrev(function))`.

    Of a result of shape R and an argument of shape A the shape is R + A + A; arranged as the Jacobian of the Jacobian.
    """
    return jacfwd(jacrev(function, argnums, has_aux), argnums, has_aux)


def _jacobian(
    function: Function,
    argnums: int | Sequence[int],
    has_aux: bool,
    blocks: Callable[[Call, Sequence[Value], Sequence[Value]], list[list[Value]]],
    name: str,
) -> Function:
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        with here():
            call = Call(function, args, kwargs)
            chosen = [call.inputs_of(n) for n in (argnums if isinstance(argnums, Sequence) else [argnums])]
            wrt = [call.value(leaf) for leaves, _ in chosen for leaf in leaves]
            structure, count, aux = result_and_aux(call, has_aux)
            outputs = call.body.outputs[:count]
            for v in outputs:
                if not carries_gradient(v.type):
                    raise NotDifferentiableError(
                        f"{name} of {call.name}: a result is {v.type}, and only floating point arrays have "
                        "derivatives; return it beside the result, with has_aux=True"
                    )
            table = blocks(call, outputs, wrt)
            found = call.apply([*(v for row in table for v in row), *call.body.outputs[count:]])
        rows = [found[k * len(wrt) : (k + 1) * len(wrt)] for k in range(count)]
        result = unflatten(structure, [_arguments(row, chosen, isinstance(argnums, Sequence)) for row in rows])
        return (result, unflatten(aux, found[count * len(wrt) :])) if has_aux else result

    return dressed(jacobian, function, name)


def _arguments(leaves: Sequence[Any], chosen: Sequence[tuple[Sequence[int], Structure]], several: bool) -> Any:
    trees, at = [], 0
    for numbers, structure in chosen:
        trees.append(unflatten(structure, leaves[at : at + len(numbers)]))
        at += len(numbers)
    return tuple(trees) if several else trees[0]


def _rows(call: Call, outputs: Sequence[Value], wrt: Sequence[Value]) -> list[list[Value]]:
    """For every output the derivatives with respect to each of `wrt`: one product a row of the identity."""
    table = []
    for k, y in enumerate(outputs):
        seed = call.stand_in(f"cotangent{k}", y)
        found = pullback([y], [seed], wrt)
        many, batched = batch(
            [zeros_like(x) if g is None else g for g, x in zip(found, wrt, strict=True)],
            {seed: _identity(y)},
            size := product(y.shape),
        )
        every = [lead(v, size, b) for v, b in zip(many, batched, strict=True)]
        table.append([ops.reshape(v, shape=(*y.shape, *x.shape)) for v, x in zip(every, wrt, strict=True)])
    return table


def _columns(call: Call, outputs: Sequence[Value], wrt: Sequence[Value]) -> list[list[Value]]:
    """The same, one product a column."""
    columns = []
    for k, x in enumerate(wrt):
        direction = call.stand_in(f"tangent{k}", x)
        found = pushforward(outputs, [x], [direction])
        many, batched = batch(
            [zeros_like(y) if t is None else t for t, y in zip(found, outputs, strict=True)],
            {direction: _identity(x)},
            size := product(x.shape),
        )
        every = [move_axis(lead(v, size, b), 0, v.rank - b) for v, b in zip(many, batched, strict=True)]
        columns.append([ops.reshape(v, shape=(*y.shape, *x.shape)) for v, y in zip(every, outputs, strict=True)])
    return [[column[k] for column in columns] for k in range(len(outputs))]


def _identity(v: Value) -> Value:
    """The identity whose rows have the shape of `v`: [elements of v, *shape]."""
    size: DimLike = product(v.shape)
    row, column = (ops.iota(shape=(size, size), axis=k, dtype=_INT64) for k in (0, 1))
    return ops.reshape(ops.cast(ops.eq(row, column), dtype=v.dtype), shape=(size, *v.shape))


# --------------------------------------------------------------------------------------------------------- linearize


def linearize(function: Function, *primals: Any) -> tuple[Any, Function]:
    """`(function(*primals), push)`: push maps tangents of the arguments to the tangent of the result.

    As `jvp`, but what depends on the primals alone is computed once, here, and used by every call of push.
    """
    with here():
        call = Call(function, primals)
        call.keep_arguments()
        outputs = call.body.outputs
        wrt = [call.value(k) for k in range(len(call.leaves))]
        tangents = [call.stand_in(f"tangent{k}", v) for k, v in enumerate(wrt)]
        found = pushforward(outputs, wrt, tangents)
        moved = [zeros_like(v) if t is None else t for t, v in zip(found, outputs, strict=True)]
        fixed = _boundary(moved, tangents)
        results = call.apply([*outputs, *fixed])
        kept = dict(zip(fixed, results[len(outputs) :], strict=True))

    def push(*directions: Any) -> Any:
        with here():
            given = matching(directions, call.structure.children[0], wrt, f"the tangent of {call.name}")
            known = {v: value_of(x) for v, x in (*kept.items(), *zip(tangents, given, strict=True))}
            return unflatten(call.body.results, deliver(substitute(moved, known)))

    return unflatten(call.body.results, results[: len(outputs)]), push


def _boundary(outputs: Sequence[Value], sources: Sequence[Value]) -> list[Value]:
    """The values that do not depend on `sources`, where they enter what does; no constants."""
    varies: dict[Node, bool] = {}
    found: dict[Value, None] = {}
    for node in toposort(outputs):
        varies[node] = any(v in sources or varies[v.node] for v in node.inputs)
        if varies[node]:
            found |= {v: None for v in node.inputs if v not in sources and not varies[v.node]}
    found |= {v: None for v in outputs if v not in sources and not varies[v.node]}
    return [v for v in found if v.literal is None]
