"""graphc and the runtimes that it is compared with, set up alike: float32, equal threads, lowest latency.

A *subject* is a model loaded by one of them for one set of inputs. Peers are imported when they are asked for; one that
is not installed, or cannot take a model, raises `Unavailable` with the reason.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphc.errors import InputError, OptionError

__all__ = [
    "PEERS",
    "SUBJECTS",
    "Subject",
    "Unavailable",
    "check_names",
    "load_subject",
    "onnxruntime_runner",
    "onnxruntime_session",
    "openvino_runner",
    "torch_program",
]

#: a model's file, or its bytes
File = Path | bytes
Feeds = Mapping[str, np.ndarray]
#: one run; returns the outputs
Run = Callable[[], Sequence[Any]]


class Unavailable(Exception):  # noqa: N818  (a fact about the peer, not an error here)
    """This peer cannot run this model, or is not installed; says why."""


@dataclass(frozen=True)
class Subject:
    """What is measured: `run` once, and `arrays` of what a run returned, to compare with other subjects' (not timed).

    `facts` gives what is for the record; of graphc: `launches`, and bytes of the planned `arena` and of its `lower bound`.
    """

    run: Callable[[], Any]
    arrays: Callable[[Any], list[Any]] = list
    facts: Callable[[], dict[str, Any]] = dict


def onnxruntime_session(file: File, threads: int) -> Any:
    """An InferenceSession with `threads` threads inside an operation and none across."""
    try:
        import onnxruntime
    except ImportError:
        raise Unavailable("onnxruntime is not installed; pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        file if isinstance(file, bytes) else str(file), options, providers=["CPUExecutionProvider"]
    )


def onnxruntime_runner(file: File, feeds: Feeds, threads: int) -> Run:
    """A function that runs the model once on `feeds`. Raises Unavailable for a model that it refuses."""
    with _refusals():
        session = onnxruntime_session(file, threads)
    given = dict(feeds)
    return lambda: session.run(None, given)


def openvino_runner(file: File, feeds: Feeds, threads: int) -> Run:
    """A function that runs the model once on `feeds`. Raises Unavailable for a model that it cannot convert."""
    try:
        import openvino
    except ImportError:
        raise Unavailable("openvino is not installed; pip install openvino") from None
    core = openvino.Core()
    with _refusals(line=-1):
        model = core.read_model(file)
        model.reshape({name: list(array.shape) for name, array in feeds.items()})
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
    given = dict(feeds)

    def run() -> list[np.ndarray]:
        # arrays are shared, not copied: what its own fastest users do
        return list(request.infer(given, share_inputs=True, share_outputs=True).values())

    return run


def torch_program(module: Any, inputs: Sequence[Any], threads: int, compiled: bool = True) -> Callable[[], Any]:
    """One run of a torch module (or function) on tensors, through torch.compile or as it is, without gradients."""
    torch = _torch()
    torch.set_num_threads(threads)
    if compiled:
        import torch._inductor.config as inductor

        inductor.cpp.threads = threads  # written into the code that it generates, and part of what it caches by
        module = torch.compile(module)

    def run() -> Any:
        with torch.inference_mode():
            return module(*inputs)

    return run


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise Unavailable("torch is not installed; pip install torch") from None
    return torch


def _graphc(file: File, feeds: Feeds, threads: int, precision: str) -> Subject:
    from graphc.api import executable_of
    from graphc.options import Options

    model = file if isinstance(file, bytes) else str(file)
    exe = executable_of(model, Options.of(threads=threads, precision=precision))
    given = dict(feeds)
    exe.specialisation(given)

    def facts() -> dict[str, Any]:
        takes = exe.specialisation(given).footprint
        return {"launches": takes.launches, "arena": takes.arena, "lower bound": takes.lower_bound}

    return Subject(lambda: exe.run(None, given), facts=facts)


def _onnxruntime(file: File, feeds: Feeds, threads: int, precision: str) -> Subject:
    return Subject(onnxruntime_runner(file, feeds, threads))


def _openvino(file: File, feeds: Feeds, threads: int, precision: str) -> Subject:
    return Subject(openvino_runner(file, feeds, threads))


def _torch_subject(file: File, feeds: Feeds, threads: int, precision: str) -> Subject:
    """torch.compile of what onnx2torch makes of the model."""
    torch = _torch()
    try:
        import onnx2torch
    except ImportError as e:
        if isinstance(e, ModuleNotFoundError) and e.name == "onnx2torch":
            raise Unavailable("torch does not read ONNX models; pip install onnx2torch to convert them") from None
        raise Unavailable(f"onnx2torch cannot be imported: {e}") from None
    import onnx

    model = onnx.load_from_string(file) if isinstance(file, bytes) else onnx.load(file)
    weights = {t.name for t in model.graph.initializer}
    names = [v.name for v in model.graph.input if v.name not in weights]
    tensors = [torch.from_numpy(np.ascontiguousarray(feeds[n])) for n in names]
    with _refusals():
        import torch._dynamo as dynamo

        logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
        dynamo.config.suppress_errors = True  # parts of the conversion that it cannot compile run uncompiled
        run = torch_program(onnx2torch.convert(model).eval(), tensors, threads)
        run()  # compiles

    def arrays(result: Any) -> list[Any]:
        return [t.numpy() for t in (result if isinstance(result, list | tuple) else [result])]

    return Subject(run, arrays)


_LOADERS: dict[str, Callable[[File, Feeds, int, str], Subject]] = {
    "graphc": _graphc,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "torch": _torch_subject,
}
SUBJECTS = tuple(_LOADERS)
PEERS = SUBJECTS[1:]


def check_names(names: Sequence[str]) -> None:
    """Raise OptionError for a name that is no peer's, or comes twice."""
    for k, name in enumerate(names):
        if name not in PEERS:
            raise OptionError(f"--against {name}: expected some of {', '.join(PEERS)}")
        if name in names[:k]:
            raise OptionError(f"--against: {name} comes twice")


def load_subject(name: str, file: File, feeds: Feeds, threads: int, precision: str = "float32") -> Subject:
    """A model from its file to ready for runs on `feeds`. `precision` is graphc's; peers compute in float32.

    Raises Unavailable for a peer that is not there or cannot take the model; what is wrong with graphc's is its own
    error.
    """
    if name not in _LOADERS:
        raise InputError(f"no subject {name!r}; there are {', '.join(SUBJECTS)}")
    return _LOADERS[name](file, feeds, threads, precision)


@contextlib.contextmanager
def _refusals(line: int = 0) -> Iterator[None]:
    """What a peer raises while it loads a model, as Unavailable: its errors have no common base. `line` says why."""
    try:
        yield
    except Unavailable:
        raise
    except Exception as e:
        lines = [text.strip() for text in str(e).splitlines() if text.strip()] or [""]
        raise Unavailable(f"cannot take this model: {type(e).__name__}: {lines[line][:200]}") from None
