"""Control flow for traced functions: `cond`, `scan`, `while_loop`, `fori_loop`, and functions that are kept whole:
`checkpoint`, `custom_vjp`. Spelled as JAX's; bodies may use any value around them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from graphc import ops
from graphc.errors import TraceError
from graphc.frontends.python.functions import evaluate, value_of
from graphc.frontends.python.promotion import KINDS, is_number, kind_of
from graphc.frontends.python.tensor import Tensor
from graphc.frontends.python.trace import Body, Spec, close, describe, subtrace
from graphc.frontends.python.tracing import current
from graphc.frontends.python.tree import Structure, flatten, leaves_with_paths, unflatten
from graphc.frontends.python.where import here
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, inline, input_value
from graphc.ir.types import TensorType

__all__ = ["checkpoint", "checkpointing", "cond", "custom_vjp", "fori_loop", "scan", "while_loop"]

#: the checkpoints of scans that say none themselves
_checkpoints: ContextVar[int] = ContextVar("graphc_checkpoints", default=0)
_INT64, _BOOL = dtype_of("int64"), dtype_of("bool")
_FOREVER = np.int64(2**63 - 1)


def _results(values: Sequence[Value]) -> list[Any]:
    return list(evaluate(values)) if current() is None else [Tensor(v) for v in values]


def _check_function(name: str, parameter: str, given: Any, instead: str) -> None:
    """Raises TraceError when `given` is no function, and says what was probably meant."""
    if callable(given):
        return
    kind = type(given).__name__
    if isinstance(given, Tensor | np.ndarray | np.generic):
        kind = f"an array ({np.dtype(given.dtype).name}{list(given.shape)})"
    with here():
        raise TraceError(f"{name}: {parameter} is {kind}, and a function is needed{instead}")


def _shown(body: Body, part: Structure | None = None) -> str:
    """The results of a body, or the part of them that comes first, as text with the types of the arrays."""
    part = part or body.results
    return part.showing(v.type for v in body.outputs)


@contextmanager
def checkpointing(every: int) -> Iterator[None]:
    """Scans traced inside keep their carries every so many turns, unless they say something else themselves."""
    token = _checkpoints.set(every)
    try:
        yield
    finally:
        _checkpoints.reset(token)


def _operands(tree: Any, what: str, *, weak: bool = False) -> tuple[list[Value], list[Spec], Structure]:
    """The leaves of a tree as values, with their specs; every leaf must be an array or a number.

    With `weak` a number stays one, which adapts to what it meets; else it gets its kind's default type.
    """
    leaves, structure = flatten(tree)
    values, specs = [], []
    for (path, leaf), _ in zip(leaves_with_paths(tree, what), leaves, strict=True):
        s = describe(leaf, path)
        if s is None:
            raise TraceError(f"{path} is {type(leaf).__name__}; an array or a number is needed")
        if weak and s.weak:
            values.append(leaf.value if isinstance(leaf, Tensor) else value_of(np.asarray(leaf)))
        else:
            values.append(value_of(leaf))
        specs.append(Spec(values[-1].tensor, weak=weak and s.weak))
    return values, specs, structure


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """`true_fun(*operands)` where the scalar `pred` holds, else `false_fun(*operands)`; only the one taken runs.

    Raises TraceError when the branches' results differ in structure, shape or element type.
    """
    instead = ": write lambda: x, or graphc.where(pred, x, y) to choose between arrays"
    with here():
        _check_function("cond", "true_fun", true_fun, instead)
        _check_function("cond", "false_fun", false_fun, instead)
        chosen = value_of(pred, what="the predicate of cond")
        if chosen.rank:
            raise TraceError(
                f"cond: the predicate is {chosen.type}, a scalar is needed; graphc.where chooses by element"
            )
        if chosen.dtype != _BOOL:
            chosen = ops.cast(chosen, dtype=_BOOL)
        values, specs, structure = _operands(operands, "operands", weak=True)
        bodies = [subtrace(f, [None] * len(specs), specs, structure) for f in (true_fun, false_fun)]
        a, b = bodies = _agreeing(bodies)
        if a.results != b.results:
            raise TraceError(f"cond: true_fun returns {_shown(a)} and false_fun returns {_shown(b)}; they must agree")
        for k, (u, v) in enumerate(zip(a.outputs, b.outputs, strict=True)):
            if u.type != v.type:
                raise TraceError(
                    f"cond: result {k} is {u.type} from true_fun and {v.type} from false_fun; make them equal "
                    "(astype, reshape)"
                )
        graphs, captures = close(bodies, [f"x{k}" for k in range(len(values))], hoist=False)
        if not a.outputs:
            return unflatten(a.results, [])
        made = ops.if_(chosen, *values, *captures, then_body=graphs[0], else_body=graphs[1])
        return unflatten(a.results, _results(_tuple(made)))


def _tuple(made: Any) -> tuple[Value, ...]:
    return (made,) if isinstance(made, Value) else tuple(made)


def _agreeing(bodies: Sequence[Body]) -> list[Body]:
    """Two branches with results that came from Python numbers cast to the other branch's types."""
    a, b = bodies
    if a.results != b.results:
        return list(bodies)
    return [_cast_weak(a, [v.tensor for v in b.outputs], b.weak), _cast_weak(b, [v.tensor for v in a.outputs], a.weak)]


