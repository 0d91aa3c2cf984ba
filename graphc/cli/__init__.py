"""The command line: `graphc run MODEL`, `graphc inspect MODEL`, `graphc bench MODEL`, and others.

Exit codes: 0 done; 1 a check found a difference; 2 the model, the inputs or the options are bad (one message, no
traceback unless asked); 130 interrupted. Nothing but argparse is imported before a command runs, so that help and
usage errors come at once: what each command takes is in `arguments.py`, what it does in a file of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from graphc.cli.arguments import parser
from graphc.errors import GraphcError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's); its exit code. Help and usage errors raise SystemExit."""
    arguments = parser().parse_args(argv)
    traceback = arguments.traceback or os.environ.get("GRAPHC_TRACEBACK", "0") not in ("", "0")
    try:
        with warnings.catch_warnings():
            if not traceback:
                warnings.showwarning = _show_warning
            status = _command(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("graphc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # the reader (head, less) has gone; point stdout elsewhere so that the flush at exit does not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (GraphcError, OSError) as e:
        if traceback:
            raise
        print(f"graphc: error: {_describe(e)}", file=sys.stderr)
        return 2


def _command(arguments: argparse.Namespace) -> int:
    if arguments.verbose:
        import logging

        logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
        logging.getLogger("graphc").setLevel(logging.DEBUG if arguments.verbose > 1 else logging.INFO)
    command = getattr(import_module(f"graphc.cli.{arguments.command}"), arguments.command)
    return int(command(arguments))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as a line of its own: where it was raised says nothing to who types a command."""
    print(f"graphc: warning: {message}", file=sys.stderr)


def _describe(error: Exception) -> str:
    """An error as a message: its text, and the notes that say where it came from."""
    if isinstance(error, OSError) and not isinstance(error, GraphcError):
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    else:
        text = str(error)
    return "\n".join([text or type(error).__name__, *getattr(error, "__notes__", ())])
