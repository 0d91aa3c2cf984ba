"""How near the micro-kernels come to the processor's peak: one thread, one layer at a time, beside onnxruntime.

    python -m bench.microkernels [--isa avx2] [--dtype bfloat16] [--rounds 30] [--no-peer] [FILTER]

The peak is a loop of independent FMAs on registers, measured again beside every case, because clocks change and other
work shares the machine. All times are minimums over interleaved rounds. With `--dtype bfloat16` contractions multiply
those; the peak and the peer stay float32.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from graphc.codegen.cpu.templates.contraction import contraction_arguments, contraction_source
from graphc.codegen.cpu.templates.epilogue import Argument, Epilogue
from graphc.codegen.cpu.templates.windows import window_arguments, window_source
from graphc.ir.dims import ceil_div
from graphc.kernels import contraction as c
from graphc.kernels import windows as win
from graphc.kernels.machine import ISAS, Machine, host_machine
from graphc.kernels.problems import ConvProblem, GemmProblem
from graphc.measure.roofs import CHAINS, peak_source
from graphc.ops.layout import pack_conv_weights, pack_matrix, together
from graphc.runtime.cache import aligned
from graphc.runtime.native import kernel_addresses

_WHERE = ("batch", "group", "vector", "row")
#: Bias and ReLU: what follows most convolutions.
BIAS_RELU = Epilogue(
    (Argument("y", "float32"), Argument("bias", "float32"), *(Argument(f"y_{part}", "int") for part in _WHERE)),
    (
        (
            "acc = maximum(acc + load(bias, c * {lanes}, lanes), 0)",
            "store(y, b * y_batch + g * y_group + q * y_vector + m * y_row, acc, lanes)",
        ),
    ),
    ("from graphc.codegen.cpu.vector import maximum",),
)


def epilogue(lanes: int) -> Epilogue:
    (lines,) = BIAS_RELU.choices
    return replace(BIAS_RELU, choices=(tuple(line.replace("{lanes}", str(lanes)) for line in lines),))


def native(name: str, source: str) -> Callable[[int, int, int, int], None]:
    (address,) = kernel_addresses([(name, source)])
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(address)


@dataclass
class Launch:
    """A kernel with everything that its argument block points to."""

    run: Callable[[], None]
    flops: int
    what: str
    keep: tuple[object, ...]


def launch(
    name: str, source: str, arguments: tuple[Argument, ...], values: dict[str, object], tasks: int, scratch: int
) -> tuple[Callable[[], None], tuple[object, ...]]:
    kernel = native(name, source)
    slots = [values[a.name] for a in arguments]
    block = np.array([v.ctypes.data if isinstance(v, np.ndarray) else v for v in slots], np.int64)
    room = aligned(np.zeros(max(64, scratch), np.uint8))
    pointers = block.ctypes.data, room.ctypes.data
    return lambda: kernel(pointers[0], 0, tasks, pointers[1]), (values, block, room)


def peak_loop(lanes: int) -> Launch:
    """Independent chains of FMAs."""
    kernel = native(*peak_source(lanes))
    numbers, sums, steps = np.full(lanes, 0.5, np.float32), np.zeros(lanes, np.float32), 100_000
    block = np.array([numbers.ctypes.data, sums.ctypes.data, steps], np.int64)
    address = block.ctypes.data
    return Launch(lambda: kernel(address, 0, 1, 0), 2 * 2 * CHAINS * lanes * steps, "peak", (numbers, sums, block))


def gemm(machine: Machine, m: int, n: int, k: int, dtype: str) -> Launch:
    p = GemmProblem(m, n, k, dtype=dtype)
    s = c.schedule(p, machine)
    rng = np.random.default_rng(0)
    v = s.variant
    e = epilogue(v.lanes)
    values = c.arguments(p, s) | {
        "x": rng.random((m, k), "f").astype(dtype),
        "w": aligned(pack_matrix.reference(rng.random((k, n), "f").astype(dtype), columns=v.columns)),
        "offsets": 0, "zeros": 0, "y": np.zeros((m, n), "f"), "bias": np.zeros(n + v.lanes, "f"),
        "y_batch": m * n, "y_group": m * n, "y_vector": v.lanes, "y_row": n,
    }  # fmt: skip
    run, keep = launch(
        "contraction", contraction_source(v, e), contraction_arguments(v, e), values, s.tasks, s.scratch_bytes
    )
    return Launch(run, p.flops, f"{v.mode} {v.rows}x{v.vectors}", keep)


def conv(machine: Machine, p: ConvProblem) -> Launch:
    s = c.schedule(p, machine)
    v, lanes = s.variant, s.variant.lanes
    e = epilogue(lanes)
    rng = np.random.default_rng(0)
    blocks, pixels = ceil_div(p.filters, lanes), p.rows
    shape = (p.groups * p.filters, p.channels, *p.kernel)
    values = c.arguments(p, s) | {
        "x": rng.random((p.batch, p.groups * p.blocks, p.height, p.width, p.block), "f").astype(p.dtype),
        "w": aligned(
            pack_conv_weights.reference(
                rng.random(shape, "f").astype(p.dtype), block=p.block, columns=v.columns, groups=p.groups
            )
        ),
        "offsets": c.offset_table(p, v), "zeros": np.zeros(64, p.dtype),
        "y": np.zeros((p.batch, p.groups * blocks, pixels * lanes), "f"),
        "bias": np.zeros(p.groups * blocks * lanes, "f"),
        "y_batch": p.groups * blocks * pixels * lanes, "y_group": blocks * pixels * lanes,
        "y_vector": pixels * lanes, "y_row": lanes,
    }  # fmt: skip
    run, keep = launch(
        "contraction", contraction_source(v, e), contraction_arguments(v, e), values, s.tasks, s.scratch_bytes
    )
    return Launch(run, p.flops, f"{v.mode} {v.rows}x{v.vectors}", keep)


def depthwise(machine: Machine, p: win.WindowProblem) -> Launch:
    s = win.schedule(p, machine)
    v = s.variant
    e = epilogue(v.lanes)
    rng = np.random.default_rng(0)
    high, wide = p.output
    values = win.arguments(p, s) | {
        "x": rng.random((p.batch, p.blocks, p.height, p.width, p.lanes), "f"),
        "w": aligned(rng.random((p.blocks, *p.kernel, p.lanes), "f")),
        "y": np.zeros((p.batch, p.blocks, high * wide, p.lanes), "f"), "bias": np.zeros(p.blocks * p.lanes, "f"),
        "y_batch": p.blocks * high * wide * p.lanes, "y_group": 0, "y_vector": high * wide * p.lanes, "y_row": p.lanes,
    }  # fmt: skip
    run, keep = launch("windows", window_source(v, e), window_arguments(v, e), values, s.tasks, s.scratch_bytes)
    return Launch(run, p.flops, f"{v.combine} {v.pixels}px", keep)


def peer(
    op: str, feeds: dict[str, tuple[int, ...]], weights: dict[str, tuple[int, ...]], **attributes: object
) -> Callable[[], object] | None:
    """The same operator (and its ReLU) alone in onnxruntime, one thread; None where it is not installed."""
    try:
        import onnx
        import onnxruntime
        from onnx import helper
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    nodes = [helper.make_node(op, [*feeds, *weights], ["t"], **attributes), helper.make_node("Relu", ["t"], ["y"])]
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info(n, 1, s) for n, s in feeds.items()],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(rng.random(s, "f"), n) for n, s in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {n: rng.random(s, "f") for n, s in feeds.items()}
    return lambda: session.run(None, inputs)


def conv_peer(p: ConvProblem) -> Callable[[], object] | None:
    return peer(
        "Conv", {"x": (p.batch, p.groups * p.channels, p.height, p.width)},
        {"w": (p.groups * p.filters, p.channels, *p.kernel), "b": (p.groups * p.filters,)},
        kernel_shape=p.kernel, strides=p.stride, pads=p.pads, dilations=p.dilation, group=p.groups,
    )  # fmt: skip


@dataclass
class Case:
    """A layer: how to make our launch of it, and the peer's."""

    ours: Callable[[], Launch]
    peer: Callable[[], Callable[[], object] | None]


