"""Two interpreters that run the IR slowly and plainly; tests hold everything else against them.

`run` executes a graph node by node through the operations' NumPy references. `evaluate` executes a scalar
expression, over whole arrays of loop indices at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from graphc.errors import GraphcError, InputError
from graphc.ir.dims import Dim, DimLike, Symbol, substitute, symbols_of
from graphc.ir.dtypes import DType, dtype_of
from graphc.ir.graph import Graph, Node, Value, describe_location
from graphc.ir.scalar import Scalar, walk
from graphc.ir.types import OptionalType, SequenceType, Type

__all__ = ["bind_symbols", "evaluate", "run", "run_node"]

#: what a value is while it is interpreted: an array, a list (sequence), or None (an empty optional)
Data = Any
Hook = Callable[[Node, tuple[Data, ...], tuple[Data, ...]], None]
#: the hook of the run that is under way; the references of control flow run their bodies under it
_hook: ContextVar[Hook | None] = ContextVar("graphc_hook", default=None)


def run(
    graph: Graph, *arguments: Data, symbols: Mapping[str, int] | None = None, on_node: Hook | None = None
) -> tuple[Data, ...]:
    """The outputs of `graph` for `arguments`, one for each input.

    Symbolic dimensions take their values from the arguments' shapes, and from results whose size only the run can
    tell; `symbols` gives those that no argument shows. `on_node(node, operands, results)` is called after each node,
    inside of bodies as well.
    Raises InputError when an argument does not fit its input, and GraphcError when a reference gives another type
    than the operation's inference promised.
    """
    if on_node is not None:
        token = _hook.set(on_node)
        try:
            return run(graph, *arguments, symbols=symbols)
        finally:
            _hook.reset(token)
    on_node = _hook.get()
    if len(arguments) != len(graph.inputs):
        raise InputError(
            f"the graph takes {len(graph.inputs)} inputs ({', '.join(graph.input_names)}), {len(arguments)} were given"
        )
    bound = dict(symbols or {})
    values: dict[Value, Data] = {}
    for value, name, argument in zip(graph.inputs, graph.input_names, arguments, strict=True):
        data = _plain(argument)
        if not bind_symbols(value.type, data, bound):
            raise InputError(f"input {name!r}: expected {value.type}, got {_describe(data)}")
        values[value] = data
    for node in graph.nodes:
        if node.op.name == "input" and node.outputs[0] not in values:
            raise GraphcError(f"the graph is not closed: {node.attrs['name']!r} is read but is none of its inputs")
    reads = Counter(v for node in graph.nodes for v in node.inputs)
    reads.update(graph.outputs)
    waiting = [node for node in graph.nodes if node.op.name != "input"]
    while waiting:
        # in order, but a node may need the size of a result that it does not read: then it waits for that one
        left = []
        for node in waiting:
            if not all(v in values for v in node.inputs) or not _sizes(node) <= bound.keys():
                left.append(node)
                continue
            operands = tuple(values[v] for v in node.inputs)
            results = run_node(node, operands, bound)
            if on_node is not None:
                on_node(node, operands, results)
            values.update(zip(node.outputs, results, strict=True))
            for v in node.inputs:
                reads[v] -= 1
                if not reads[v]:
                    del values[v]
        if len(left) == len(waiting):
            missing = ", ".join(sorted(_sizes(left[0]) - bound.keys()))
            raise GraphcError(
                f"{left[0].op.name} needs the size {missing}, which nothing gives{describe_location(left[0])}"
            )
        waiting = left
    return tuple(values[v] for v in graph.outputs)


def _sizes(node: Node) -> frozenset[str]:
    """The symbols whose values the node's attributes need."""
    found: frozenset[str] = frozenset()
    for attr in node.attrs.values():
        for d in attr if isinstance(attr, tuple) else (attr,):
            if isinstance(d, Dim):
                found |= symbols_of(d)
    return found


def run_node(node: Node, operands: Sequence[Data], symbols: dict[str, int] | None = None) -> tuple[Data, ...]:
    """The results of one node by its reference. New symbols of the result types are added to `symbols`."""
    reference = node.op.reference
    if reference is None:
        raise GraphcError(f"{node.op.name} has no reference to run{describe_location(node)}")
    symbols = {} if symbols is None else symbols
    attrs = {k: _substitute(v, symbols) for k, v in node.attrs.items()}
    results = reference(*operands, **attrs)
    plain = tuple(map(_plain, results)) if isinstance(results, tuple) else (_plain(results),)
    for k, (result, t) in enumerate(zip(plain, node.types, strict=True)):
        if not bind_symbols(t, result, symbols):
            raise GraphcError(
                f"the reference of {node.op.name} gave {_describe(result)} for result {k}, "
                f"its inference promised {t}{describe_location(node)}"
            )
    return plain


def bind_symbols(t: Type, data: Data, symbols: dict[str, int]) -> bool:
    """Whether `data` is of type `t`; symbols that the type shows bare and that have no value yet get theirs from it."""
    if isinstance(t, SequenceType):
        # elements of one sequence may differ in their symbolic extents: each is checked on its own
        return isinstance(data, list) and all(bind_symbols(t.element, item, dict(symbols)) for item in data)
    if isinstance(t, OptionalType):
        return data is None or bind_symbols(t.element, data, symbols)
    if not isinstance(data, np.ndarray) or dtype_of(data) != t.dtype or data.ndim != t.rank:
        return False
    for d, n in zip(t.shape, data.shape, strict=True):
        if isinstance(d, Dim) and d.name is not None and d.name not in symbols:
            ((symbol,), _), *_ = d.terms
            assert isinstance(symbol, Symbol)
            if n < symbol.lower or (symbol.upper is not None and n > symbol.upper):
                return False
            symbols[d.name] = n
        known = substitute(d, symbols)
        if isinstance(known, int) and known != n:
            return False
    return True


