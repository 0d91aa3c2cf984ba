"""The runtimes that graphc is compared with, set up alike: float32, the same number of threads, lowest latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Unavailable", "onnxruntime_runner", "onnxruntime_session", "openvino_runner"]


class Unavailable(Exception):  # noqa: N818  (a fact about the peer, not an error here)
    """This peer cannot run this model, or is not installed; says why."""


def onnxruntime_session(file: Path | bytes, threads: int) -> Any:
    """An InferenceSession with `threads` threads inside an operation and none across."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        file if isinstance(file, bytes) else str(file), options, providers=["CPUExecutionProvider"]
    )


def onnxruntime_runner(
    file: Path | bytes, feeds: Mapping[str, np.ndarray], threads: int
) -> Callable[[], list[np.ndarray]]:
    """A function that runs the model once on `feeds`."""
    session = onnxruntime_session(file, threads)
    given = dict(feeds)
    return lambda: session.run(None, given)


def openvino_runner(
    file: Path | bytes, feeds: Mapping[str, np.ndarray], threads: int
) -> Callable[[], list[np.ndarray]]:
    """A function that runs the model once on `feeds`. Raises Unavailable for a model that it cannot convert."""
    try:
        import openvino
    except ImportError:
        raise Unavailable("openvino is not installed") from None
    core = openvino.Core()
    try:
        model = core.read_model(file)
        model.reshape({name: list(array.shape) for name, array in feeds.items()})
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
    except RuntimeError as e:
        raise Unavailable(str(e).strip().splitlines()[-1][:100]) from None
    given = dict(feeds)

    def run() -> list[np.ndarray]:
        # arrays are shared, not copied: what its own fastest users do
        return list(request.infer(given, share_inputs=True, share_outputs=True).values())

    return run
