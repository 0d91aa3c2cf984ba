"""What users test with: `check_grad` holds the derivatives that graphc builds against finite differences.

For a function f, arguments x, a direction v and weights u, the number d/dt <u, f(x + t v)> at t = 0 is found three ways:

    from values of f alone      central differences, extrapolated to step 0
    forward, jvp                <u, J v>
    reverse, vjp                <J' u, v>

One random pair (u, v) tells whether all of J is right: an error anywhere changes the number with probability 1. All is
computed in float64 by the operations' references, so that the tolerance can be tight; a graph over narrower floats is
widened first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np

from graphc.autodiff.reverse import carries_gradient
from graphc.autodiff.transforms import Names, jvp, not_linear, vjp
from graphc.errors import GradientError
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Graph, Literal, Node, Value, describe_location, make, rebuild
from graphc.ir.interpret import run
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type

__all__ = ["Slope", "check_grad", "in_float64", "slope_at_zero"]

FLOAT64 = dtype_of("float64")
MODES = ("reverse", "forward")


def check_grad(
    f: Callable[..., Any] | Graph,
    *arguments: Any,
    wrt: Names | Sequence[int] | int | None = None,
    order: int = 1,
    modes: Iterable[str] = MODES,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    key: int = 0,
) -> None:
    """Check the derivatives of `f` at `arguments` against finite differences.

    `f` is a graph, or a Python function of arrays, which is traced. `wrt` says with respect to what: names of a
    graph's inputs, positions of a function's arguments; all that are floating point by default. With `order` n, the
    derivatives up to the n-th are checked, each as the derivative of the one before. `key` draws another direction.

    The point must not be at a kink or at the border of what `f` is defined on. Raises AssertionError that names the
    operand, the mode, the order, and both numbers; GradientError when finite differences cannot tell, as at a kink, and
    when there is nothing to check.
    """
    modes = tuple(modes)
    if unknown := [m for m in modes if m not in MODES] or not modes:
        raise ValueError(f"check_grad: modes are {modes}, {unknown} is unknown; known are {MODES}")
    if order < 1:
        raise ValueError(f"check_grad: order is {order}, 1 or more is needed")
    if isinstance(f, Graph):
        graph, flat, groups = f, list(arguments), [[name] for name in f.input_names]
    else:
        graph, flat, groups = _traced(f, arguments)
    graph = in_float64(graph)
    point = [_wide(a, v.type) for a, v in zip(flat, graph.inputs, strict=True)]
    names = _names(graph, wrt, groups)
    for what, values in (
        ("input", [v for v, n in zip(point, graph.input_names, strict=True) if n in names]),
        ("result", [v for v in graph.outputs if _is_float(v)]),
    ):
        if not any(np.prod(v.shape) if isinstance(v, np.ndarray) else 1 for v in values):
            given = graph.inputs if what == "input" else graph.outputs
            raise GradientError(
                f"check_grad has nothing to check: no {what} has floating point elements, they are "
                f"({', '.join(str(v.type) for v in given)})"
            )
    rng = np.random.default_rng(key)
    for level in range(1, order + 1):
        of = [n for n, v in zip(graph.output_names, graph.outputs, strict=True) if carries_gradient(v.type)]
        _check(_Case(graph, point, names, of, level), modes, rtol, atol, rng)
        if level < order:
            pulled = vjp(graph, names, of)
            weights = [_normal(rng, y) for y, v in zip(run(graph, *point), graph.outputs, strict=True) if _is_float(v)]
            count = len(graph.outputs)
            graph = Graph(pulled.inputs, pulled.outputs[count:], pulled.output_names[count:])
            point = [*point, *weights]


class _Case(NamedTuple):
    """What one order's check is about."""

    graph: Graph
    point: list[Any]
    wrt: list[str]
    of: list[str]
    order: int


def _check(case: _Case, modes: Sequence[str], rtol: float, atol: float, rng: np.random.Generator) -> None:
    """All operands move at once; only if a mode then disagrees, one after the other, to tell which it is."""
    probe = _Probe(case, rng)
    atol *= max(1.0, float(sum(np.sum(np.abs(u)) for u in probe.weights)))
    everything = range(len(case.wrt))
    together = probe.values(everything)
    if together.kink and together.error > atol + rtol * abs(together.value):
        _cannot_tell(case, ", ".join(map(repr, case.wrt)), together)
    for mode in modes:
        found = probe.found(mode, everything)
        if abs(found - together.value) <= atol + rtol * abs(together.value):
            continue
        for k, name in enumerate(case.wrt):
            note = probe.linearity(k) if mode == "reverse" else ""
            _compare(case, mode, name, probe.found(mode, [k]), probe.values([k]), rtol, atol, note)


