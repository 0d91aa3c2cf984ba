"""A cache of the test session's own, and kernels that tests of the runtime run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from graphc.runtime.native import kernel_addresses

# count: adds task + 1 to element `task` of block[0].
# stamp: writes block[1] to each of its tasks' elements.
# double: element 0 of block[0] doubles.
# below: the byte at block[1] becomes element 0 of block[0] < block[2].
# fill: writes its number into all of its scratch memory (block[1] words); element `task` of block[0] becomes the
#       address of that memory, or -1 when somebody else wrote there too.
KERNELS = """
from graphc.codegen.cpu.atomics import cells, pause


def count(block, first, last, scratch):
    out = cells(block[0])
    for task in range(first, last):
        out[task] += task + 1


def stamp(block, first, last, scratch):
    out = cells(block[0])
    for task in range(first, last):
        out[task] = block[1]


def double(block, first, last, scratch):
    out = cells(block[0])
    out[0] *= 2


def below(block, first, last, scratch):
    # Flags are bytes: write one without touching its neighbours.
    at = block[1] & ~7
    shift = (block[1] & 7) * 8
    bit = 1 if cells(block[0])[0] < block[2] else 0
    word = cells(at)
    word[0] = (word[0] & ~(255 << shift)) | (bit << shift)


def fill(block, first, last, scratch):
    out, mine = cells(block[0]), cells(scratch)
    for task in range(first, last):
        for i in range(block[1]):
            mine[i] = task
        for _ in range(20):
            pause()
        wrong = 0
        for i in range(block[1]):
            if mine[i] != task:
                wrong += 1
        out[task] = scratch if wrong == 0 else -1
"""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither need nor change the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_CACHE", str(tmp_path_factory.mktemp("cache", numbered=True)))
        os.chmod(os.environ["GRAPHC_CACHE"], 0o700)
        yield


@pytest.fixture(scope="session")
def kernels(own_cache: None) -> SimpleNamespace:
    """Addresses of the kernels above, by name."""
    names = ("count", "stamp", "double", "below", "fill")
    return SimpleNamespace(**dict(zip(names, kernel_addresses([(n, KERNELS) for n in names]), strict=True)))
