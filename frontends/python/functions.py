"""What makes a Python function a function of graphc: arrays in, graph or arrays out.

The public functions are written once, over the graph's values. `array_function` makes them work everywhere: while
something is traced they write graph and return tensors; outside they compute at once, through the operations'
references, and return NumPy arrays.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any, TypeAlias, TypeVar

import numpy as np

from graphc import ops
from graphc.errors import GraphcError, GraphTypeError
from graphc.frontends.python.debug import check_nans, nans_are_errors
from graphc.frontends.python.promotion import DEFAULTS, WIDEST, is_number, kind_of, result_dtype
from graphc.frontends.python.tensor import Tensor
from graphc.frontends.python.tracing import current
from graphc.frontends.python.where import here, with_line
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Graph, Value, constant, location, location_of
from graphc.ir.interpret import run

__all__ = [
    "Array", "array_function", "as_array", "at_once", "evaluate", "inside", "promote", "promoted", "value_of",
]  # fmt: skip

#: what functions take as an array: a traced tensor, a NumPy array or scalar, a Python number, anything with DLPack
Array: TypeAlias = Any
F = TypeVar("F", bound=Callable[..., Any])

_inside: ContextVar[bool] = ContextVar("graphc_inside", default=False)


def array_function(function: F) -> F:
    """Make a function that returns values (or a tuple, list or named tuple of them) a public one.

    While it runs, nodes are said to come from the caller's line, and errors name it. A result is a tensor when
    something is being traced, else an array. Inside another public function nothing is wrapped: it goes on with the
    values.
    """

    @functools.wraps(function)
    def public(*args: Any, **kwargs: Any) -> Any:
        if _inside.get():
            return function(*args, **kwargs)
        token = _inside.set(True)
        try:
            with here() as line:
                return _called(function, args, kwargs, line)
        finally:
            _inside.reset(token)

    return public  # type: ignore[return-value]


def _called(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], line: str) -> Any:
    """What the function gives to a caller at `line`; what Python says of wrong arguments is said better."""
    try:
        return _deliver(function(*args, **kwargs), weak=_only_weak((*args, *kwargs.values())))
    except GraphcError:
        raise
    except IndexError as e:
        with_line(e, line)
        raise
    except TypeError as e:
        if (wrong := _wrong_arguments(function, args, kwargs, str(e))) is not None:
            raise wrong from None
        raise


#: parameters that other frameworks call otherwise
_CALLED_ELSEWHERE = {"dim": "axis", "dims": "axis", "axes": "axis", "keepdim": "keepdims", "ddof": "correction"}


def _wrong_arguments(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], said: str
) -> TypeError | None:
    """The error for arguments that the function does not take, with what Python said; None when it takes them."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        known = list(signature.parameters)
        hint = ""
        for unknown in (k for k in kwargs if k not in known):
            named = _CALLED_ELSEWHERE.get(unknown)
            close = [named] if named in known else get_close_matches(unknown, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else hint
        plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
        return GraphTypeError(f"{said}{hint or ';'} It is {function.__name__}{inspect.Signature(plain)}")
    return None


def inside() -> bool:
    """Whether a public function is running: what it calls goes on with the values."""
    return _inside.get()


def _only_weak(arguments: Sequence[Any]) -> bool:
    """Whether every array among the arguments is a Python number or a tensor made of such, one is a tensor, and no
    element type is asked for."""
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    others = [a for a in arguments if not isinstance(a, Tensor)]
    return (
        bool(tensors)
        and all(t.weak for t in tensors)
        and not any(hasattr(a, "dtype") or isinstance(a, np.dtype | type | str | list | tuple) for a in others)
    )


def at_once(name: str, numpy: Callable[..., Any], values: Sequence[Value]) -> Value:
    """What no operation computes (complex numbers mostly), by NumPy: possible outside of traces alone.

    Raises GraphTypeError inside one.
    """
    if current() is not None:
        raise GraphTypeError(
            f"{name} of {', '.join(str(v.type) for v in values)} cannot be traced, there is no kernel for it: compute "
            "it outside of the traced function"
        )
    with np.errstate(all="ignore"):
        return constant(numpy(*evaluate(values)))


def _deliver(result: Any, weak: bool = False) -> Any:
    if isinstance(result, Value):
        if current() is None:
            return evaluate([result])[0]
        return Tensor(result, weak=weak and result.dtype.name in ("float64", "int64"))
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*_deliver_all(result, weak))
    if isinstance(result, list | tuple):
        return type(result)(_deliver_all(result, weak))
    return result


