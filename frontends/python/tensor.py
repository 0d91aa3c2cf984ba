"""A traced tensor: what a function sees in place of an array while its graph is written down."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from graphc.errors import TraceError
from graphc.frontends.python.tracing import Trace, current
from graphc.frontends.python.where import user_line
from graphc.ir.graph import Value
from graphc.ir.types import TensorType

__all__ = ["Tensor"]


class Tensor:
    """A value of the program being traced; behaves as an array whose elements are not known yet.

    Operators, methods and indexing are NumPy's and the array API's. `shape` may hold symbolic dimensions. `weak` marks
    what came from a Python number: it takes the element type of what it meets, as the number itself would.
    """

    __slots__ = ("_trace", "_value", "weak")
    #: NumPy's operators leave `array + tensor` to the tensor
    __array_priority__ = 1000

    def __init__(self, value: Value, trace: Trace | None = None, *, weak: bool = False) -> None:
        owner = trace or current()
        assert owner is not None, "a tensor exists only while something is traced"
        self._value, self._trace, self.weak = value, owner, weak

    @property
    def value(self) -> Value:
        """The graph's value. Raises TraceError after the trace that made it has ended."""
        if not self._trace.open:
            raise TraceError(
                f"a traced tensor ({self._value.type}) is used at {user_line()} after the trace of "
                f"{self._trace.name!r} that made it has ended: return it as a result instead of keeping it in a "
                "variable outside"
            )
        now = current()
        if now is not None:
            now.capture(self._value, self._trace)
        return self._value

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

    def __repr__(self) -> str:
        return f"Tensor({self._value.type}, traced in {self._trace.name})"

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor of rank 0")
        return self.shape[0]  # type: ignore[no-any-return]

    def __hash__(self) -> NoReturn:
        raise TypeError("a traced tensor has no hash: its elements are not known while tracing")

    # -- what needs the elements ------------------------------------------------------------------------------------

    def _unknown(self, what: str, instead: str) -> NoReturn:
        raise TraceError(
            f"{what} needs the elements of a traced tensor ({self._value.type}) at {user_line()}, and they are known "
            f"only when the compiled program runs. {instead}"
        )

    def __bool__(self) -> bool:
        self._unknown(
            "a Python `if`, `while`, `and`, `or`, `not` or `assert`",
            "Use graphc.where or graphc.cond for a choice, graphc.while_loop for a loop, & | ~ for logic.",
        )

    def __int__(self) -> int:
        self._unknown("int()", "Keep the tensor, or pass this value as a static argument.")

    __index__ = __int__

    def __float__(self) -> float:
        self._unknown("float()", "Keep the tensor, or return it as a result.")

    def __complex__(self) -> complex:
        self._unknown("complex()", "Keep the tensor.")

    def item(self) -> NoReturn:
        self._unknown(".item()", "Keep the tensor, or return it as a result.")

    def tolist(self) -> NoReturn:
        self._unknown(".tolist()", "Keep the tensor, or return it as a result.")

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        self._unknown(
            "a NumPy function that graphc does not know",
            "Use graphc's function of that name, or return the tensor and go on outside of the traced function.",
        )
