"""Which line of the user's program is running: what errors and nodes name as their place."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

import graphc
from graphc.ir.graph import location

__all__ = ["here", "user_line"]

_OURS = tuple(
    {os.path.join(os.path.dirname(os.path.abspath(f)), "") for f in (graphc.__file__, __file__)}
    | {
        os.path.join(os.path.abspath(p), part, "")
        for p in graphc.__path__
        for part in ("frontends", "passes", "runtime")
    }
)


def user_line() -> str:
    """`"model.py:12 (loss)"`: the innermost frame that is not graphc's own; empty when there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS) and not code.co_filename.startswith("<frozen"):
            return f"{os.path.basename(code.co_filename)}:{frame.f_lineno} ({code.co_name.strip('<>')})"
        frame = frame.f_back
    return ""


def here() -> AbstractContextManager[None]:
    """New nodes made inside are said to come from the user's current line."""
    line = user_line()
    return location(line) if line else nullcontext()
