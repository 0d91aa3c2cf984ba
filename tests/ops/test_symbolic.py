"""References on object arrays of symbolic dimensions: the shape arithmetic that importers evaluate."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.dims import Dim, dim_max
from graphc.ir.dtypes import dtype_of
from graphc.ops import REGISTRY

N, M = Dim("n"), Dim("m")
SHAPE = np.array([N, 3, M], object)
TWO = np.array([2, 2, 2], object)


@pytest.mark.parametrize(
    ("name", "operands", "attrs", "expected"),
    [
        ("add", (SHAPE, TWO), {}, [N + 2, 5, M + 2]),
        ("sub", (SHAPE, np.array([1, 1, 1])), {}, [N - 1, 2, M - 1]),
        ("mul", (SHAPE, SHAPE), {}, [N * N, 9, M * M]),
        ("div", (4 * SHAPE, TWO), {}, [2 * N, 6, 2 * M]),
        ("floordiv", (SHAPE, TWO), {}, [N // 2, 1, M // 2]),
        ("mod", (2 * SHAPE, TWO), {}, [0, 0, 0]),
        ("neg", (SHAPE,), {}, [-N, -3, -M]),
        ("maximum", (SHAPE, SHAPE[::-1]), {}, [dim_max(N, M), 3, dim_max(M, N)]),
        ("cast", (SHAPE,), {"dtype": dtype_of("int64")}, [N, 3, M]),
        ("gather", (SHAPE, np.array([2, -3])), {"axis": 0}, [M, N]),
        ("slice", (SHAPE,), {"starts": (2,), "stops": (-1,), "steps": (-1,)}, [M, 3, N]),
        ("concat", (SHAPE, np.array([7])), {"axis": 0}, [N, 3, M, 7]),
        ("select", (np.array([True, False, True]), SHAPE, TWO), {}, [N, 2, M]),
        ("reduce_prod", (SHAPE,), {"axes": (0,)}, 3 * N * M),
        ("reduce_sum", (SHAPE,), {"axes": (0,)}, N + M + 3),
        ("reshape", (SHAPE,), {"shape": (3, 1)}, [[N], [3], [M]]),
        ("transpose", (SHAPE.reshape(1, 3),), {"perm": (1, 0)}, [[N], [3], [M]]),
    ],
)
def test_shape_arithmetic(
    name: str, operands: tuple[np.ndarray, ...], attrs: dict[str, object], expected: object
) -> None:
    reference = REGISTRY[name].reference
    assert reference is not None
    assert np.asarray(reference(*operands, **attrs)).tolist() == expected
