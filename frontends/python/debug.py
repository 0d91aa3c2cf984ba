"""Finding where a NaN comes from: under `debug_nans` every operation's result is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from graphc.errors import NonFiniteError
from graphc.frontends.python.promotion import kind_of
from graphc.ir.graph import Node, location_of

__all__ = ["check_nans", "debug_nans", "nans_are_errors"]

_enabled: ContextVar[bool] = ContextVar("graphc_debug_nans", default=False)


@contextmanager
def debug_nans(enabled: bool = True) -> Iterator[None]:
    """Inside, functions of graphc raise NonFiniteError when an operation makes a NaN out of operands without one.

    Compiled functions run node by node through the references, unoptimised, so that the operation and the line can be
    named: slow, for debugging. NaNs that are handed in are not reported.
    """
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def nans_are_errors() -> bool:
    """Whether `debug_nans` is in force."""
    return _enabled.get()


def check_nans(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
    """Raise NonFiniteError when this operation made a NaN; a hook for the interpreter."""
    if not any(map(_has_nan, results)) or any(map(_has_nan, operands)):
        return
    where = ", ".join(location_of(node))
    shown = ", ".join(_range(x) for x in operands)
    raise NonFiniteError(
        f"{node.op.name}{f' at {where}' if where else ''} makes a NaN from {shown or 'nothing'}: no operand holds one"
    )


def _has_nan(x: Any) -> bool:
    return isinstance(x, np.ndarray) and kind_of(x.dtype) in ("float", "complex") and bool(np.isnan(x).any())


def _range(x: Any) -> str:
    if not isinstance(x, np.ndarray) or not x.size or kind_of(x.dtype) not in ("int", "float"):
        return f"{x.dtype}{list(x.shape)}" if isinstance(x, np.ndarray) else type(x).__name__
    return f"{x.dtype}{list(x.shape)} in [{x.min()}, {x.max()}]"
