"""`compile` and `load`: from anything that is a model to an executable or a graph."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.errors import InputError, ModelError, NeedsValue, OptionError
from graphc.frontends.beneath import open_beneath
from graphc.ir.types import TensorType
from graphc.options import FUNCTION_OPTIONS, Options
from graphc.runtime.cache import Cache, model_cache
from graphc.runtime.digest import file_digest
from graphc.runtime.executable import Executable, GraphSource, Port, Source
from graphc.runtime.stored import Store

if TYPE_CHECKING:
    from graphc.frontends.onnx import OnnxModel
    from graphc.frontends.python.model import ModelFunction
    from graphc.ir.graph import Graph

__all__ = ["compile", "executable_of", "function", "load", "resolve", "source_of"]

#: `onnx:NAME` finds a model among these, the topologies that the onnx package ships with generated weights
_SHIPPED = "backend/test/data/light"


def compile(
    model: Any = None,
    *,
    donate_argnums: int | Sequence[int] = (),
    static_argnums: int | Sequence[int] = (),
    static_argnames: str | Sequence[str] = (),
    **options: Any,
) -> Any:
    """Compile a model: a path, `onnx:NAME`, the bytes of a file, a ModelProto, a Graph, or a Python function.

    A model gives an `Executable`. A Python function gives a `CompiledFunction`, which traces and compiles when it is
    called, once for each signature of arguments; `donate_argnums`, `static_argnums` and `static_argnames` are for it
    (see there). Without a model this is a decorator: `@graphc.compile(threads=1)`.

    Options are those of `graphc.options.Options`: target, threads, precision, level, disable, progress.
    A model whose input shapes are all fixed is compiled at once; otherwise the first call with new shapes compiles
    for them, and `Executable.prepare(**shapes)` does so ahead of time.

    Raises ModelError or UnsafeModelError for a file that is not a sound model, UnsupportedError listing everything
    the model needs and graphc lacks, OptionError for a bad option.
    """
    chosen = Options.of(**options)
    given = (donate_argnums, static_argnums, static_argnames)
    functional: dict[str, Any] = dict(zip(FUNCTION_OPTIONS, given, strict=True))
    if model is None:
        return lambda function: compile(function, **functional, **options)
    if callable(model) and not isinstance(model, Executable):
        from graphc.runtime.function import CompiledFunction

        return CompiledFunction(model, chosen, **functional)
    for name, value in functional.items():
        if value != ():
            raise OptionError(f"{name} is for Python functions; {type(model).__name__} has no argument numbers")
    executable = executable_of(model, chosen)
    if all(isinstance(p.type, TensorType) and p.type.is_static for p in executable.inputs):
        try:
            executable.prepare()
        except NeedsValue:  # sizes depend on a value, which the first call brings
            executable.source.check()
    else:
        executable.source.check()
    return executable


def executable_of(model: Any, options: Options) -> Executable:
    """An executable of the model, not compiled yet; it takes what it can from a former process's work
    (`graphc.runtime.stored`). Takes what `load` takes."""
    cache = model_cache()
    if cache.directory is None or not isinstance(model, str | os.PathLike | bytes):
        return Executable(source_of(model), options)
    files = _Files(model if isinstance(model, bytes) else resolve(model), cache)
    digest = files.digest()
    if digest is None:
        return Executable(source_of(model), options)
    store = Store(digest, options, cache)
    record = store.record()
    external = files.external(record.external) if record is not None else None
    if record is not None and external is not None:
        store.files = external
        read = functools.partial(files.read_again, digest, external)
        return Executable(
            _StoredSource(record.inputs, record.outputs, _name(model), read), options, store, record.static
        )
    source = _ModelSource(_proto(model), _name(model))
    names = source.external_files
    external = files.external(names)
    if external is None or files.digest() != digest:  # what was read just now is not what was there a moment before
        return Executable(source, options)
    store.files, store.is_current = external, lambda: files.external(names) == external
    return Executable(source, options, store)


class _Files:
    """What a model is read from: bytes, or a file and those of its external data; told apart by content."""

    def __init__(self, model: bytes | Path, cache: Cache) -> None:
        self._model, self._cache = model, cache

    def digest(self) -> str | None:
        """The sha256 of the model; None when it cannot be read, which loading it will say better."""
        if isinstance(self._model, bytes):
            return hashlib.sha256(self._model).hexdigest()
        try:
            with open(self._model, "rb", buffering=0) as file:
                return file_digest(file.fileno(), self._cache)
        except (OSError, ValueError):
            return None

    def external(self, names: Sequence[str]) -> dict[str, str] | None:
        """The sha256 of each file of external data; None when one cannot be read or must not be."""
        found = {}
        for name in names:
            if isinstance(self._model, bytes):
                return None
            try:
                descriptor = open_beneath(self._model.parent, name, "external data")
                with open(descriptor, "rb", buffering=0):
                    found[name] = file_digest(descriptor, self._cache)
            except (OSError, ModelError):
                return None
        return found

    def read_again(self, digest: str, external: Mapping[str, str]) -> OnnxModel:
        """The model. Raises ModelError when it is not what it was."""
        model = _proto(self._model)
        if self.digest() != digest or self.external(list(external)) != external:
            raise ModelError(f"{str(self._model)!r} has changed since it was compiled; compile it again")
        return model


def function(model: Any) -> ModelFunction:
    """A model as a Python function that can be called, composed, traced and differentiated; takes what `load` takes.

    See `graphc.frontends.python.model.ModelFunction`.
    """
    from graphc.frontends.python.model import ModelFunction

    return ModelFunction(source_of(model), lambda: load(model))


def load(model: Any, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    """The graph of a model as it is imported, before any pass; sizes the file leaves open are symbolic unless given.

    Takes what `compile` takes, and raises what it raises for a bad model.
    """
    from graphc.ir.graph import Graph

    if isinstance(model, Graph):
        return model
    if callable(model) and not isinstance(model, Executable):
        raise ModelError(
            f"load reads models, and {_called(model)} is a Python function: its graph is "
            "graphc.trace(f, ...), for arguments like those it is to be called with"
        )
    from graphc.frontends.onnx import import_model

    return import_model(_proto(model), shapes=shapes)


def _called(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def resolve(model: str | os.PathLike[str]) -> Path:
    """The file for a path or for `onnx:NAME` (`onnx:resnet50`). Raises ModelError when there is none."""
    text = os.fspath(model)
    if not text.startswith("onnx:"):
        name = text.removesuffix(".onnx")
        if name.isidentifier() and not os.path.lexists(text) and name in (_shipped() or ()):
            raise ModelError(f"there is no file {text!r}; did you mean onnx:{name}?")
        return Path(text)
    known = _shipped()
    if known is None:
        raise ModelError(f"{text} is a model of the onnx package, which is not installed")
    name = text.removeprefix("onnx:")
    if name not in known:
        raise ModelError(f"no model {name!r} comes with the onnx package; there are {', '.join(known)}")
    return known[name]


def _shipped() -> dict[str, Path] | None:
    """The files of the models that come with the onnx package, by name; None where that is not installed."""
    from importlib.util import find_spec

    spec = find_spec("onnx")  # to import it takes longer than a warm start
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / _SHIPPED
    return {p.stem.removeprefix("light_").removeprefix("bvlc_"): p for p in sorted(folder.glob("light_*.onnx"))}


def _proto(model: Any) -> OnnxModel:
    from graphc.frontends.onnx import load_model

    if isinstance(model, str | os.PathLike):
        model = resolve(model)
    return load_model(model)


def source_of(model: Any) -> Source:
    """A model as something that gives graphs, read and checked but not compiled. Takes what `compile` takes."""
    from graphc.ir.graph import Graph

    if isinstance(model, Executable):
        return model.source
    if isinstance(model, Graph):
        return GraphSource(model)
    if callable(model):
        raise InputError(
            f"a model is needed (a path, bytes, a ModelProto or a Graph), and {_called(model)} is a Python function: "
            "call it as it is, or compile it with graphc.compile(f)"
        )
    return _ModelSource(_proto(model), _name(model))


def _name(model: Any) -> str:
    """What to call a model in messages."""
    return Path(os.fspath(model)).name if isinstance(model, str | os.PathLike) else "model"


class _ModelSource:
    """An ONNX model as a source: importing it is a function of the inputs' types."""

    def __init__(self, model: OnnxModel, name: str) -> None:
        from graphc.frontends.onnx import signature

        self.name, self._model = name, model
        inputs, outputs = signature(model)
        self.inputs = tuple(Port(*p) for p in inputs)
        self.outputs = tuple(Port(*p) for p in outputs)

    @property
    def external_files(self) -> tuple[str, ...]:
        """The files that hold its external data."""
        from graphc.frontends.onnx import external_files

        return external_files(self._model)

    def check(self) -> None:
        from graphc.frontends.onnx import check_operators

        check_operators(self._model)

    def graph(self, arguments: Mapping[str, Any], known: Collection[str]) -> Graph:
        from graphc.frontends.onnx import argument_type, import_model

        types = {p.name: argument_type(arguments[p.name], p.type) for p in self.inputs}
        return import_model(self._model, shapes=types, values={name: arguments[name] for name in known})


class _StoredSource:
    """A model that a former process has compiled: it is read only when it has to be compiled again, for other shapes."""

    def __init__(
        self, inputs: tuple[Port, ...], outputs: tuple[Port, ...], name: str, read: Callable[[], OnnxModel]
    ) -> None:
        self.name, self.inputs, self.outputs, self._read = name, inputs, outputs, read
        self._source: _ModelSource | None = None

    def check(self) -> None:
        """What was compiled once holds nothing but known operations."""

    def graph(self, arguments: Mapping[str, Any], known: Collection[str]) -> Graph:
        if self._source is None:
            self._source = _ModelSource(self._read(), self.name)
        return self._source.graph(arguments, known)
