"""Compiled models kept on disk: a process that starts with one of them neither imports, optimises nor links anything.

Two kinds of entries in the cache of models (`graphc.runtime.cache`). A *record* says what a model takes and gives. A
*stored specialisation* is a compiled form for one signature of inputs: the launch plan without addresses, its machine
code as one image, and its constants as kernels read them. Both lie under keys that name the model by the sha256 of its
bytes, and everything else that decides the result (options, graphc's own sources, packages, processor:
`graphc.runtime.fingerprint`), so that an entry is never stale, only absent.

What is not stored is compiled again in each process from cached kernels: models with stages on the host, or with code
that `graphc.runtime.link` has no image for. An entry that is damaged, or that this process cannot use, counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc.errors import CompileError, GraphcError
from graphc.ir.dims import Dim, DimLike, parse_dim
from graphc.ir.dtypes import dtype_of
from graphc.ir.types import OptionalType, SequenceType, TensorType, Type
from graphc.options import Options
from graphc.runtime import driver, measured
from graphc.runtime.cache import Cache, split
from graphc.runtime.executable import Port
from graphc.runtime.fingerprint import fingerprint
from graphc.runtime.footprint import Footprint
from graphc.runtime.image import Image, load_image
from graphc.runtime.relocatable import PlacedPlan, RelocatablePlan, Sites

if TYPE_CHECKING:
    from graphc.ir.graph import Graph
    from graphc.runtime.assemble import CompiledGraph
    from graphc.runtime.specialisation import Specialisation

__all__ = ["Record", "Store", "StoredSpecialisation"]

#: what decoding an entry raises when it holds something else than it should
_UNUSABLE = (CompileError, GraphcError, ValueError, KeyError, IndexError, TypeError, AttributeError)


class Record(NamedTuple):
    """What a model takes and gives, the inputs whose values (not only shapes) it is compiled for, and the names of the
    files that hold its external data."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    static: tuple[str, ...]
    external: tuple[str, ...]


class Store:
    """The entries of one model under one set of options.

    `files` are those of the model's external data, with their digests; `is_current` says whether they are still what
    they were, and is asked when they have been read.

    Args:
        digest: sha256 of the model's bytes, in hexadecimal.
        options: what it is compiled with.
        cache: where entries are kept.
    """

    def __init__(self, digest: str, options: Options, cache: Cache) -> None:
        self._cache = cache
        chosen = {f.name: getattr(options, f.name) for f in fields(options)}
        chosen.update(progress=False, threads=options.thread_count, disable=sorted(options.disable))
        chosen["tune"] = self._estimated = options.tune is False
        self._base = "\n".join(["graphc model 1", digest, fingerprint(), repr(sorted(chosen.items()))])
        self._record: Record | None = None
        self.files: Mapping[str, str] = {}
        self.is_current: Callable[[], bool] = lambda: True

    def record(self) -> Record | None:
        """What a former process noted of the model."""
        data = self._cache.get(self._key("record"))
        if data is not None:
            with contextlib.suppress(*_UNUSABLE):
                self._record = _record(json.loads(data))
        return self._record

    def load(self, signature: object, options: Options, graph: Callable[[], Graph]) -> StoredSpecialisation | None:
        """The compiled form for a signature; `graph` gives what it was compiled from, for who wants to look at it."""
        if options.tune:  # to be measured first, so to be compiled
            return None
        found = self._cache.get_arrays(self._key(repr((signature, sorted(self.files.items())))))
        if found is None:
            return None
        try:
            head = json.loads(found[0])
            plan = _placed(head, found[1], options.thread_count)
            return StoredSpecialisation(plan, Footprint(**head["footprint"]), graph, options)
        except _UNUSABLE:
            return None

    def keep(
        self,
        signature: object,
        specialisation: Specialisation,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        static: tuple[str, ...],
    ) -> None:
        """Store a compiled form and the record of its model, if they can be."""
        plan = specialisation.single_plan
        if self._cache.directory is None or plan is None or not self.is_current():
            return
        record = Record(tuple(inputs), tuple(outputs), static, tuple(sorted(self.files)))
        text = json.dumps([[_ports_as_data(ports) for ports in record[:2]], record.static, record.external])
        try:
            if _record(json.loads(text)) != record:
                return
            head, arrays = _entry(plan)
        except _UNUSABLE:
            return
        self._cache.put_arrays(self._key(repr((signature, sorted(self.files.items())))), head, arrays)
        if record != self._record:
            self._cache.put(self._key("record"), text.encode())
            self._record = record

    def _key(self, what: str) -> str:
        choices = "" if self._estimated else measured.stamp()
        return hashlib.sha256(f"{self._base}\n{choices}\n{what}".encode()).hexdigest()


