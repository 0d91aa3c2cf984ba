"""The command line: `graphc run MODEL`, `graphc inspect MODEL`, `graphc bench MODEL`, and others.

Exit codes: 0 done; 1 a check found a difference; 2 the model, the inputs or the options are bad (one message, no
traceback unless asked); 130 interrupted. Nothing but argparse is imported before a command runs, so that help and
usage errors come at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from graphc import __version__
from graphc.errors import GraphcError
from graphc.options import PRECISIONS

__all__ = ["main"]

_EPILOG = """\
MODEL is a file, or onnx:NAME for a topology that comes with the onnx package (onnx:resnet50, onnx:squeezenet, ...).

environment:
  GRAPHC_CACHE       folder for compiled kernels and models (default: graphc in the user's cache folder)
  GRAPHC_TRACEBACK   set to 1 to see where an error was raised
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's); its exit code. Help and usage errors raise SystemExit."""
    arguments = _parser().parse_args(argv)
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
    if arguments.command == "run":
        from graphc.cli.run import run

        return run(arguments)
    if arguments.command == "tune":
        from graphc.cli.tune import tune

        return tune(arguments)
    if arguments.command == "bench":
        from graphc.cli.bench import bench

        return bench(arguments)
    if arguments.command == "profile":
        from graphc.cli.profile import profile

        return profile(arguments)
    if arguments.command == "export":
        from graphc.cli.export import export

        return export(arguments)
    from graphc.cli.inspect import inspect

    return inspect(arguments)


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


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="graphc", description="A compiler for neural networks.", epilog=_EPILOG, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="compile a model and run it", formatter_class=formatter, epilog=_EPILOG)
    _add_common(run)
    _add_inputs(run)
    run.add_argument("--seed", type=int, default=0, help="seed of random inputs (default 0)")
    run.add_argument(
        "--repeat", type=_positive, default=10, metavar="N", help="runs to take the median time of (default 10)"
    )
    run.add_argument("--output", metavar="FILE.npz", help="save the outputs")
    run.add_argument(
        "--check",
        choices=["onnxruntime"],
        help="compare the outputs with those of another runtime; exit code 1 when they differ",
    )

    inspect = commands.add_parser(
        "inspect",
        help="show what a model is compiled to",
        formatter_class=formatter,
        epilog=_EPILOG,
        description="Show what a model is compiled to: a summary, or what the options ask for.",
    )
    _add_common(inspect)
    inspect.add_argument(
        "--after",
        metavar="PASS",
        help="the graph as text after this pass; 'import' for the graph as imported, 'last' for the final one",
    )
    inspect.add_argument(
        "--passes", action="store_true", help="the passes, with the nodes they leave and the time they take"
    )
    inspect.add_argument(
        "--plan", action="store_true", help="the launch plan: kernel, tasks and operations of each step"
    )
    inspect.add_argument(
        "--kernels",
        nargs="?",
        const="",
        metavar="NAME",
        help="the generated source of every kernel, or of those whose name contains NAME",
    )
    inspect.add_argument("--memory", action="store_true", help="planned memory against the lower bound")
    inspect.add_argument("--save", metavar="FILE.svg", help="with --memory: draw the memory plan")
    inspect.add_argument("--host", action="store_true", help="what runs on the host instead of in a kernel, and why")
    inspect.add_argument(
        "--why",
        nargs="?",
        const="",
        metavar="RULE",
        help="which rewrites were applied how often, and why others were not; with RULE, at which nodes",
    )

    tune = commands.add_parser(
        "tune",
        help="measure how to compute a model's convolutions and products on this machine",
        formatter_class=formatter,
        epilog=_EPILOG,
        description="Measure candidates for every convolution and matrix product of a model, the costliest first, and "
        "keep what beats the estimate; later compilations on this machine use it.",
    )
    _add_common(tune)
    tune.add_argument(
        "--budget",
        type=_seconds,
        default=60.0,
        metavar="TIME",
        help="how long to measure: 90, 90s or 5m (default 60s); Ctrl-C keeps what was found so far",
    )
    tune.add_argument("--forget", action="store_true", help="measure again what was measured before")
    bench = commands.add_parser(
        "bench",
        help="measure a model against other runtimes",
        formatter_class=formatter,
        epilog=_EPILOG,
        description="Time, start and memory of graphc and other runtimes on one model, in turns and with equal threads. "
        "The exit code is 1 when graphc's outputs differ from those of the first peer.",
    )
    bench.add_argument("model", metavar="MODEL", help="a file, or onnx:NAME")
    bench.add_argument(
        "--against",
        default="onnxruntime,openvino,torch",
        metavar="NAMES",
        help="peers, the first one being the reference for outputs (default onnxruntime,openvino,torch)",
    )
    _add_shape(bench)
    _add_inputs(bench)
    _add_threads(bench)
    bench.add_argument("--seed", type=int, default=0, help="seed of random inputs (default 0)")
    _add_seconds(bench, "measuring time for each of them (default 2)")
    bench.add_argument(
        "--processes",
        choices=["one", "several"],
        default="one",
        help="all in one process (default), or each in a process of its own",
    )
    _add_precision(bench)
    bench.add_argument("--json", metavar="FILE", help="save the figures, with the machine and the versions")
    bench.add_argument("--save", metavar="FILE.svg", help="draw the figures: .svg, .png or .pdf (extra bench)")
    _add_messages(bench)

    profile = commands.add_parser(
        "profile",
        help="say where the time of a run goes",
        formatter_class=formatter,
        epilog=_EPILOG,
        description="The time of every launch inside real runs, beside what this machine does at most.",
    )
    _add_common(profile)
    _add_inputs(profile)
    _add_seconds(profile, "measuring time (default 2)")
    profile.add_argument(
        "--top", type=_positive, default=25, metavar="N", help="launches to list, the longest first (default 25)"
    )
    profile.add_argument("--json", metavar="FILE", help="save the figures of all launches")
    profile.add_argument("--save", metavar="FILE.svg", help="draw the roofline: .svg, .png or .pdf (extra bench)")

    export = commands.add_parser(
        "export",
        help="save a model as graphc imports it",
        formatter_class=formatter,
        epilog=_EPILOG,
        description="Save a model as ONNX, of one recent opset and of plain operators, for the given input shapes.",
    )
    export.add_argument("model", metavar="MODEL", help="a file, or onnx:NAME")
    export.add_argument("file", metavar="FILE.onnx", help="where to save it; an existing file is replaced")
    _add_shape(export)
    _add_messages(export)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a file, or onnx:NAME")
    _add_shape(parser)
    _add_threads(parser)
    _add_precision(parser)
    parser.add_argument(
        "--level",
        type=int,
        choices=[0, 1, 2],
        default=2,
        help="0: what is needed to run, 1: simplify, 2: layout and fusion too (default)",
    )
    parser.add_argument(
        "--disable",
        action="append",
        default=[],
        metavar="PASS",
        help="leave out a pass (see inspect --passes); may be repeated",
    )
    _add_messages(parser)


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=_positive, metavar="N", help="threads to use (default: every CPU of this process)"
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an input from a .npy file, or all inputs from one .npz file; those left out are random",
    )


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="strict: no change of roundings; bfloat16: convolutions and products multiply rounded numbers (default: float32)",
    )


def _add_seconds(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seconds", type=_seconds, default=2.0, metavar="TIME", help=what)


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=1x3x224x224",
        help="the shape of an input whose sizes the model leaves open",
    )


def _add_messages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say what is compiled and why")


def _seconds(text: str) -> float:
    from graphc.errors import OptionError
    from graphc.options import seconds

    try:
        return seconds(text)
    except OptionError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {value}")
    return value
