"""A traced tensor: what a function sees in place of an array while its graph is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, NoReturn

import numpy as np

import graphc
from graphc.errors import TraceError
from graphc.frontends.python.tracing import Trace, current
from graphc.frontends.python.where import assigning_item, located, user_line
from graphc.ir.graph import Value
from graphc.ir.types import TensorType

__all__ = ["Tensor"]

#: the array functions, without types and constants
_FUNCTIONS = [n for family, names in graphc._ARRAY_FUNCTIONS.items() if family != "dtypes" for n in names.split()]


def _operator(name: str) -> tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]:
    """A binary operator and its reflection: graphc's function of that name."""

    def forward(self: Any, other: Any) -> Any:
        return getattr(graphc, name)(self, other)

    def reflected(self: Any, other: Any) -> Any:
        return getattr(graphc, name)(other, self)

    return forward, reflected


class Tensor:
    """A value of the program being traced; behaves as an array whose elements are not known yet.

    Operators, methods and indexing are NumPy's and the array API's. `shape` may hold symbolic dimensions. `weak` marks
    what came from a Python number: it takes the element type of what it meets, as the number itself would.
    """

    __slots__ = ("_trace", "_value", "weak")

    def __init__(self, value: Value, trace: Trace | None = None, *, weak: bool = False) -> None:
        owner = trace or current()
        assert owner is not None, "a tensor exists only while something is traced"
        self._value, self._trace, self.weak = value, owner, weak

    @property
    def value(self) -> Value:
        """The graph's value. Raises TraceError after the trace that made it has ended."""
        self._check_open()
        now = current()
        if now is not None:
            now.capture(self._value, self._trace)
        return self._value

    def _check_open(self) -> None:
        if not self._trace.open:
            raise located(
                TraceError(
                    f"a traced tensor ({self._value.type}) is used at {user_line()} after the trace of "
                    f"{self._trace.name!r} that made it has ended: return it as a result instead of keeping it in a "
                    "variable outside"
                )
            )

    @property
    def type(self) -> TensorType:
        return self._value.tensor

    @property
    def shape(self) -> tuple[Any, ...]:
        return self._value.shape

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self._value.dtype.numpy)

    @property
    def ndim(self) -> int:
        return self._value.rank

    @property
    def size(self) -> Any:
        return self.type.size

    @property
    def device(self) -> str:
        """Where the array that it stands for was made: "cpu"; the compiled program says where it runs."""
        return "cpu"

    @property
    def T(self) -> Any:  # noqa: N802
        """The axes in the opposite order."""
        return graphc.permute_dims(self, tuple(reversed(range(self.ndim))))

    @property
    def mT(self) -> Any:  # noqa: N802
        """Each matrix of the last two axes transposed."""
        return graphc.matrix_transpose(self)

    @property
    def real(self) -> Any:
        return graphc.real(self)

    @property
    def imag(self) -> Any:
        return graphc.imag(self)

    @property
    def at(self) -> At:
        """`x.at[i].set(v)`: x with other elements at i, where one would write `x[i] = v` (JAX's)."""
        return At(self)

    def __repr__(self) -> str:
        return f"Tensor({self._value.type}, traced in {self._trace.name})"

    def __getattr__(self, name: str) -> NoReturn:
        """What is no attribute: perhaps a function of graphc."""
        hint = ""
        if not name.startswith("_"):
            if name in _FUNCTIONS:
                hint = f"; write graphc.{name}(x)"
            elif close := get_close_matches(name, dir(type(self)), n=1, cutoff=0.75):
                hint = f"; did you mean x.{close[0]}?"
            elif close := get_close_matches(name, _FUNCTIONS, n=1, cutoff=0.75):
                hint = f"; did you mean graphc.{close[0]}(x)?"
        # with a name and no object, Python adds no guess of its own
        raise AttributeError(f"a traced tensor has no attribute {name!r}{hint}", name=name)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor of rank 0")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        """The slices along the first axis, whose extent must be known."""
        if not self.ndim:
            raise TypeError(f"a traced tensor of rank 0 ({self._value.type}) is not iterable, at {user_line()}")
        if not isinstance(self.shape[0], int):
            raise located(
                TraceError(
                    f"a Python loop over {self._value.type} at {user_line()}: its length is known only when the "
                    "program runs. Use graphc.scan"
                )
            )
        return iter(graphc.unstack(self))

    def __hash__(self) -> NoReturn:
        raise TypeError("a traced tensor has no hash: its elements are not known while tracing")

    # -- what needs the elements ------------------------------------------------------------------------------------

    def _unknown(self, what: str, instead: str) -> NoReturn:
        self._check_open()
        raise located(
            TraceError(
                f"{what} needs the elements of a traced tensor ({self._value.type}) at {user_line()}, and they are "
                f"known only when the compiled program runs. {instead}"
            )
        )

    def _unknown_to_numpy(self, what: str, instead: str) -> NoReturn:
        """`_unknown`, where the one that asks may be a NumPy array that is written into."""
        if assigning_item():
            what = "a[i] = x on a NumPy array"
            instead = "Write a = graphc.at(a)[i].set(x), which gives a tensor."
        self._unknown(what, instead)

    def __bool__(self) -> bool:
        self._unknown(
            "a Python `if`, `while`, `and`, `or`, `not` or `assert`",
            "Use graphc.where or graphc.cond for a choice, graphc.while_loop for a loop, & | ~ for logic.",
        )

    def __int__(self) -> int:
        self._unknown_to_numpy("int()", "Keep the tensor, or pass this value as a static argument (static_argnums).")

    def __index__(self) -> int:
        self._unknown_to_numpy(
            "a shape, range() or a place in a list",
            "A shape must be known while tracing: pass this value as a static argument (static_argnums), or take it "
            "from x.shape. graphc.fori_loop is a loop over a traced range, graphc.take finds a traced place.",
        )

    def __float__(self) -> float:
        self._unknown_to_numpy(
            "float(), or a function of the math module,",
            "Keep the tensor and use graphc's functions (graphc.exp for math.exp), or return it as a result.",
        )

    def __complex__(self) -> complex:
        self._unknown_to_numpy("complex()", "Keep the tensor.")

    def item(self) -> NoReturn:
        self._unknown(".item()", "Keep the tensor, or return it as a result.")

    def tolist(self) -> NoReturn:
        self._unknown(".tolist()", "Keep the tensor, or return it as a result.")

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        self._unknown_to_numpy(
            "np.array, np.asarray, or another NumPy function that graphc does not know,",
            "np.array([x, y]) of tensors is graphc.stack([x, y]); a[i] = x on a NumPy array is "
            "graphc.at(a)[i].set(x). Else use graphc's function of that name, or return the tensor and go on outside "
            "of the traced function.",
        )

    def __dlpack__(self, **_: Any) -> NoReturn:
        self._unknown("the DLPack protocol", "Return the tensor, and hand on the array.")

    # -- the protocols of NumPy and of the standard -------------------------------------------------------------------

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        """The module whose functions are the standard's: graphc."""
        if api_version not in (None, "2022.12", "2023.12", "2024.12"):
            raise ValueError(f"version {api_version!r} of the array API standard is not known; 2024.12 is")
        return graphc

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from graphc.frontends.python.numpy_protocol import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        from graphc.frontends.python.numpy_protocol import call_function

        return call_function(func, args, kwargs)

    # -- indexing -----------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        from graphc.frontends.python.array_api.indexing import get_item

        return get_item(self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        self._check_open()
        raise located(
            TraceError(
                f"x[i] = v on a traced tensor ({self._value.type}) at {user_line()}: its elements do not change. Write "
                "x = x.at[i].set(v)"
            )
        )

    # -- operators: graphc's functions of these names -----------------------------------------------------------------

    __add__, __radd__ = _operator("add")
    __sub__, __rsub__ = _operator("subtract")
    __mul__, __rmul__ = _operator("multiply")
    __truediv__, __rtruediv__ = _operator("divide")
    __floordiv__, __rfloordiv__ = _operator("floor_divide")
    __mod__, __rmod__ = _operator("remainder")
    __pow__, __rpow__ = _operator("pow")
    __matmul__, __rmatmul__ = _operator("matmul")
    __and__, __rand__ = _operator("bitwise_and")
    __or__, __ror__ = _operator("bitwise_or")
    __xor__, __rxor__ = _operator("bitwise_xor")
    __lshift__, __rlshift__ = _operator("bitwise_left_shift")
    __rshift__, __rrshift__ = _operator("bitwise_right_shift")
    __eq__, _ = _operator("equal")
    __ne__, _ = _operator("not_equal")
    __lt__, _ = _operator("less")
    __le__, _ = _operator("less_equal")
    __gt__, _ = _operator("greater")
    __ge__, _ = _operator("greater_equal")
    del _

    def __neg__(self) -> Any:
        return graphc.negative(self)

    def __pos__(self) -> Any:
        return graphc.positive(self)

    def __abs__(self) -> Any:
        return graphc.abs(self)

    def __invert__(self) -> Any:
        return graphc.bitwise_invert(self)

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return graphc.floor_divide(self, other), graphc.remainder(self, other)

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return graphc.floor_divide(other, self), graphc.remainder(other, self)

    def __round__(self, digits: int | None = None) -> Any:
        if digits:
            raise TypeError("a traced tensor is rounded to integers only; multiply, round and divide")
        return graphc.round(self)

    # -- methods, with NumPy's arguments ------------------------------------------------------------------------------

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        return graphc.astype(self, dtype)

    def copy(self) -> Any:
        return self

    def reshape(self, *shape: Any) -> Any:
        return graphc.reshape(self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Any:
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return graphc.permute_dims(self, tuple(order)) if order else self.T

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        return graphc.swapaxes(self, axis1, axis2)

    def squeeze(self, axis: Any = None) -> Any:
        return graphc.squeeze(self, axis)

    def ravel(self) -> Any:
        return graphc.ravel(self)

    flatten = ravel

    def repeat(self, repeats: Any, axis: int | None = None) -> Any:
        return graphc.repeat(self, repeats, axis=axis)

    def take(self, indices: Any, axis: int | None = None) -> Any:
        return graphc.take(self if axis is not None else self.ravel(), indices, axis=axis)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        return graphc.diagonal(self, offset=offset, axis1=axis1, axis2=axis2)

    def dot(self, other: Any) -> Any:
        return graphc.dot(self, other)

    def conj(self) -> Any:
        return graphc.conj(self)

    def clip(self, min: Any = None, max: Any = None) -> Any:  # noqa: A002
        return graphc.clip(self, min, max)

    def round(self, decimals: int = 0) -> Any:
        return self.__round__(decimals)

    def sum(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return graphc.sum(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def prod(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return graphc.prod(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def mean(self, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
        return graphc.mean(self, axis=axis, dtype=dtype, keepdims=keepdims)

    def var(self, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
        return graphc.var(self, axis=axis, correction=ddof, keepdims=keepdims)

    def std(self, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> Any:
        return graphc.std(self, axis=axis, correction=ddof, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Any:
        return graphc.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Any:
        return graphc.min(self, axis=axis, keepdims=keepdims)

    def all(self, axis: Any = None, keepdims: bool = False) -> Any:
        return graphc.all(self, axis=axis, keepdims=keepdims)

    def any(self, axis: Any = None, keepdims: bool = False) -> Any:
        return graphc.any(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Any:
        return graphc.argmax(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Any:
        return graphc.argmin(self, axis=axis, keepdims=keepdims)

    def argsort(self, axis: int = -1) -> Any:
        return graphc.argsort(self, axis=axis)

    def cumsum(self, axis: int | None = None, dtype: Any = None) -> Any:
        return graphc.cumulative_sum(self if axis is not None else self.ravel(), axis=axis or 0, dtype=dtype)

    def cumprod(self, axis: int | None = None, dtype: Any = None) -> Any:
        return graphc.cumulative_prod(self if axis is not None else self.ravel(), axis=axis or 0, dtype=dtype)

    def nonzero(self) -> Any:
        return graphc.nonzero(self)

    def to_device(self, device: Any, /, *, stream: Any = None) -> Any:
        """The tensor itself: there is one device while tracing."""
        if device != "cpu":
            raise ValueError(f"device {device!r} is not known; a compiled program says where it runs")
        return self


class At:
    """`x.at`: see `Tensor.at`."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __getitem__(self, key: Any) -> Place:
        return Place(self._tensor, key)


class Place:
    """`x.at[i]`: the elements at i, to be replaced in a copy. An element that i names twice is combined twice."""

    __slots__ = ("_key", "_tensor")

    def __init__(self, tensor: Any, key: Any) -> None:
        self._tensor, self._key = tensor, key

    def _updated(self, values: Any, reduction: str) -> Any:
        from graphc.frontends.python.array_api.indexing import updated

        return updated(self._tensor, self._key, values, reduction)

    def get(self) -> Any:
        """x[i]."""
        from graphc.frontends.python.array_api.indexing import get_item

        return get_item(self._tensor, self._key)

    def set(self, values: Any) -> Any:
        """x with the values at i; of several for one element the last."""
        return self._updated(values, "none")

    def add(self, values: Any) -> Any:
        """x with the values added at i."""
        return self._updated(values, "add")

    def multiply(self, values: Any) -> Any:
        """x with the elements at i multiplied by the values."""
        return self._updated(values, "mul")

    mul = multiply

    def min(self, values: Any) -> Any:
        """x with the smaller of its elements and the values at i."""
        return self._updated(values, "min")

    def max(self, values: Any) -> Any:
        """x with the larger of its elements and the values at i."""
        return self._updated(values, "max")