class _Probe:
    """A random direction and random weights, and the slope along that direction found in three ways.

    `chosen` says which operands move; the others stay.
    """

    def __init__(self, case: _Case, rng: np.random.Generator) -> None:
        self.case = case
        graph, point = case.graph, case.point
        self.kept = [k for k, name in enumerate(graph.output_names) if name in case.of]
        self.weights = [_normal(rng, y) for y in self._run(point)]
        self.places = [graph.input_names.index(name) for name in case.wrt]
        self.directions = [_normal(rng, point[k]) * _size(point[k]) for k in self.places]

    def values(self, chosen: Iterable[int]) -> Slope:
        chosen = list(chosen)

        def along(t: float) -> float:
            shifted = list(self.case.point)
            for k in chosen:
                shifted[self.places[k]] = shifted[self.places[k]] + t * self.directions[k]
            return _dot(self.weights, self._run(shifted))

        return slope_at_zero(along)

    def found(self, mode: str, chosen: Iterable[int]) -> float:
        chosen = list(chosen)
        if mode == "reverse":
            return sum(_dot([self._cotangents[k]], [self.directions[k]]) for k in chosen)
        tangents = [v if k in chosen else np.zeros_like(v) for k, v in enumerate(self.directions)]
        return _dot(self.weights, run(self._pushed, *self.case.point, *tangents)[len(self.case.graph.outputs) :])

    def linearity(self, k: int) -> str:
        """What to say of operand k when twice the cotangents do not give twice the gradient; else nothing."""
        twice = self._pulled([2 * u for u in self.weights])[k]
        if np.allclose(twice, 2 * self._cotangents[k], rtol=1e-9, equal_nan=True):
            return ""
        node = not_linear(self.case.graph.outputs, [self.case.graph.inputs[n] for n in self.places])
        whose = f": look at the rule of {node.op.name}{describe_location(node)}" if node is not None else ""
        return f"; the gradient is not linear in the cotangent, as every rule must be{whose}"

    def _run(self, point: Sequence[Any]) -> list[np.ndarray]:
        results = run(self.case.graph, *point)
        return [results[k] for k in self.kept]

    @cached_property
    def _cotangents(self) -> tuple[np.ndarray, ...]:
        return self._pulled(self.weights)

    def _pulled(self, weights: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        pulled = vjp(self.case.graph, self.case.wrt, self.case.of)
        found = run(pulled, *self.case.point, *weights)[len(self.case.graph.outputs) :]
        for name, g, v in zip(self.case.wrt, found, self.directions, strict=True):
            if g.shape != v.shape:
                raise AssertionError(f"{name!r} has the shape {list(v.shape)}, its gradient {list(g.shape)}")
        return found

    @cached_property
    def _pushed(self) -> Graph:
        return jvp(self.case.graph, self.case.wrt, self.case.of)


def _compare(
    case: _Case, mode: str, name: str, found: float, expected: Slope, rtol: float, atol: float, note: str
) -> None:
    allowed = atol + rtol * abs(expected.value)
    difference = abs(found - expected.value)
    if difference <= allowed:
        return
    what = _what(case, repr(name))
    if not expected.error <= allowed:
        _cannot_tell(case, repr(name), expected)
    relative = difference / max(abs(expected.value), 1e-300)
    raise AssertionError(
        f"{what} (order {case.order}), is {expected.value:.12g} by finite differences (give or take "
        f"{expected.error:.1g}), but {found:.12g} by {mode} mode: relative error {relative:.2g}, rtol {rtol:.2g}{note}"
    )


def _what(case: _Case, names: str) -> str:
    return f"the derivative of {', '.join(case.of)} with respect to {names}, in a random direction"


def _cannot_tell(case: _Case, names: str, slope: Slope) -> NoReturn:
    raise GradientError(
        f"check_grad cannot tell {_what(case, names)} (order {case.order}): finite differences do not settle, they give "
        f"{slope.value:.12g} give or take {slope.error:.2g}; is the point at a kink or at the border of what the "
        "function is defined on?"
    )


def _dot(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return float(sum(np.sum(x * y) for x, y in zip(a, b, strict=True)))


def _normal(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    return np.asarray(rng.standard_normal(np.shape(like)))


def _size(x: np.ndarray) -> float:
    """How large the elements of an argument are, so that a step is small for it."""
    return float(np.sqrt(np.mean(np.square(x)))) or 1.0 if x.size else 1.0


# ------------------------------------------------------------------------------------------------ finite differences


class Slope(NamedTuple):
    """A derivative found from values, and how far it may be off; whether the slopes to the two sides differ."""

    value: float
    error: float
    kink: bool = False


def slope_at_zero(f: Callable[[float], float], step: float = 0.02, shrink: float = 1.6, steps: int = 16) -> Slope:
    """f'(0) from central differences over ever smaller steps, extrapolated to step 0 (Richardson).

    A central difference is off by a power series in the square of the step; each column of the tableau removes the
    next term of it. The entry that differs least from those it was made of is taken (C. Ridders, "Accurate computation
    of F'(x) and F'(x) F''(x)", 1982). Steps at which `f` is not finite are left out; the error is infinite when
    fewer than two are left. At a kink it is the angle between the two sides.
    """
    best, row = Slope(float("nan"), float("inf")), list[float]()
    middle, bends = f(0.0), list[float]()
    for k in range(steps):
        h = step / shrink**k
        above, below = f(h), f(-h)
        bends.append(abs(above - 2 * middle + below) / h)
        difference = (above - below) / (2 * h)
        if not np.isfinite(difference):
            row = []
            continue
        previous, row, factor = row, [difference], shrink**2
        for j, older in enumerate(previous):
            newer = row[j]
            row.append((newer * factor - older) / (factor - 1))
            factor *= shrink**2
            error = max(abs(row[-1] - newer), abs(row[-1] - older))
            if error <= best.error:
                best = Slope(row[-1], error)
    # to both sides of a smooth point the slopes come together with the step; at a kink they stay apart, by more than the
    # rounding of the values makes of it
    rounding = 1e-9 * (abs(above) + abs(below) + abs(middle))
    if bends[-1] > bends[-4] / 2 and bends[-1] > 1e-6 * abs(best.value) + rounding:
        return Slope(best.value, max(best.error, bends[-1]), kink=True)
    return best


# ------------------------------------------------------------------------------------------- what is being checked


def _traced(f: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Graph, list[Any], list[list[str]]]:
    """The function as a graph, the values of its inputs, and the inputs that each argument is made of."""
    from graphc.frontends.python.trace import describe, trace
    from graphc.frontends.python.tree import flatten

    graph = trace(f, *arguments)
    leaves = [[leaf for leaf in flatten(a)[0] if describe(leaf, "") is not None] for a in arguments]
    names = iter(graph.input_names)
    return graph, [leaf for group in leaves for leaf in group], [[next(names) for _ in group] for group in leaves]


def _names(graph: Graph, wrt: Names | Sequence[int] | int | None, groups: Sequence[Sequence[str]]) -> list[str]:
    """The inputs to move: those asked for by name or by the argument they belong to, or all floating point ones."""
    floats = [n for n, v in zip(graph.input_names, graph.inputs, strict=True) if _is_float(v)]
    if wrt is None:
        return floats
    chosen = [wrt] if isinstance(wrt, str | int | Value) else list(wrt)
    found: list[str] = []
    for c in chosen:
        if isinstance(c, int):
            found += groups[c]
        else:
            found.append(c.node.attrs["name"] if isinstance(c, Value) and c.node.op.name == "input" else c)  # type: ignore[arg-type]
    for name in found:
        if name not in floats:
            raise GradientError(
                f"check_grad moves floating point inputs only, and {name!r} is none: they are {', '.join(floats)}"
            )
    return found


def _is_float(v: Value) -> bool:
    return carries_gradient(v.type)


def _wide(argument: Any, t: Type) -> Any:
    return np.asarray(argument, np.float64) if carries_gradient(t) else argument


def in_float64(graph: Graph) -> Graph:
    """The same program with float64 in the place of every narrower float: inputs, constants, casts and bodies."""

    def widened(node: Node, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        return make(node.op, *inputs, **{name: _wide_attribute(v) for name, v in node.attrs.items()})

    return rebuild(graph, widened)


def _wide_attribute(attr: Any) -> Any:
    if isinstance(attr, DType):
        return FLOAT64 if attr.is_float else attr
    if isinstance(attr, TensorType):
        return attr.with_dtype(FLOAT64) if attr.dtype.is_float else attr
    if isinstance(attr, Literal):
        return Literal(attr.array.astype(np.float64), attr.name) if attr.dtype.is_float else attr
    if isinstance(attr, SequenceType | OptionalType):
        return type(attr)(_wide_attribute(attr.element))
    return in_float64(attr) if isinstance(attr, Graph) else attr
