"""NumPy's own functions on traced tensors: `np.tanh(x)`, `array + x`, `np.concatenate([x, y])`.

NumPy hands such calls over by two protocols: `__array_ufunc__` (NEP 13) and `__array_function__` (NEP 18). They are
answered by graphc's functions, with NumPy's names and arguments translated by the tables here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphc

__all__ = ["call_function", "call_ufunc"]

#: universal functions whose names differ from graphc's
_UFUNCS = {
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "conjugate": "conj", "fabs": "abs", "float_power": "pow",
    "invert": "bitwise_invert", "left_shift": "bitwise_left_shift", "power": "pow",
    "right_shift": "bitwise_right_shift", "rint": "round", "true_divide": "divide",
}  # fmt: skip

#: what a universal function's `reduce` and `accumulate` are called
_REDUCTIONS = {
    "add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all", "logical_or": "any",
}  # fmt: skip
_RUNNING = {"add": "cumulative_sum", "multiply": "cumulative_prod"}


def call_ufunc(ufunc: np.ufunc, method: str, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The answer to `__array_ufunc__`. Raises TypeError for what graphc cannot do, saying so."""
    name = f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
    kwargs = _plain(name, kwargs)
    dtype = kwargs.pop("dtype", None)
    axis, keepdims = kwargs.pop("axis", 0), kwargs.pop("keepdims", False)
    _none_left(name, kwargs)
    if method == "__call__":
        function = _ufunc(ufunc)
        arguments = inputs if dtype is None else [graphc.asarray(x, dtype=dtype) for x in inputs]
        return function(*arguments)
    if method == "reduce" and ufunc.__name__ in _REDUCTIONS:
        x = inputs[0] if dtype is None else graphc.astype(inputs[0], dtype)
        return getattr(graphc, _REDUCTIONS[ufunc.__name__])(x, axis=axis, keepdims=keepdims)
    if method == "accumulate" and ufunc.__name__ in _RUNNING:
        return getattr(graphc, _RUNNING[ufunc.__name__])(inputs[0], axis=axis, dtype=dtype)
    if method == "outer":
        a, b = inputs
        return _ufunc(ufunc)(graphc.reshape(a, (*np.shape(a), *(1,) * np.ndim(b))), b)
    raise TypeError(f"{name} has no counterpart in graphc for traced tensors")


def _ufunc(ufunc: np.ufunc) -> Callable[..., Any]:
    name = _UFUNCS.get(ufunc.__name__, ufunc.__name__)
    if name in _MORE_UFUNCS:
        return _MORE_UFUNCS[name]
    if name not in graphc.__all__:
        raise TypeError(f"np.{ufunc.__name__} has no counterpart in graphc for traced tensors")
    return getattr(graphc, name)


_MORE_UFUNCS: dict[str, Callable[..., Any]] = {
    "divmod": lambda a, b: (graphc.floor_divide(a, b), graphc.remainder(a, b)),
    "deg2rad": lambda x: x * (np.pi / 180),
    "rad2deg": lambda x: x * (180 / np.pi),
    "radians": lambda x: x * (np.pi / 180),
    "degrees": lambda x: x * (180 / np.pi),
    "fmax": lambda a, b: graphc.where(graphc.isnan(a), b, graphc.where(graphc.isnan(b), a, graphc.maximum(a, b))),
    "fmin": lambda a, b: graphc.where(graphc.isnan(a), b, graphc.where(graphc.isnan(b), a, graphc.minimum(a, b))),
}