class StoredSpecialisation:
    """A compiled form that came from disk. It runs and knows its `footprint`; everything else that a `Specialisation`
    knows (graph, stages, plans) it finds by compiling the model after all."""

    def __init__(self, plan: PlacedPlan, footprint: Footprint, graph: Callable[[], Graph], options: Options) -> None:
        self.footprint = footprint
        self._plan, self._graph, self._options = plan, graph, options
        self._whole: Specialisation | None = None

    def run(self, arguments: list[Any], donated: Mapping[int, int] | None = None) -> list[Any]:
        """The outputs for checked arguments; see `Specialisation.run`."""
        return self._plan.run(arguments, donated)

    @property
    def runner(self) -> Callable[[list[Any]], list[Any]]:
        """What `run` comes to, for those who call often."""
        return self._plan.run

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._whole is None:
            from graphc.runtime.specialisation import Specialisation

            self._whole = Specialisation(self._graph(), self._options)
        return getattr(self._whole, name)


# -- a specialisation as bytes ------------------------------------------------------------------------------------------


def _entry(compiled: CompiledGraph) -> tuple[bytes, list[np.ndarray]]:
    """A compiled graph as an entry of the cache. Raises CompileError when there can be no image of its code."""
    from graphc.runtime.link import link
    from graphc.runtime.native import kernel_objects

    plan = compiled.relocatable
    *kernels, driver_object = kernel_objects([*compiled.kernels, driver.DRIVER])
    image = link(list({o.symbol: o for o in (*kernels, driver_object)}.values()))
    sites = [
        (is_output, port, word, offset)
        for is_output, ports in enumerate((plan.input_sites, plan.output_sites))
        for port, site in enumerate(ports)
        for word, offset in zip(*site, strict=True)
    ]
    arrays: list[np.ndarray] = [
        np.frombuffer(image.code, np.uint8),
        plan.rows,
        plan.blocks,
        plan.slots,
        np.array(sites, np.int64).reshape(-1, 4),
        *compiled.constants,
    ]
    head = {
        "machine": image.machine,
        "entries": image.entries,
        "imports": image.imports,
        "driver": driver_object.symbol,
        "kernels": [o.symbol for o in kernels],
        "inputs": [(dtype_of(dtype).name, shape) for dtype, shape in plan.inputs],
        "outputs": [(dtype_of(dtype).name, shape) for dtype, shape in plan.outputs],
        "arena": plan.arena,
        "scratch": plan.scratch,
        "is_parallel": plan.is_parallel,
        "footprint": compiled.footprint._asdict(),
        "sizes": [a.nbytes for a in arrays],
    }
    return json.dumps(head).encode(), arrays


def _placed(head: Mapping[str, Any], body: np.ndarray, threads: int) -> PlacedPlan:
    """What `_entry` made an entry of, ready to run."""
    code, rows, blocks, slots, sites, *constants = split(body, head["sizes"])
    image = Image(code.tobytes(), head["machine"], head["entries"], head["imports"])
    start = load_image(image)
    driver.offer(start + image.entries[head["driver"]])
    table = sites.view(np.int64).reshape(-1, 4)
    plan = RelocatablePlan(
        rows=rows.view(np.int64).reshape(-1, 8),
        blocks=blocks.view(np.int64),
        slots=slots.view(np.int64),
        inputs=tuple((dtype_of(name).numpy, tuple(shape)) for name, shape in head["inputs"]),
        outputs=tuple((dtype_of(name).numpy, tuple(shape)) for name, shape in head["outputs"]),
        input_sites=_sites(table, 0, len(head["inputs"])),
        output_sites=_sites(table, 1, len(head["outputs"])),
        arena=head["arena"],
        scratch=head["scratch"],
        is_parallel=head["is_parallel"],
    )
    kernels = [start + image.entries[symbol] for symbol in head["kernels"]]
    return PlacedPlan(plan, kernels, [int(c.ctypes.data) for c in constants], body, threads)


def _sites(table: np.ndarray, is_output: int, count: int) -> Sites:
    mine = table[table[:, 0] == is_output]
    return tuple((mine[mine[:, 1] == k, 2], mine[mine[:, 1] == k, 3]) for k in range(count))


# -- ports as data ------------------------------------------------------------------------------------------------------


def _record(data: Any) -> Record:
    (inputs, outputs), static, external = data
    return Record(_ports(inputs), _ports(outputs), tuple(static), tuple(external))


def _ports_as_data(ports: Sequence[Port]) -> list[Any]:
    return [[p.name, None if p.type is None else _type_as_data(p.type)] for p in ports]


def _ports(data: Any) -> tuple[Port, ...]:
    return tuple(Port(name, None if t is None else _type(t)) for name, t in data)


def _type_as_data(t: Type) -> list[Any]:
    if isinstance(t, TensorType):
        return [t.dtype.name, [d if isinstance(d, int) else str(d) for d in t.shape]]
    return ["sequence" if isinstance(t, SequenceType) else "optional", _type_as_data(t.element)]


def _type(data: Any) -> Type:
    kind, inside = data
    if kind in ("sequence", "optional"):
        return (SequenceType if kind == "sequence" else OptionalType)(_type(inside))
    return TensorType(dtype_of(kind), tuple(d if isinstance(d, int) else _dimension(d) for d in inside))


def _dimension(text: str) -> DimLike:
    return Dim(text) if text.isidentifier() else parse_dim(text)  # a name may be one of Python's own words