def _cast_weak(body: Body, wanted: Sequence[TensorType], keep: Sequence[bool]) -> Body:
    """Results that came from Python numbers in the wanted element types, where those are of the same kind or wider."""
    outputs = tuple(
        ops.cast(v, dtype=t.dtype) if w and not k and v.dtype != t.dtype and _widens(v.tensor, t) else v
        for v, t, w, k in zip(body.outputs, wanted, body.weak, keep, strict=True)
    )
    return body._replace(outputs=outputs)


def _widens(a: TensorType, b: TensorType) -> bool:
    """Whether b's elements are of the same kind as a's, or of a wider one."""
    kinds = [kind_of(np.dtype(t.dtype.numpy)) for t in (a, b)]
    return all(k in KINDS for k in kinds) and KINDS.index(kinds[0]) <= KINDS.index(kinds[1])


def scan(
    f: Callable[..., Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    *,
    checkpoint: int = 0,
    window: int = 0,
) -> tuple[Any, Any]:
    """A loop over the leading axis: `carry, y = f(carry, x)` for every slice x of `xs`.

    Returns the last carry and the ys stacked on a new first axis. `xs` is a tree of arrays of one leading extent, or
    None with `length`. `reverse` walks from the end. The carry keeps its structure, shapes and element types.

    checkpoint  every so many turns, backpropagation keeps only the carry and runs the turns between again: memory for
                sqrt(n) carries instead of n for one more forward pass. 0 keeps every turn's
    window      truncated backpropagation through time: no gradient flows through the carry from one window of so many
                turns to the one before. 0 truncates nowhere
    unroll      accepted as JAX's: a turn costs no dispatch here, so there is nothing to gain from writing out several

    Raises TraceError when the carry changes its type, or leading extents differ.
    """
    order = ": f comes first, scan(f, init, xs)" if callable(init) or callable(xs) else ""
    with here():
        _check_function("scan", "f", f, order)
        carried, carry_specs, carry_structure = _operands(init, "init")
        rows, row_specs, row_structure = _operands(xs, "xs")
        steps = _length(xs, rows, length)
        slices = [Spec(s.type.with_shape(s.shape[1:])) for s in row_specs]
        structure = Structure(tuple, (0, 1), (carry_structure, row_structure))

        def trace_body(specs: Sequence[Spec]) -> Body:
            return subtrace(f, [None] * (len(specs) + len(slices)), [*specs, *slices], structure)

        body = trace_body(carry_specs)
        _pair(body, "scan: f", "carry", "y")
        body, carried = _steady(body, carried, carry_specs, init, carry_structure, trace_body, "scan: f's carry")
        names = [f"carry{k}" for k in range(len(carried))] + [f"x{k}" for k in range(len(rows))]
        (graph,), captures = close([body], names, hoist=True)
        results = _scanned(carried, rows, captures, graph, steps, reverse, checkpoint, window)
        values = _results(results)
        last, ys = values[: len(carried)], values[len(carried) :]
        return unflatten(carry_structure, last), unflatten(body.results.children[1], ys)


def _scanned(
    carried: Sequence[Value],
    rows: Sequence[Value],
    captures: Sequence[Value],
    graph: Graph,
    steps: Any,
    reverse: bool,
    checkpoint: int,
    window: int,
) -> tuple[Value, ...]:
    attrs: dict[str, Any] = {"body": graph, "carries": len(carried), "scanned": len(rows), "reverse": reverse}
    attrs |= {"length": steps} if not rows else {}
    every = checkpoint or _checkpoints.get()
    attrs |= {"checkpoint": every} if every and not (isinstance(steps, int) and steps <= every) else {}
    attrs |= {"window": window} if window else {}
    if not graph.outputs:
        return ()
    return _tuple(ops.scan(*carried, *rows, *captures, **attrs))


def _length(xs: Any, rows: Sequence[Value], length: int | None) -> Any:
    """The number of turns. Raises TraceError where the leading extents differ."""
    found = length
    where = "length"
    for (path, _), v in zip(leaves_with_paths(xs, "xs"), rows, strict=True):
        if not v.rank:
            raise TraceError(f"scan: {path} is {v.type}, which has no leading axis to walk over")
        if found is not None and found != v.shape[0]:
            raise TraceError(f"scan: {path} is {v.type} with {v.shape[0]} slices, but {where} gives {found}")
        found, where = v.shape[0], path
    if isinstance(found, int) and found < 0:
        raise TraceError(f"scan: length is {found}, which is no number of turns")
    if found is None:
        raise TraceError("scan: there is nothing to walk over: give xs, or length")
    return found


def _pair(body: Body, what: str, first: str, second: str) -> None:
    if body.results.kind is not tuple or len(body.results.children) != 2:
        raise TraceError(
            f"{what} must return a pair ({first}, {second}), it returns {_shown(body)}; a {second} that is not needed "
            "is None"
        )


def _steady(
    body: Body,
    carried: list[Value],
    specs: Sequence[Spec],
    init: Any,
    structure: Structure,
    again: Callable[[Sequence[Spec]], Body],
    what: str,
) -> tuple[Body, list[Value]]:
    """The body whose new carry has the types of the old one; a carry that starts as a Python number adapts."""
    returned = body.results.children[0] if what.startswith("scan") else body.results
    if returned != structure:
        raise TraceError(
            f"{what} is arranged as {_shown(body, returned)}, the initial one as "
            f"{structure.showing(s.type for s in specs)}; they must agree"
        )
    leaves, _ = flatten(init)
    weak = [is_number(leaf) or (isinstance(leaf, Tensor) and leaf.weak) for leaf in leaves]
    changed = [
        w and v.type != s.type and v.tensor.shape == s.shape and _widens(s.type, v.tensor)
        for w, s, v in zip(weak, specs, body.outputs, strict=False)
    ]
    if any(changed):
        specs = [Spec(v.tensor) if c else s for c, s, v in zip(changed, specs, body.outputs, strict=False)]
        carried = [
            value_of(leaf, s.dtype.numpy) if c else v
            for leaf, c, v, s in zip(leaves, changed, carried, specs, strict=True)
        ]
        body = again(specs)
    count = len(specs)
    tail = body.outputs[count:]
    head = body._replace(outputs=body.outputs[:count], weak=body.weak[:count])
    head = _cast_weak(head, [s.type for s in specs], [False] * count)
    for (path, _), s, v in zip(leaves_with_paths(init, "carry"), specs, head.outputs, strict=True):
        if v.type != s.type:
            raise TraceError(
                f"{what} changes its type: {path} is {s.type} before a turn and {v.type} after it; they must be equal "
                "(astype, reshape, or another initial value)"
            )
    return body._replace(outputs=(*head.outputs, *tail)), carried


def while_loop(
    cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any, *, bound: int | None = None
) -> Any:
    """`while cond_fun(val): val = body_fun(val)`, starting from `init_val`.

    With `bound` at most so many turns are taken: sizes are then known ahead, so its gradient is compiled as one
    program. Without, the loop may be differentiated too, with memory that grows as it runs.

    Raises TraceError when the value changes its type, or the condition is no scalar.
    """
    order = ": they come first, while_loop(cond_fun, body_fun, init_val)" if callable(init_val) else ""
    with here():
        _check_function("while_loop", "cond_fun", cond_fun, order)
        _check_function("while_loop", "body_fun", body_fun, order)
        carried, specs, structure = _operands((init_val,), "val")

        def trace_body(specs: Sequence[Spec]) -> Body:
            return subtrace(body_fun, [None] * len(specs), specs, structure)

        body = trace_body(specs)
        body, carried = _steady(
            body, carried, specs, init_val, structure.children[0], trace_body, "while_loop: body_fun's value"
        )
        specs = [Spec(v.tensor) for v in carried]
        test = subtrace(cond_fun, [None] * len(specs), specs, structure)
        if len(test.outputs) != 1 or test.outputs[0].rank:
            raise TraceError(f"while_loop: cond_fun returns {_shown(test)}; it must return a scalar")
        names = [f"val{k}" for k in range(len(carried))]
        (step, check), captures = close([body, test], names, hoist=True)
        made = _while(carried, captures, step, check, bound)
        return unflatten(structure.children[0], _results(made))


def _truth(v: Value) -> Value:
    return v if v.dtype == _BOOL else ops.cast(v, dtype=_BOOL)


def _while(
    carried: Sequence[Value], captures: Sequence[Value], step: Graph, check: Graph, bound: int | None
) -> tuple[Value, ...]:
    """A loop; a bounded one as a scan whose turns do nothing once the condition has failed."""
    start = _truth(inline(check, [*carried, *captures])[0])
    state = step.inputs[: len(carried)]
    held = step.inputs[len(carried) :]
    after = step.outputs
    again = _truth(inline(check, [*after, *held])[0])
    if bound is None:
        turn, go = input_value("turn", TensorType(_INT64, ())), input_value("go", TensorType(_BOOL, ()))
        body = Graph((turn, go, *state, *held), (again, *after))
        made = ops.loop(constant(_FOREVER), start, *carried, *captures, body=body, carries=len(carried))
        return _tuple(made)[: len(carried)]
    active = input_value("active", TensorType(_BOOL, ()))
    taken = Graph((*state, *held), (again, *after))
    left = Graph((*state, *held), (constant(np.bool_(False)), *state))
    body = Graph((active, *state, *held), _tuple(ops.if_(active, *state, *held, then_body=taken, else_body=left)))
    made = ops.scan(start, *carried, *captures, body=body, carries=1 + len(carried), scanned=0, length=int(bound))
    return _tuple(made)[1 : 1 + len(carried)]


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """`for i in range(lower, upper): val = body_fun(i, val)`. With Python numbers as bounds it is a scan."""
    swapped = any(map(callable, (lower, upper, init_val)))
    order = ": it is the third argument, fori_loop(lower, upper, body_fun, init_val)" if swapped else ""
    _check_function("fori_loop", "body_fun", body_fun, order)
    if isinstance(lower, int) and isinstance(upper, int):

        def turn(carry: Any, i: Any) -> tuple[Any, None]:
            return body_fun(i, carry), None

        return scan(turn, init_val, np.arange(lower, max(lower, upper), dtype=np.int64))[0]

    def step(carry: tuple[Any, Any]) -> tuple[Any, Any]:
        return carry[0] + 1, body_fun(carry[0], carry[1])

    return while_loop(lambda carry: carry[0] < upper, step, (lower, init_val))[1]


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose intermediate values backpropagation computes again instead of keeping them.

    Arguments that are no arrays (strings, functions) are handed to it as they are.
    """
    _check_function("checkpoint", "function", function, "")

    @functools.wraps(function)
    def kept(*args: Any, **kwargs: Any) -> Any:
        with here():
            leaves, structure = flatten((args, kwargs))
            arrays = [describe(leaf, "an argument") is not None for leaf in leaves]
            values, own, _ = _operands([v for v, a in zip(leaves, arrays, strict=True) if a], "arguments", weak=True)
            rest = iter(own)
            specs = [next(rest) if a else None for a in arrays]
            body = subtrace(lambda a, k: function(*a, **k), leaves, specs, structure)
            (graph,), captures = close([body], [f"x{k}" for k in range(len(values))], hoist=False)
            if not graph.outputs:
                return unflatten(body.results, [])
            made = ops.REGISTRY["call"](*values, *captures, body=graph, remat=True)
            return unflatten(body.results, _results(_tuple(made)))

    return kept


class custom_vjp:  # noqa: N801  (JAX's name, used as a decorator)
    """A function with a gradient of its own.

        @graphc.custom_vjp
        def f(x, y): ...
        f.defvjp(forward, backward)

    `forward(*args)` returns `(result, residuals)`, `backward(residuals, cotangent)` the tuple of the arguments'
    cotangents, arranged as the arguments; None stands for zero.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        _check_function("custom_vjp", "function", function, "")
        self._function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self._rules: tuple[Callable[..., Any], Callable[..., Any]] | None = None
        functools.update_wrapper(self, function)

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Give the gradient."""
        self._rules = forward, backward

    def __call__(self, *args: Any) -> Any:
        if self._rules is None:
            raise TraceError(f"{self.__name__} has no gradient yet: call {self.__name__}.defvjp(forward, backward)")
        if current() is None:
            return self._function(*args)
        forward, backward = self._rules
        with here():
            values, specs, structure = _operands(args, "arguments", weak=True)
            none = [None] * len(specs)
            body = subtrace(self._function, none, specs, structure)
            ahead = subtrace(forward, none, specs, structure)
            _pair(ahead, f"{self.__name__}'s forward function", "result", "residuals")
            if ahead.results.children[0] != body.results:
                raise TraceError(
                    f"{self.__name__} returns {_shown(body)}, its forward function "
                    f"{_shown(ahead, ahead.results.children[0])}"
                )
            count = len(body.outputs)
            residuals = [Spec(v.tensor) for v in ahead.outputs[count:]]
            cotangents = [Spec(v.tensor) for v in body.outputs]
            pair = Structure(tuple, (0, 1), (ahead.results.children[1], body.results))
            back = subtrace(
                _filled(backward, structure, specs, self.__name__),
                [None] * (len(residuals) + count),
                [*residuals, *cotangents],
                pair,
            )
            if len(back.outputs) != len(specs):
                raise TraceError(
                    f"{self.__name__}'s backward function gives {len(back.outputs)} cotangents for {len(specs)} arrays"
                )
            back = _cast_to_numbers(back, specs)
            for k, (v, s) in enumerate(zip(back.outputs, specs, strict=True)):
                if v.type != s.type:
                    raise TraceError(
                        f"{self.__name__}'s backward function gives {v.type} as cotangent {k}, the argument is {s.type}"
                    )
            names = [f"x{k}" for k in range(len(values))]
            graphs, captures = close([body, ahead], names, hoist=False)
            (reverse,), more = close([back], [f"r{k}" for k in range(len(residuals) + count)], hoist=False)
            if more:
                raise TraceError(
                    f"{self.__name__}'s backward function reads a value around it; hand it on with the residuals"
                )
            made = ops.custom_vjp(
                *values, *captures, body=graphs[0], forward=graphs[1], backward=reverse, arguments=len(values)
            )
            return unflatten(body.results, _results(_tuple(made)))


def _cast_to_numbers(back: Body, specs: Sequence[Spec]) -> Body:
    """The cotangents of Python numbers in the type that stands for them."""
    outputs = tuple(
        ops.cast(v, dtype=s.dtype) if s.weak and v.dtype != s.dtype and v.dtype.is_float and s.dtype.is_float else v
        for v, s in zip(back.outputs, specs, strict=True)
    )
    return back._replace(outputs=outputs)


def _filled(backward: Callable[..., Any], arguments: Structure, specs: Sequence[Spec], name: str) -> Callable[..., Any]:
    """`backward` with zeros in place of None, and its results as the arguments are arranged."""

    def full(residuals: Any, cotangent: Any) -> Any:
        given = backward(residuals, cotangent)
        if not isinstance(given, tuple) or len(given) != len(arguments.children):
            raise TraceError(f"{name}'s backward function must return a tuple of {len(arguments.children)} cotangents")
        filled, at = [], 0
        for g, part in zip(given, arguments.children, strict=True):
            own = specs[at : at + part.count]
            at += part.count
            filled.append(unflatten(part, [np.zeros(s.shape, s.dtype.numpy) for s in own]) if g is None else g)
        return tuple(filled)

    return full
