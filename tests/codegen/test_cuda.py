"""CUDA kernels: PTX for two generations of devices without having one, and small cases in Numba's simulator."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nests import placed
from test_loops import FUSIONS, fusion_of, numbers, value

from graphc import ops
from graphc.codegen import cuda as cuda_codegen
from graphc.codegen.cuda.compile import compile_ptx
from graphc.errors import CompileError
from graphc.ir.dtypes import dtype_of
from graphc.kernels.ir import LoopNest
from graphc.kernels.lower import lower

HERE = Path(__file__).parent
CAPABILITIES = [(8, 0), (9, 0)]


def kernels_of(name: str) -> list[LoopNest]:
    build, shapes = FUSIONS[name]
    arrays = [numbers(*s) for s in shapes]
    node = fusion_of(build, *(value(*s, name=f"x{k}") for k, s in enumerate(shapes)))
    results = [np.empty(t.static_shape, t.dtype.numpy) for t in node.types]  # type: ignore[union-attr]
    places = [placed(k, a) for k, a in enumerate([*arrays, *results])]
    return [launch.kernel for launch in lower(node, places[: len(arrays)], places[len(arrays) :])]  # type: ignore[misc]


@pytest.fixture
def needs_numba_cuda() -> None:
    pytest.importorskip("numba_cuda", reason="PTX needs the extra `cuda`")


@pytest.mark.parametrize("capability", CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("name", ["chain", "softmax", "layer norm", "to blocks and more", "pad", "sum and result"])
@pytest.mark.usefixtures("needs_numba_cuda")
def test_ptx(name: str, capability: tuple[int, int]) -> None:
    for kernel in kernels_of(name):
        ptx = compile_ptx(kernel, cuda_codegen.source(kernel), capability)
        assert re.search(rf"\.target sm_{capability[0]}{capability[1]}", ptx)
        assert ".visible .entry" in ptx
        if any(s.extents for s in kernel.stages):
            assert "bar.sync" in ptx
            assert ".shared" in ptx
        assert "call" not in re.sub(r"//.*", "", ptx).split(), "a function call is left in the kernel"


@pytest.mark.parametrize("capability", CAPABILITIES, ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.usefixtures("needs_numba_cuda")
def test_product_ptx(dtype: str, capability: tuple[int, int]) -> None:
    kernel = cuda_codegen.ProductKernel(dtype_of(dtype))
    ptx = compile_ptx(kernel, cuda_codegen.source(kernel), capability)
    assert "bar.sync" in ptx
    assert {"float32": "fma.rn.f32", "float64": "fma.rn.f64", "int32": "mad.lo.s32"}[dtype] in ptx


@pytest.mark.parametrize("name", ["chain", "softmax", "blocked bias"])
def test_text(name: str, golden: Callable[[str, str], None]) -> None:
    (kernel,) = kernels_of(name)
    golden(f"{name.replace(' ', '_')}_cuda.py", cuda_codegen.source(kernel).text)


def test_simulator() -> None:
    """Every fusion, and every sample of the registry that CUDA kernels compute, gives what its reference gives."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "simulate.py")],
        env=environment, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    wrong = [line for line in lines if not line.endswith(": ok") and ": refused, " not in line]
    assert not wrong, "\n".join(wrong)
    assert sum(line.endswith(": ok") for line in lines) > 400


def test_refusals_name_the_element_type() -> None:
    x = numbers(5).astype(np.float16)
    node = fusion_of(ops.neg, value(5, dtype="float16"))
    (launch,) = lower(node, [placed(0, x)], [placed(1, x)])
    with pytest.raises(CompileError, match="float16"):
        cuda_codegen.source(launch.kernel)