def _substitute(attr: Any, symbols: Mapping[str, DimLike]) -> Any:
    """An attribute with its symbolic dimensions replaced by numbers."""
    if isinstance(attr, Dim):
        return substitute(attr, symbols)
    if isinstance(attr, tuple) and not hasattr(attr, "_fields"):
        return tuple(_substitute(a, symbols) for a in attr)
    return attr


def _plain(data: Data) -> Data:
    """An array for anything array-like (strings as objects), sequences and empty optionals as they are."""
    if data is None or isinstance(data, list):
        return data
    array = np.asarray(data)
    return array.astype(object) if array.dtype.kind in "US" else array


def _describe(data: Data) -> str:
    if isinstance(data, np.ndarray):
        return f"{data.dtype}{list(data.shape)}"
    return f"a {type(data).__name__}"


# ------------------------------------------------------------------------------------------- scalar expressions

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "mod": np.mod, "fmod": np.fmod,
    "maximum": np.maximum, "minimum": np.minimum, "atan2": np.arctan2, "floordiv": np.floor_divide,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shl": np.left_shift, "shr": np.right_shift, "neg": np.negative, "abs": np.abs, "sign": np.sign,
    "floor": np.floor, "ceil": np.ceil, "round": np.round, "trunc": np.trunc,
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log1p": np.log1p,
    "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "reciprocal": lambda x: 1 / x,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x), "gate_sigmoid": lambda x: 0.5 + 0.5 * np.tanh(0.5 * x),
    "gate_tanh": np.tanh,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "isnan": np.isnan, "isinf": np.isinf, "isposinf": np.isposinf, "isneginf": np.isneginf,
}  # fmt: skip


def _erf(x: np.ndarray) -> np.ndarray:
    import math

    return np.vectorize(math.erf, otypes=[x.dtype])(x)


def _div(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "iu":
        return np.divide(x, y)
    exact = np.where(y == 0, 0, np.sign(x).astype(object) * np.sign(y).astype(object))
    return np.asarray(exact * (abs(x.astype(object)) // np.maximum(abs(y.astype(object)), 1)))


def _pow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind != "i":
        return np.power(x, y)
    small = np.where(y < 0, np.where(abs(x) == 1, x, 0), x)
    return np.power(small, abs(y))


_OPERATIONS.update(erf=_erf, div=_div, pow=_pow)


def evaluate(
    root: Scalar,
    *,
    indices: Sequence[Any] = (),
    buffers: Sequence[np.ndarray] = (),
    params: Sequence[int] = (),
    temps: Mapping[int, Any] | None = None,
) -> np.ndarray:
    """The expression's value: `indices[k]` (an int, or an array of them) for loop counter k, flat arrays for buffers.

    float16 and bfloat16 are computed in float32 and rounded at the end, as kernels do. Raises IndexError when the
    result depends on a load outside its buffer, or on a shift by a type's width or more, which machines do not define;
    the side of a select that is not taken may have either.
    """
    done: dict[Scalar, tuple[np.ndarray, np.ndarray]] = {}
    clean = np.asarray(False)
    for e in walk((root,)):
        args = [done[a][0] for a in e.args]
        bad = clean
        for a in e.args:
            bad = bad | done[a][1]
        match e.op:
            case "const":
                value = _held(np.asarray(e.attr, dtype=_holder(e.dtype)), e.dtype)
            case "index":
                value = np.asarray(indices[e.attr], np.int64)
            case "param":
                value = np.asarray(params[e.attr], np.int64)
            case "temp":
                value = np.asarray((temps or {})[e.attr])
            case "load":
                flat = np.ravel(buffers[e.attr])
                bad = bad | (args[0] < 0) | (args[0] >= flat.size)
                value = _held(
                    flat[np.clip(args[0], 0, flat.size - 1)] if flat.size else np.zeros(args[0].shape, flat.dtype),
                    e.dtype,
                )
            case "cast":
                value = _held(_converted(args[0], e.dtype), e.dtype)
            case "bitcast":
                value = np.asarray(args[0]).astype(e.args[0].dtype.numpy).view(e.dtype.numpy).astype(_holder(e.dtype))
            case "choose":  # both sides may be evaluated, so both must be right
                value = np.where(args[0], args[1], args[2])
            case "select":
                value = np.where(args[0], args[1], args[2])
                bad = done[e.args[0]][1] | np.where(args[0], done[e.args[1]][1], done[e.args[2]][1])
            case _:
                if e.op in ("shl", "shr"):
                    bad = bad | (args[1] < 0) | (args[1] >= e.dtype.bits)
                with np.errstate(all="ignore"):
                    value = np.asarray(_OPERATIONS[e.op](*args))
                value = value if e.dtype.kind == "bool" else _held(value, e.dtype)
        done[e] = (value, bad)
    value, bad = done[root]
    if np.any(bad):
        raise IndexError(f"{root!r} reads outside its buffer, or shifts too far")
    return _converted(value, root.dtype)


def _holder(dtype: DType) -> np.dtype:
    """The NumPy type in which values of an element type are computed."""
    return dtype.computed_in.numpy


def _held(value: np.ndarray, dtype: DType) -> np.ndarray:
    if value.dtype == object:  # exact Python integers: wrap as the machine does
        value = np.vectorize(lambda v: v & (2**dtype.bits - 1), otypes=[np.uint64])(value)
    return np.asarray(value).astype(_holder(dtype))


def _converted(value: np.ndarray, dtype: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return value != 0 if dtype.kind == "bool" else np.asarray(value).astype(dtype.numpy)