def gemm_case(machine: Machine, m: int, n: int, k: int, dtype: str) -> Case:
    return Case(lambda: gemm(machine, m, n, k, dtype), lambda: peer("Gemm", {"x": (m, k)}, {"w": (k, n), "b": (n,)}))


def conv_case(
    machine: Machine, channels: int, filters: int, size: int, kernel: int, stride: int, pad: int, dtype: str
) -> Case:
    channels += channels % together(dtype)
    block = min(channels, machine.isa.lanes(4))
    p = ConvProblem(
        1, channels, filters, size, size, (kernel, kernel), (stride, stride), pads=(pad,) * 4, block=block,
        dtype=dtype,
    )  # fmt: skip
    return Case(lambda: conv(machine, p), lambda: conv_peer(p))


def depthwise_case(machine: Machine, channels: int, size: int, stride: int) -> Case:
    lanes = machine.isa.lanes(4)
    steps, pads = (stride, stride), (1, 1, 1, 1)
    p = win.WindowProblem(1, ceil_div(channels, lanes), size, size, (3, 3), steps, pads=pads, lanes=lanes)
    as_conv = ConvProblem(1, 1, 1, size, size, (3, 3), steps, pads=pads, groups=channels, block=lanes)
    return Case(lambda: depthwise(machine, p), lambda: conv_peer(as_conv))


