"""How the command line writes tables, sizes and times: results to standard output, all else to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from graphc.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["bytes_text", "check_file", "console", "heading", "note", "seconds_text", "summary_of", "table"]


def console(stream: TextIO | None = None) -> Console:
    """A rich console on a stream (default: standard output); lines are not cut to 80 columns where nobody sees them."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 160
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "", right: Iterable[str] = ()) -> None:
    """Print a table; the columns named in `right` hold numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    out = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    numbers = set(right)
    for name in columns:
        out.add_column(name, justify="right" if name in numbers else "left", no_wrap=name in numbers, overflow="fold")
    for row in rows:
        out.add_row(*(Text(str(cell)) for cell in row))
    console().print(out)


def heading(text: str) -> None:
    """A line above what follows."""
    console().print(text, style="bold")


def note(text: str) -> None:
    """A remark on standard error."""
    print(f"graphc: {text}", file=sys.stderr)


def check_file(option: str, file: str, endings: Sequence[str] = ()) -> None:
    """Raise OptionError for a file that could not be written: before the work and not after it."""
    path = Path(file)
    if endings and path.suffix not in endings:
        raise OptionError(f"{option} {file}: expected a name that ends in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise OptionError(f"{option} {file}: there is no folder {str(path.parent)!r}")


def seconds_text(seconds: float) -> str:
    """A time with a unit that fits: 1.23 s, 4.56 ms, 7.89 us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1e6:.3g} us"


def bytes_text(count: int) -> str:
    """A number of bytes with a unit that fits: 12 B, 3.4 KiB, 5.6 MiB."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 999.5:
            break
        size, unit = size / 1024, larger
    return f"{size:.3g} {unit}"


def summary_of(value: Any) -> tuple[str, str, str, str]:
    """Shape, minimum, mean and maximum of an output, as text; dashes where they say nothing."""
    if isinstance(value, list | tuple):
        return (f"sequence of {len(value)}", "-", "-", "-")
    if value is None:
        return ("none", "-", "-", "-")
    array = np.asarray(value)
    shape = f"[{', '.join(map(str, array.shape))}]"
    if not array.size or array.dtype.kind in "OUSc":
        return (shape, "-", "-", "-")
    if array.dtype.kind in "biu":
        return (shape, str(array.min()), f"{array.mean():.6g}", str(array.max()))
    wide = array.astype(np.float64)
    return (shape, f"{wide.min():.6g}", f"{wide.mean():.6g}", f"{wide.max():.6g}")
