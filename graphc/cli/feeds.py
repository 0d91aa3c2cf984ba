"""Inputs for a model from the command line: arrays from files, shapes as text, random values for the rest."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.cli import show
from graphc.errors import InputError, OptionError
from graphc.ir.dtypes import DType
from graphc.ir.types import OptionalType, TensorType
from graphc.runtime.executable import Port

__all__ = ["choose_shapes", "feeds_for", "parse_shapes", "random_array", "random_feeds", "read_arrays"]


def feeds_for(
    ports: Sequence[Port], *, shapes: Iterable[str] = (), inputs: Iterable[str] = (), seed: int = 0
) -> dict[str, np.ndarray]:
    """An array for every input that must be fed, from the texts of `--shape` and `--input`; the rest is random.

    Sizes that were assumed are noted on standard error. Raises what the functions below raise.
    """
    arrays = read_arrays(inputs, ports)
    chosen, assumed = choose_shapes(ports, parse_shapes(shapes, ports), arrays)
    for sentence in assumed:
        show.note(sentence)
    return {**random_feeds(ports, chosen, seed), **arrays}


def parse_shapes(texts: Iterable[str], ports: Sequence[Port]) -> dict[str, tuple[int, ...]]:
    """`NAME=1x3x224x224` by name; without `NAME=` when the model has one input; `NAME=` alone is rank 0.

    Raises OptionError for text that is not a shape, or a name that the model does not have.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, sizes = _split(text, ports, "--shape")
        try:
            shape = tuple(int(s) for s in sizes.split("x")) if sizes else ()
        except ValueError:
            shape = (-1,)
        if any(n < 0 for n in shape):
            raise OptionError(f"--shape {text}: expected sizes such as 1x3x224x224, got {sizes!r}")
        if name in shapes:
            raise OptionError(f"--shape: input {name!r} was given two shapes")
        shapes[name] = shape
    return shapes


def read_arrays(texts: Iterable[str], ports: Sequence[Port]) -> dict[str, np.ndarray]:
    """The arrays of `NAME=FILE.npy` and `FILE.npz` (whose names are inputs' names), by input name.

    Never unpickles. Raises InputError for a file that is not there or holds no array, OptionError for a bad name.
    """
    arrays: dict[str, np.ndarray] = {}
    for text in texts:
        if "=" not in text and text.endswith(".npz"):
            found = _load(text)
            assert isinstance(found, dict)
            for name in found:
                _known(name, ports, f"--input {text}")
            arrays.update(found)
            continue
        name, path = _split(text, ports, "--input")
        loaded = _load(path)
        if isinstance(loaded, dict):
            if name not in loaded:
                raise InputError(
                    f"--input {text}: the file has no array {name!r}; it has {', '.join(loaded) or 'none'}"
                )
            loaded = loaded[name]
        arrays[name] = loaded
    return arrays


def choose_shapes(
    ports: Sequence[Port], given: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """A shape for every tensor input that must be fed, and a sentence about each size that was assumed.

    Sizes the model leaves open come from arrays and `--shape`; sizes that share a name agree; an open first axis of a
    tensor of rank 2 or more is taken for a batch of 1. Raises InputError naming the input whose size is not known, and
    the option that gives it.
    """
    sizes: dict[str, int] = {}
    tensors = [(p, p.type) for p in ports if isinstance(p.type, TensorType)]
    for p, t in tensors:
        known = arrays[p.name].shape if p.name in arrays else given.get(p.name)
        if known is not None and len(known) == t.rank:
            sizes.update(
                {
                    d.name: n
                    for d, n in zip(t.shape, known, strict=True)
                    if not isinstance(d, int) and d.name is not None
                }
            )
    shapes: dict[str, tuple[int, ...]] = {}
    assumed = []
    for p, t in tensors:
        if p.name in arrays or isinstance(p.type, OptionalType):
            continue
        if p.name in given:
            shapes[p.name] = given[p.name]
            continue
        shape = []
        for axis, d in enumerate(t.shape):
            name = d if isinstance(d, int) else d.name
            if isinstance(name, int):
                shape.append(name)
            elif name is not None and name in sizes:
                shape.append(sizes[name])
            elif axis == 0 and t.rank > 1:
                shape.append(1)
                assumed.append(f"input {p.name!r}: axis 0 ({d}) is taken as a batch of 1")
                if name is not None:
                    sizes[name] = 1
            else:
                example = "x".join(
                    str(n) if isinstance(n, int) else "1" if i == 0 else "N" for i, n in enumerate(t.shape)
                )
                raise InputError(
                    f"input {p.name!r} is {t}: the size of axis {axis} ({d}) is not known; "
                    f"give --shape {p.name}={example} with numbers"
                )
        shapes[p.name] = tuple(shape)
    return shapes, assumed


def random_feeds(ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Random arrays for the inputs in `shapes`, the same ones for the same seed. Integers called a mask are all 1: with
    others a transformer's scores become infinite, and its results NaN.

    Raises InputError for an input that is a sequence or an optional value, which cannot be made up.
    """
    rng = np.random.default_rng(seed)
    feeds = {}
    for p in ports:
        if p.name in shapes:
            assert isinstance(p.type, TensorType)
            dtype, shape = p.type.dtype, shapes[p.name]
            masks = dtype.is_integer and "mask" in p.name.lower()
            feeds[p.name] = np.ones(shape, dtype.numpy) if masks else random_array(rng, dtype, shape)
        elif not isinstance(p.type, TensorType | OptionalType):
            raise InputError(
                f"input {p.name!r} is {p.type}, which the command line cannot give; use graphc.compile from Python"
            )
    return feeds


def random_array(rng: np.random.Generator, dtype: DType, shape: Sequence[int]) -> np.ndarray:
    """Values that most models can digest: floats in [0, 1), small non-negative integers (indices), both booleans."""
    if dtype.kind == "string":
        return np.full(shape, "a", dtype=object)
    if dtype.kind == "bool":
        return rng.random(shape) < 0.5
    if dtype.is_integer:
        top = min(10, 2 ** (dtype.bits - 1) if dtype.kind == "int" else 2**dtype.bits)
        return rng.integers(0, top, shape).astype(dtype.numpy)
    values: Any = rng.random(shape)
    if dtype.kind == "complex":
        values = values + 1j * rng.random(shape)
    return np.asarray(values).astype(dtype.numpy)


def _split(text: str, ports: Sequence[Port], option: str) -> tuple[str, str]:
    """`NAME=VALUE`, where a name may itself contain `=`; just VALUE when there is only one input."""
    for p in sorted(ports, key=lambda p: -len(p.name)):
        if text.startswith(f"{p.name}="):
            return p.name, text[len(p.name) + 1 :]
    if "=" not in text and len(ports) == 1:
        return ports[0].name, text
    _known(text.split("=")[0], ports, f"{option} {text}")
    raise OptionError(f"{option} {text}: expected NAME=VALUE; the inputs are {_names(ports)}")


def _known(name: str, ports: Sequence[Port], what: str) -> None:
    if name not in [p.name for p in ports]:
        raise OptionError(f"{what}: the model has no input {name!r}; it has {_names(ports)}")


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(p.name for p in ports) or "none"


def _load(path: str) -> np.ndarray | dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise InputError(f"there is no file {path!r}") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as e:
        raise InputError(f"{path!r} is not a NumPy file that can be read: {e}") from None
