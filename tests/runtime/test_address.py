"""Addresses read from array objects are those that NumPy says."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from graphc.runtime import address

WHOLE = np.arange(24, dtype=np.float32).reshape(4, 6)
ARRAYS = {
    "whole": WHOLE,
    "part": WHOLE[1:, ::-2],
    "transposed": WHOLE.T,
    "empty": WHOLE[:0],
    "rank 0": WHOLE[2, 3, ...],
    "repeated": np.broadcast_to(WHOLE[0], (1000, 6)),
    "bfloat16": WHOLE.astype(ml_dtypes.bfloat16),
    "of a buffer": np.frombuffer(bytearray(64), np.int64, offset=8),
    "read-only": np.frombuffer(bytes(64), np.int8),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("how", [address.address_of, address._by_layout, address._by_interface])
def test_an_address(name: str, how: object) -> None:
    array = ARRAYS[name]
    assert how(array) == array.ctypes.data  # type: ignore[operator]


def test_of_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.save(tmp_path / "a.npy", WHOLE)
    array = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert address.address_of(array) == array.ctypes.data
