"""Which line of the user's program is running: what errors and nodes name as their place."""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import TypeVar

import graphc
from graphc.errors import GraphcError
from graphc.ir.graph import location

__all__ = ["assigning_item", "here", "located", "user_line", "with_line"]

E = TypeVar("E", bound=Exception)

_OURS = tuple(
    {os.path.join(os.path.dirname(os.path.abspath(f)), "") for f in (graphc.__file__, __file__)}
    | {
        os.path.join(os.path.abspath(p), part, "")
        for p in graphc.__path__
        for part in ("frontends", "passes", "runtime")
    }
)


def _user_frame() -> FrameType | None:
    """The innermost frame that is not graphc's own; None when there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OURS) and not name.startswith("<frozen"):
            return frame
        frame = frame.f_back
    return None


def user_line() -> str:
    """`"model.py:12 (loss)"`: where the user's program is; empty when none of it is running."""
    frame = _user_frame()
    if frame is None:
        return ""
    code = frame.f_code
    return f"{os.path.basename(code.co_filename)}:{frame.f_lineno} ({code.co_name.strip('<>')})"


def assigning_item() -> bool:
    """Whether the user's program is at `a[i] = v`: what NumPy was asked for, which does not say so itself."""
    frame = _user_frame()
    return frame is not None and dis.opname[frame.f_code.co_code[frame.f_lasti]] in ("STORE_SUBSCR", "STORE_SLICE")


def located(error: E) -> E:
    """The error, marked as one whose text names the user's line."""
    error.located = True  # type: ignore[attr-defined]
    return error


def with_line(error: E, line: str) -> E:
    """The error with the line at the end of its text, unless the text names one."""
    if not getattr(error, "located", False) and error.args and line:
        error.args = (f"{error.args[0]} (at {line})", *error.args[1:])
        located(error)
    return error


def here() -> AbstractContextManager[str]:
    """New nodes made inside are said to come from the user's current line, which is given, and errors name it."""
    return _at(user_line())


@contextmanager
def _at(line: str) -> Iterator[str]:
    try:
        with location(line) if line else nullcontext():
            yield line
    except GraphcError as e:
        with_line(e, line)
        raise
