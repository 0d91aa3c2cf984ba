"""A progress bar for what takes long: compiling kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["compiling"]


@contextmanager
def compiling(show: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A function to report (kernels compiled, kernels to compile) to, drawn on standard error when that is a terminal;
    None when nobody wants to see it."""
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("compiling kernels"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("kernels", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