def _deliver_all(results: Sequence[Any], weak: bool) -> list[Any]:
    if current() is None and all(isinstance(r, Value) for r in results):
        return list(evaluate(results))
    return [_deliver(r, weak) for r in results]


def evaluate(values: Sequence[Value]) -> tuple[Any, ...]:
    """The arrays for values that depend on constants alone."""
    found = run(Graph((), values), on_node=check_nans if nans_are_errors() else None)
    # a constant's own array is read-only and shared: the caller gets one of his own
    return tuple(np.array(x) if isinstance(x, np.generic | np.ndarray) and not _own(x) else x for x in found)


def _own(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.flags.writeable and x.flags.owndata


def value_of(x: Array, dtype: Any = None, what: str = "an operand") -> Value:
    """An array or number as a value; a number becomes `dtype`, by default the type of its kind (see promotion).

    Raises GraphTypeError for what is no array of numbers.
    """
    if isinstance(x, Value):
        return x
    if isinstance(x, Tensor):
        if not x.weak:
            return x.value
        with location(*location_of(x.value.node)):
            return _cast(x.value, np.dtype(dtype or DEFAULTS[kind_of(x.dtype)]))
    if is_number(x):
        kind = type(x).__name__
        try:
            return constant(np.asarray(x, dtype or DEFAULTS[kind]))
        except OverflowError:
            raise GraphTypeError(f"{what}: {x} does not fit {dtype or DEFAULTS[kind]}") from None
    array = as_array(x, what)
    # a trace outlives this moment, and the caller may write into his array meanwhile
    return constant(array.copy() if current() is not None and array.flags.writeable else array)


def as_array(x: Any, what: str = "an operand") -> np.ndarray:
    """Anything that holds an array as a NumPy array, without a copy where possible."""
    if isinstance(x, np.ndarray | np.generic):
        return np.asarray(x)
    if isinstance(x, list | tuple) and _holds_tensor(x):
        kind = type(x).__name__
        raise GraphTypeError(
            f"{what}: a {kind} of {len(x)} with traced tensors in it is given, and an array is needed: join them with "
            f"graphc.stack. If the {kind} is an argument of the traced function, it is a tree of {len(x)} numbers "
            "there: pass np.asarray([...]) instead"
        )
    try:
        array = np.from_dlpack(x) if hasattr(x, "__dlpack__") else np.asarray(x)
    except Exception as e:
        raise GraphTypeError(f"{what}: cannot make an array of {type(x).__name__}: {e}") from None
    if array.dtype == object:
        raise GraphTypeError(f"{what}: {type(x).__name__} is no array of numbers")
    return array


def _holds_tensor(x: Any) -> bool:
    return isinstance(x, Tensor) or (isinstance(x, list | tuple) and any(map(_holds_tensor, x)))


def promote(name: str, *xs: Array) -> tuple[Value, ...]:
    """The operands as values of their common element type; shapes stay as they are."""
    return _in_type(name, xs, _common_type(name, xs))


def _common_type(name: str, xs: Sequence[Array]) -> np.dtype:
    types: list[Any] = [_type_for_promotion(x, name) for x in xs]
    wanted = result_dtype(*types, what=name)
    if any(isinstance(x, Tensor) for x in xs) and not any(isinstance(t, np.dtype) for t in types):
        return WIDEST[kind_of(wanted)]  # numbers among themselves, as Python computes with them
    return wanted


def _in_type(name: str, xs: Sequence[Array], wanted: np.dtype) -> tuple[Value, ...]:
    return tuple(_cast(x.value if isinstance(x, Tensor) else value_of(x, wanted, name), wanted) for x in xs)


def promoted(name: str, *xs: Array) -> tuple[Value, ...]:
    """`promote`, and integers and bools become floats: for functions whose results are never integers."""
    wanted = _common_type(name, xs)
    if kind_of(wanted) in ("bool", "int"):
        numbers = all(is_number(x) or (isinstance(x, Tensor) and x.weak) for x in xs)
        wanted = (WIDEST if numbers and any(isinstance(x, Tensor) for x in xs) else DEFAULTS)["float"]
    return _in_type(name, xs, wanted)


def _type_for_promotion(x: Array, name: str) -> Any:
    if isinstance(x, Tensor):
        return {"bool": bool, "int": int, "float": float, "complex": complex}[kind_of(x.dtype)] if x.weak else x.dtype
    if isinstance(x, Value):
        return np.dtype(x.dtype.numpy)
    if is_number(x):
        return type(x)
    return as_array(x, name).dtype


def _cast(v: Value, dtype: np.dtype) -> Value:
    wanted = dtype_of(dtype)
    return v if v.dtype == wanted else ops.cast(v, dtype=wanted)
