"""How far results are from float64, layer by layer: `python -m bench.accuracy [--precision strict float32]`.

Every layer runs on the same float32 inputs and weights as its float64 reference: activations as behind a ReLU, weights of
unit gain (He et al. 2015, arXiv:1502.01852). Two errors, relative to the largest and to the root mean square of the
exact results: the largest, and the root mean square. `strict` computes sums as they are defined; `float32`, the default,
also uses minimal filtering and Strassen's algorithm, whose kernels are named.

The figures also go into bench/results/accuracy.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bench.record import parse, write
from graphc import ops
from graphc.cli import show
from graphc.ir.graph import Graph, Value, constant, input_value
from graphc.ir.interpret import run
from graphc.ir.types import tensor
from graphc.ops import functions
from graphc.options import PRECISIONS, Options
from graphc.passes.pipeline import optimise, prepare
from graphc.runtime.assemble import CompiledGraph

__all__ = ["LAYERS", "Error", "main", "measure"]

#: from the input and a maker of weights (shape, fan in) to the result
Layer = Callable[[Value, Callable[..., Value]], Value]


@dataclass
class Error:
    """The error of one layer at one precision; `kernels` are the families that computed it."""

    layer: str
    precision: str
    largest: float
    root_mean_square: float
    kernels: list[str]


def _conv(filters: int, kernel: int, stride: int = 1, groups: int = 1) -> Layer:
    def layer(x: Value, weights: Callable[..., Value]) -> Value:
        channels = int(x.shape[1]) // groups
        w = weights((filters, channels, kernel, kernel), channels * kernel * kernel)
        pad = ((kernel // 2, kernel // 2),) * 2
        y: Value = ops.conv(x, w, strides=(stride, stride), padding=pad, dilation=(1, 1), groups=groups)
        return y

    return layer


def _dense(columns: int) -> Layer:
    def layer(x: Value, weights: Callable[..., Value]) -> Value:
        k = int(x.shape[-1])
        y: Value = ops.dot(x, weights((k, columns), k))
        return y

    return layer


def _attention(x: Value, weights: Callable[..., Value]) -> Value:
    """Self-attention of one head: softmax(x x^T / sqrt(d)) x."""
    size = int(x.shape[-1])
    scores = ops.mul(ops.dot(x, ops.transpose(x, perm=(0, 2, 1))), size**-0.5)
    y: Value = ops.dot(functions.softmax(scores, axis=2), x)
    return y


def _layer_norm(x: Value, weights: Callable[..., Value]) -> Value:
    centred = ops.sub(x, functions.mean(x, (1,), keepdims=True))
    variance = functions.mean(ops.mul(centred, centred), (1,), keepdims=True)
    y: Value = ops.div(centred, ops.sqrt(ops.add(variance, 1e-5)))
    return y


def _lstm(hidden: int) -> Layer:
    """All states of an LSTM from zero; weights of the spread that PyTorch draws them with, 1 / sqrt(3 hidden)."""

    def layer(x: Value, weights: Callable[..., Value]) -> Value:
        steps, batch, inputs = x.shape
        projected = ops.dot(ops.reshape(x, shape=(steps * batch, inputs)), weights((inputs, 4 * hidden), 6 * hidden))
        zero = ops.broadcast_to(np.zeros((), x.dtype.numpy), shape=(batch, hidden))
        gates = ops.reshape(projected, shape=(steps, batch, 4 * hidden))
        y: Value = ops.lstm(gates, weights((4 * hidden, hidden), 6 * hidden), zero, zero)[0]
        return y

    return layer


#: name: input shape, layer
LAYERS: dict[str, tuple[tuple[int, ...], Layer]] = {
    "convolution 3x3, 64 channels": ((1, 64, 56, 56), _conv(64, 3)),
    "convolution 3x3, 512 channels": ((1, 512, 14, 14), _conv(512, 3)),
    "convolution 5x5, 32 channels": ((1, 32, 28, 28), _conv(96, 5)),
    "convolution 7x7, stride 2, 3 channels": ((1, 3, 224, 224), _conv(64, 7, stride=2)),
    "convolution 3x3, stride 2, 128 channels": ((1, 128, 56, 56), _conv(128, 3, stride=2)),
    "convolution 3x3, depthwise": ((1, 144, 56, 56), _conv(144, 3, groups=144)),
    "convolution 1x1, 256 channels": ((1, 256, 28, 28), _conv(512, 1)),
    "convolution 1x1, 2048 channels": ((1, 2048, 14, 14), _conv(512, 1)),
    "product 128 x 768 x 768": ((128, 768), _dense(768)),
    "product 1024 x 1024 x 1024": ((1024, 1024), _dense(1024)),
    "attention, 128 rows of 64": ((4, 128, 64), _attention),
    "layer normalisation, 768": ((128, 768), _layer_norm),
    "LSTM 512, 16 sequences of 25 steps": ((25, 16, 512), _lstm(512)),
    "LSTM 128, 64 sequences of 28 steps": ((28, 64, 128), _lstm(128)),
}


def measure(name: str, precision: str, threads: int = 1, seed: int = 0) -> Error:
    """The error of one layer."""
    shape, layer = LAYERS[name]
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal(shape), 0).astype(np.float32)
    made: dict[tuple[int, ...], np.ndarray] = {}

    def graph(dtype: str) -> Graph:
        def weights(size: tuple[int, ...], fan_in: int) -> Value:
            if size not in made:
                made[size] = (rng.standard_normal(size) * np.sqrt(2 / fan_in)).astype(np.float32)
            return constant(made[size].astype(dtype))

        value = input_value("x", tensor(dtype, *shape))
        return Graph([value], [layer(value, weights)])

    options = Options.of(threads=threads, precision=precision)
    compiled = CompiledGraph(optimise(prepare(graph("float32"), options), options), options)
    (got,) = compiled.run([x])
    (exact,) = run(graph("float64"), x.astype(np.float64))
    error = got - exact
    return Error(
        name,
        precision,
        float(np.abs(error).max() / np.abs(exact).max()),
        float(np.sqrt((error**2).mean() / (exact**2).mean())),
        list(dict.fromkeys(launch.kernel.family for launch in compiled.program.launches)),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    arguments = parse(parser, "accuracy", argv)
    errors = [measure(name, p) for name in LAYERS for p in arguments.precision]
    rows = [
        (e.layer, e.precision, f"{e.largest:.1e}", f"{e.root_mean_square:.1e}", ", ".join(e.kernels)) for e in errors
    ]
    show.table(["layer", "precision", "largest", "rms", "kernels"], rows, right=["largest", "rms"])
    write(arguments.save, {"errors": [asdict(e) for e in errors]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