def _plain(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments without those that only say NumPy's default."""
    if any(o is not None for o in np.atleast_1d(np.array(kwargs.get("out"), object))):
        raise TypeError(f"{name}: out= cannot be written to while tracing; use the result")
    return {k: v for k, v in kwargs.items() if v is not np._NoValue and not _says_nothing(k, v)}


def _says_nothing(key: str, value: Any) -> bool:
    """Whether a keyword argument has NumPy's default, or is about memory, which a traced tensor has none of."""
    if key == "where":
        return value is True
    if key == "order":
        return value in (None, "C", "K", "A")
    return key in ("out", "casting", "subok") or (key in ("initial", "kind") and value is None)


def _none_left(name: str, kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise TypeError(f"{name}: {', '.join(f'{k}=' for k in kwargs)} is not known for traced tensors")


# ------------------------------------------------------------------------------------------------ other functions


def call_function(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The answer to `__array_function__`. Raises TypeError for what graphc cannot do, saying so."""
    name = f"{func.__module__.replace('numpy', 'np', 1)}.{func.__name__}"
    ours = _FUNCTIONS.get(func)
    if ours is None:
        raise TypeError(f"{name} has no counterpart in graphc for traced tensors; see dir(graphc) for what there is")
    kwargs = _plain(name, kwargs)
    try:
        bound = inspect.signature(ours).bind(*args, **kwargs)
    except TypeError as e:
        raise TypeError(f"{name} on a traced tensor: {e}; it takes {inspect.signature(ours)}") from None
    return ours(*bound.args, **bound.kwargs)


#: NumPy's functions and what answers them, with NumPy's arguments
_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}


def _same(*names: str, **renamed: str) -> None:
    """Functions that take NumPy's arguments as they are; `numpy_name="graphc_name"` where names differ."""
    for numpy_name, name in {**{n: n for n in names}, **renamed}.items():
        _FUNCTIONS[getattr(np, numpy_name)] = _by_position(name)


def _by_position(name: str) -> Callable[..., Any]:
    return lambda *args, **kwargs: getattr(graphc, name)(*args, **kwargs)


_same(
    "broadcast_to", "einsum", "matrix_transpose", "outer", "inner", "dot", "split", "concatenate",
    "transpose", "cumsum", "cumprod", "nonzero", "where", "swapaxes", "moveaxis", "vecdot",
    "zeros_like", "ones_like", "empty_like", "full_like", "broadcast_arrays", "unique_all", "unique_counts",
    "unique_inverse", "unique_values", "cumulative_sum", "cumulative_prod", "unstack", "astype",
    real="real", imag="imag", ravel="ravel", pad="pad",
)  # fmt: skip


def _answers(*functions: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function of NumPy's arguments as the answer to these."""

    def enter(ours: Callable[..., Any]) -> Callable[..., Any]:
        _FUNCTIONS.update(dict.fromkeys(functions, ours))
        return ours

    return enter


def _reductions(*names: str, typed: bool = False) -> None:
    """Reductions: `axis`, `keepdims` and, for some, `dtype`."""

    def reduction(name: str) -> Callable[..., Any]:
        def plain(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
            return getattr(graphc, name)(a, axis=axis, keepdims=keepdims)

        def with_dtype(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
            return getattr(graphc, name)(a, axis=axis, dtype=dtype, keepdims=keepdims)

        return with_dtype if typed else plain

    for name in names:
        _FUNCTIONS[getattr(np, name)] = reduction(name)


_reductions("sum", "prod", "mean", typed=True)
_reductions("max", "min", "all", "any", "argmax", "argmin", "count_nonzero")
_FUNCTIONS.update({np.amax: _FUNCTIONS[np.max], np.amin: _FUNCTIONS[np.min]})


@_answers(np.var)
def _var(a: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False, correction: float | None = None) -> Any:
    return graphc.var(a, axis=axis, correction=ddof if correction is None else correction, keepdims=keepdims)


@_answers(np.std)
def _std(a: Any, axis: Any = None, *, ddof: float = 0, keepdims: bool = False, correction: float | None = None) -> Any:
    return graphc.std(a, axis=axis, correction=ddof if correction is None else correction, keepdims=keepdims)


@_answers(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    return graphc.clip(a, a_min if min is None else min, a_max if max is None else max)


@_answers(np.reshape)
def _reshape(a: Any, shape: Any) -> Any:
    return graphc.reshape(a, shape)


@_answers(np.squeeze)
def _squeeze(a: Any, axis: Any = None) -> Any:
    return graphc.squeeze(a, axis)


@_answers(np.expand_dims)
def _expand_dims(a: Any, axis: Any) -> Any:
    return graphc.expand_dims(a, axis=axis)


@_answers(np.flip)
def _flip(m: Any, axis: Any = None) -> Any:
    return graphc.flip(m, axis=axis)


@_answers(np.roll)
def _roll(a: Any, shift: Any, axis: Any = None) -> Any:
    return graphc.roll(a, shift, axis=axis)


@_answers(np.stack)
def _stack(arrays: Any, axis: int = 0) -> Any:
    return graphc.stack(arrays, axis=axis)


@_answers(np.sort)
def _sort(a: Any, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Any:
    return graphc.sort(graphc.ravel(a) if axis is None else a, axis=-1 if axis is None else axis)


@_answers(np.argsort)
def _argsort(a: Any, axis: int | None = -1, kind: Any = None, *, stable: Any = None) -> Any:
    return graphc.argsort(graphc.ravel(a) if axis is None else a, axis=-1 if axis is None else axis)


@_answers(np.searchsorted)
def _searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    return graphc.searchsorted(a, v, side=side, sorter=sorter)


@_answers(np.hstack)
def _hstack(tup: Any) -> Any:
    arrays = [graphc.reshape(a, (1,)) if np.ndim(a) == 0 else a for a in tup]
    return graphc.concat(arrays, axis=0 if np.ndim(arrays[0]) == 1 else 1)


@_answers(np.vstack)
def _vstack(tup: Any) -> Any:
    return graphc.concat([graphc.reshape(a, (1, -1)) if np.ndim(a) < 2 else a for a in tup])


@_answers(np.atleast_1d)
def _atleast_1d(x: Any) -> Any:
    return graphc.reshape(x, (1,)) if np.ndim(x) == 0 else x


@_answers(np.repeat)
def _repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    return graphc.repeat(a, repeats, axis=axis)


@_answers(np.tile)
def _tile(A: Any, reps: Any) -> Any:
    return graphc.tile(A, reps)


@_answers(np.take)
def _take(a: Any, indices: Any, axis: Any = None) -> Any:
    return graphc.take(graphc.ravel(a) if axis is None else a, indices, axis=axis)


@_answers(np.take_along_axis)
def _take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    return graphc.take_along_axis(graphc.ravel(arr) if axis is None else arr, indices, axis=axis or 0)


@_answers(np.tensordot)
def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    return graphc.tensordot(a, b, axes=axes)


@_answers(np.trace)
def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return graphc.trace_of(a, offset=offset, axis1=axis1, axis2=axis2)


@_answers(np.diagonal)
def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return graphc.diagonal(a, offset=offset, axis1=axis1, axis2=axis2)


@_answers(np.diff)
def _diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    return graphc.diff(a, n=n, axis=axis, prepend=prepend, append=append)


@_answers(np.tril)
def _tril(m: Any, k: int = 0) -> Any:
    return graphc.tril(m, k=k)


@_answers(np.triu)
def _triu(m: Any, k: int = 0) -> Any:
    return graphc.triu(m, k=k)


@_answers(np.meshgrid)
def _meshgrid(*xi: Any, indexing: str = "xy") -> Any:
    return graphc.meshgrid(*xi, indexing=indexing)


@_answers(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002
    if ord not in (None, 2) and axis is None and np.ndim(x) > 1:
        raise TypeError(f"np.linalg.norm: the matrix norm {ord!r} has no counterpart in graphc")
    return graphc.norm(x, axis=axis, keepdims=keepdims, ord=2 if ord is None else ord)


@_answers(np.shape)
def _shape(a: Any) -> Any:
    return a.shape


@_answers(np.ndim)
def _ndim(a: Any) -> int:
    return a.ndim


@_answers(np.size)
def _size(a: Any, axis: int | None = None) -> Any:
    return a.size if axis is None else a.shape[axis]


@_answers(np.round)
def _round(a: Any, decimals: int = 0) -> Any:
    if decimals:
        raise TypeError("np.round: traced tensors are rounded to integers only; multiply, round and divide")
    return graphc.round(a)