def cases(machine: Machine, dtype: str = "float32") -> dict[str, Case]:
    """The layers of resnet50, a few matrix products, and the depthwise layers of mobile networks, by name."""
    sizes = ((512, 512, 512), (128, 768, 768), (49, 512, 512), (1, 4096, 4096), (1, 1000, 2048))
    table = {f"gemm {m}x{n}x{k}": gemm_case(machine, m, n, k, dtype) for m, n, k in sizes}
    layers = [(128, 128, 56, 3, 2, 1), (256, 512, 56, 1, 2, 0), (3, 64, 224, 7, 2, 3), (3, 64, 230, 7, 2, 0)]
    for n, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        layers += [(n, n, size, 3, 1, 1), (n, 4 * n, size, 1, 1, 0), (4 * n, n, size, 1, 1, 0)]
    for channels, filters, size, kernel, stride, pad in layers:
        name = f"conv {channels}->{filters} {size}² {kernel}x{kernel}" + (f"/{stride}" if stride > 1 else "")
        table[name] = conv_case(machine, channels, filters, size, kernel, stride, pad, dtype)
    for channels, size, stride in ((96, 112, 2), (144, 56, 1), (384, 14, 1), (960, 7, 1)):
        name = f"depthwise {channels} {size}²" + (f"/{stride}" if stride > 1 else "")
        table[name] = depthwise_case(machine, channels, size, stride)
    return table


def seconds(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("filter", nargs="?", default="")
    parser.add_argument("--isa", choices=[*ISAS])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args(argv)
    machine = replace(host_machine(), isa=ISAS[options.isa]) if options.isa else host_machine()
    peak = peak_loop(machine.isa.lanes(4))
    print(
        f"{machine.isa.name}, {machine.isa.lanes(4)} lanes, "
        f"L1 {machine.l1_bytes >> 10} KiB, L2 {machine.l2_bytes >> 10} KiB"
    )
    print(f"{'case':26} {'tile':>12} {'us':>8} {'GFLOP/s':>8} {'of peak':>8} {'onnxruntime us':>15} {'faster':>7}")
    for name, case in cases(machine, options.dtype).items():
        if options.filter not in name:
            continue
        ours, theirs = case.ours(), None if options.no_peer else case.peer()
        best = [1e9, 1e9, 1e9]
        for _ in range(options.rounds):
            for k, f in enumerate((ours.run, peak.run, theirs)):
                if f is not None:
                    best[k] = min(best[k], seconds(f))
        rate, limit = ours.flops / best[0] / 1e9, peak.flops / best[1] / 1e9
        line = f"{name:26} {ours.what:>12} {best[0] * 1e6:8.1f} {rate:8.1f} {rate / limit:8.1%}"
        print(line + (f" {best[2] * 1e6:15.1f} {best[2] / best[0]:7.2f}" if theirs is not None else ""), flush=True)


if __name__ == "__main__":
    main()
