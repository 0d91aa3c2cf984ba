"""Matrix products: `python -m bench.gemm [--threads 2 1] [--only square] [--seconds 1]`.

float32 x[M, K] @ w[K, N] with constant w, as an ONNX model of one MatMul in graphc and in onnxruntime (MLAS): square
ones, the 1x1 convolutions and the last layer of resnet50 as products (M pixels, K channels, N filters), and those of
MiniLM-L6 for 16, 128 and 1024 tokens. Both pack w when they load it.

The figures also go into bench/results/gemm.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from bench.record import parse
from bench.suite import Make, Result, parser, run_suite
from graphc.measure.peers import Subject, load_subject

__all__ = ["SHAPES", "main", "product_model"]

SUBJECTS = ("graphc", "onnxruntime")


def _resnet50() -> list[tuple[int, int, int]]:
    """M, K, N of the 1x1 convolutions, in order, and of the last layer."""
    shapes, channels, before = [], 64, 56 * 56
    for size, width in ((56, 64), (28, 128), (14, 256), (7, 512)):
        pixels, wide = size * size, 4 * width
        shapes.append((before, channels, width))  # strides are in the 3x3 convolution behind it
        shapes += [(pixels, width, wide), (pixels, channels, wide), (pixels, wide, width)]
        channels, before = wide, pixels
    return [*dict.fromkeys(shapes), (1, 2048, 1000)]


#: M, K, N by group
SHAPES = {
    "square": [(n, n, n) for n in (64, 128, 256, 512, 1024, 2048)],
    "resnet50": _resnet50(),
    "minilm": [(m, k, n) for m in (16, 128, 1024) for k, n in ((384, 384), (384, 1536), (1536, 384))],
}


def product_model(m: int, k: int, n: int) -> bytes:
    """x[m, k] @ w[k, n] as a model."""
    from onnx import TensorProto, helper, numpy_helper

    w = np.random.default_rng(0).standard_normal((k, n), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [m, k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [m, n])],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def subjects(m: int, k: int, n: int) -> Make:
    """The product in both."""
    file, feeds = product_model(m, k, n), {"x": np.random.default_rng(1).standard_normal((m, k), np.float32)}

    def graphc(threads: int) -> Subject:
        subject = load_subject("graphc", file, feeds, threads)
        return replace(subject, facts=lambda: {**subject.facts(), "flops": 2 * m * k * n})

    return {"graphc": graphc, "onnxruntime": lambda threads: load_subject("onnxruntime", file, feeds, threads)}


def rate(result: Result) -> str:
    """graphc's 10**9 operations a second."""
    return f"{result.facts['flops'] / result.figures['graphc'].median * 1e-6:.1f}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    cases: dict[str, Callable[[], Make]] = {
        f"{group} {m} x {k} x {n}": lambda shape=(m, k, n): subjects(*shape)  # type: ignore[misc]
        for group, shapes in SHAPES.items()
        for m, k, n in shapes
    }
    return run_suite(parse(parser("gemm", __doc__), "gemm", argv), cases, SUBJECTS, {"GFLOP/s": rate})


if __name__ == "__main__":
    sys.exit(main())
