"""Runs CUDA kernels in Numba's simulator and holds them against the references; run by test_cuda.py in a process of its
own, because NUMBA_ENABLE_CUDASIM decides for a whole process. Prints one line a case: its name, and "ok" or the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
from nests import node_of, placed
from numba import cuda
from test_loops import FUSIONS, fusion_of, numbers, value
from test_nodes import assert_agree

from graphc.codegen import cuda as cuda_codegen
from graphc.codegen.cuda.compile import define
from graphc.errors import CompileError
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node
from graphc.ir.interpret import run_node
from graphc.kernels.lower import lower
from graphc.ops import REGISTRY
from graphc.ops.spec import Kind

#: threads in a block: the simulator's are threads of Python, so few
THREADS = 8


def simulate(node: Node, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of a node, computed by its CUDA kernels."""
    results = [np.zeros(t.static_shape, t.dtype.numpy) for t in node.types]  # type: ignore[union-attr]
    memory = [np.array(a, order="C") for a in (*arrays, *results)]
    places = [placed(k, a) for k, a in enumerate(memory)]
    for launch in lower(node, places[: len(arrays)], places[len(arrays) :]):
        kernel = cuda.jit(define(cuda_codegen.source(launch.kernel, THREADS)))
        grid, block = cuda_codegen.launch_shape(launch.kernel, launch.integers, THREADS)
        flat = [memory[o.buffer].reshape(-1)[o.byte_offset // memory[o.buffer].itemsize :] for o in launch.operands]
        kernel[grid, block](*flat, *launch.integers)
    return memory[len(arrays) :]


def cases() -> Iterator[tuple[str, Node, list[np.ndarray]]]:
    for name, (build, shapes) in FUSIONS.items():
        arrays = [numbers(*s) for s in shapes]
        yield name, fusion_of(build, *(value(*s, name=f"x{k}") for k, s in enumerate(shapes))), arrays
    for name, spec in REGISTRY.items():
        if spec.kind in (Kind.ELEMENTWISE, Kind.INJECTIVE, Kind.REDUCE):
            for k, sample in enumerate(spec.samples()):
                arrays = [np.asarray(a) for a in sample.operands]
                same_shape = spec.kind is not Kind.ELEMENTWISE or len({a.shape for a in arrays}) == 1
                if same_shape and all(dtype_of(a).kind in ("float", "int", "uint", "bool") for a in arrays):
                    yield f"{name}-{k}", node_of(spec, *arrays, **sample.attrs), arrays


def product_case() -> tuple[np.ndarray, np.ndarray]:
    a, b = numbers(2, 9, 7), numbers(2, 7, 10)
    c = np.zeros((2, 9, 10), np.float32)
    kernel = cuda_codegen.ProductKernel(dtype_of("float32"), tile=4)
    integers = (2, 9, 10, 7, 63, 7, 1, 70, 10, 1, 90, 10, 1)
    grid, block = cuda_codegen.launch_shape(kernel, integers)
    cuda.jit(define(cuda_codegen.source(kernel)))[grid, block](a.ravel(), b.ravel(), c.reshape(-1), *integers)
    return c, a @ b


def main() -> None:
    np.seterr(all="ignore")
    for name, node, arrays in cases():
        try:
            got, expected = simulate(node, arrays), run_node(node, tuple(arrays), {})
            for g, e in zip(got, expected, strict=True):
                if name in FUSIONS:
                    np.testing.assert_allclose(g, e, rtol=3e-5, atol=3e-5)
                else:
                    assert_agree(g, np.asarray(e))
            print(f"{name}: ok")
        except CompileError as refused:
            print(f"{name}: refused, {refused}")
        except Exception as error:
            print(f"{name}: {type(error).__name__} {error}".replace("\n", " "))
    got, expected = product_case()
    print("product: ok" if np.allclose(got, expected, rtol=1e-5, atol=1e-5) else "product: wrong")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
