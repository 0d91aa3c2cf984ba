"""What the commands take: a function a command, then the options that several have, then what values are made of.

They stand here and not beside the commands, which import what they work with.
"""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

from graphc import __version__
from graphc.errors import OptionError
from graphc.options import MOST_THREADS, PRECISIONS, seconds

__all__ = ["duration", "natural", "parser", "positive", "thread_number"]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_EPILOG = """\
MODEL is a file, or onnx:NAME for a topology that comes with the onnx package (onnx:resnet50, onnx:squeezenet, ...).

environment:
  GRAPHC_CACHE       folder for compiled kernels and models (default: graphc in the user's cache folder)
  GRAPHC_TRACEBACK   set to 1 to see where an error was raised
  (README.md lists the others)
"""

#: of every parser. Options are written out: what a part of a name means would change with every option that is added
_SETTINGS: dict[str, Any] = {
    "epilog": _EPILOG,
    "formatter_class": argparse.RawDescriptionHelpFormatter,
    "allow_abbrev": False,
}


def parser() -> argparse.ArgumentParser:
    """The parser of command lines. Its `command` is the name of the command's file and of the function there."""
    out = argparse.ArgumentParser("graphc", description="A compiler for neural networks.", **_SETTINGS)
    out.add_argument("--version", action="version", version=f"graphc {__version__}")
    commands = out.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_run, _inspect, _tune, _bench, _profile, _export):
        add(commands)
    return out


# -- the commands -------------------------------------------------------------------------------------------------------


def _run(commands: Commands) -> None:
    parser = commands.add_parser("run", help="compile a model and run it", **_SETTINGS)
    _add_common(parser)
    _add_inputs(parser)
    _add_seed(parser)
    parser.add_argument(
        "--repeat", type=positive, default=10, metavar="N", help="runs to take the median time of (default 10)"
    )
    parser.add_argument("--output", metavar="FILE.npz", help="save the outputs")
    parser.add_argument(
        "--check",
        choices=["onnxruntime"],
        help="compare the outputs with those of another runtime; exit code 1 when they differ",
    )


def _inspect(commands: Commands) -> None:
    parser = commands.add_parser(
        "inspect",
        help="show what a model is compiled to",
        description="Show what a model is compiled to: a summary, or what the options ask for.",
        **_SETTINGS,
    )
    _add_common(parser)
    parser.add_argument(
        "--after",
        metavar="PASS",
        help="the graph as text after this pass; 'import' for the graph as imported, 'last' for the final one",
    )
    parser.add_argument(
        "--passes", action="store_true", help="the passes, with the nodes they leave and the time they take"
    )
    parser.add_argument(
        "--plan", action="store_true", help="the launch plan: kernel, tasks and operations of each step"
    )
    parser.add_argument(
        "--kernels",
        nargs="?",
        const="",
        metavar="NAME",
        help="the generated source of every kernel, or of those whose name contains NAME",
    )
    parser.add_argument("--memory", action="store_true", help="planned memory against the lower bound")
    parser.add_argument("--save", metavar="FILE.svg", help="with --memory: draw the memory plan")
    parser.add_argument("--host", action="store_true", help="what runs on the host instead of in a kernel, and why")
    parser.add_argument(
        "--why",
        nargs="?",
        const="",
        metavar="RULE",
        help="which rewrites were applied how often, and why others were not; with RULE (or how some begin), at which nodes",
    )


def _tune(commands: Commands) -> None:
    parser = commands.add_parser(
        "tune",
        help="measure how to compute a model's convolutions and products on this machine",
        description="Measure candidates for every convolution and matrix product of a model, the costliest first, and "
        "keep what beats the estimate; later compilations on this machine use it.",
        **_SETTINGS,
    )
    _add_common(parser)
    parser.add_argument(
        "--budget",
        type=duration,
        default=60.0,
        metavar="TIME",
        help="how long to measure: 90, 90s or 5m (default 60s); Ctrl-C keeps what was found so far",
    )
    parser.add_argument("--forget", action="store_true", help="measure again what was measured before")


def _bench(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure a model against other runtimes",
        description="Time, start and memory of graphc and other runtimes on one model, in turns and with equal threads. "
        "The exit code is 1 when graphc's outputs differ from those of the first peer.",
        **_SETTINGS,
    )
    parser.add_argument("model", metavar="MODEL", help="a file, or onnx:NAME")
    parser.add_argument(
        "--against",
        default="onnxruntime,openvino,torch",
        metavar="NAMES",
        help="peers, the first one being the reference for outputs (default onnxruntime,openvino,torch)",
    )
    _add_shape(parser)
    _add_inputs(parser)
    _add_threads(parser)
    _add_seed(parser)
    _add_seconds(parser, "measuring time for each of them (default 2)")
    parser.add_argument(
        "--processes",
        choices=["one", "several"],
        default="one",
        help="all in one process (default), or each in a process of its own",
    )
    _add_precision(parser)
    parser.add_argument("--json", metavar="FILE", help="save the figures, with the machine and the versions")
    parser.add_argument("--save", metavar="FILE.svg", help="draw the figures: .svg, .png or .pdf (extra bench)")
    _add_messages(parser)


def _profile(commands: Commands) -> None:
    parser = commands.add_parser(
        "profile",
        help="say where the time of a run goes",
        description="The time of every launch inside real runs, beside what this machine does at most.",
        **_SETTINGS,
    )
    _add_common(parser)
    _add_inputs(parser)
    _add_seconds(parser, "measuring time (default 2)")
    parser.add_argument(
        "--top", type=positive, default=25, metavar="N", help="launches to list, the longest first (default 25)"
    )
    parser.add_argument("--json", metavar="FILE", help="save the figures of all launches")
    parser.add_argument("--save", metavar="FILE.svg", help="draw the roofline: .svg, .png or .pdf (extra bench)")


def _export(commands: Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="save a model as graphc imports it",
        description="Save a model as ONNX, of one recent opset and of plain operators, for the given input shapes.",
        **_SETTINGS,
    )
    parser.add_argument("model", metavar="MODEL", help="a file, or onnx:NAME")
    parser.add_argument("file", metavar="FILE.onnx", help="where to save it; an existing file is replaced")
    _add_shape(parser)
    _add_messages(parser)


# -- options that several commands have --------------------------------------------------------------------------------


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
        "--threads", type=thread_number, metavar="N", help="threads to use (default: every CPU of this process)"
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="an input from a .npy file, or all inputs from one .npz file; those left out are random",
    )


def _add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of random inputs (default 0)")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="strict: no change of roundings; bfloat16: convolutions and products multiply rounded numbers (default: float32)",
    )


def _add_seconds(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--seconds", type=duration, default=2.0, metavar="TIME", help=what)


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


# -- values: each raises what argparse shows behind the option's name ---------------------------------------------------


def positive(text: str) -> int:
    """A number from 1."""
    return _number(text, 1, None)


def natural(text: str) -> int:
    """A number from 0."""
    return _number(text, 0, None)


def thread_number(text: str) -> int:
    """A number of threads."""
    return _number(text, 1, MOST_THREADS)


def duration(text: str) -> float:
    """Seconds, from text such as "90s"."""
    try:
        return seconds(text)
    except OptionError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _number(text: str, least: int, most: int | None) -> int:
    value = int(text) if text.strip().removeprefix("-").isdecimal() else None
    if value is None or value < least or (most is not None and value > most):
        span = f"from {least} to {most}" if most is not None else f"of at least {least}"
        raise argparse.ArgumentTypeError(f"expected a whole number {span}, got {text!r}")
    return value
