"""Operations that run on the host, through their references: results whose size the data decides, and strings.

The size of such a result is a new symbol, which the run binds: the program before it and after it compile apart.
Sequences and optionals are in graphc.ops.sequences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc.ir.dims import fresh_symbol, product
from graphc.ir.dtypes import dtype_of
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.ops.gradient import by_operand, put
from graphc.ops.injective import reshape, tensor_operand
from graphc.ops.spec import Gradient, Kind, OpSpec, Sample, expect, register

__all__ = [
    "compress", "non_max_suppression", "nonzero", "regex_full_match", "string_concat", "string_normalizer",
    "string_split", "tfidf_vectorizer", "unique",
]  # fmt: skip

INT64, BOOL, FLOAT32, STRING = (dtype_of(n) for n in ("int64", "bool", "float32", "string"))
COUNTS = "the size of its result depends on the data"
WORDS = "strings have no gradient"


def host_op(
    name: str,
    summary: str,
    infer: Callable[..., Any],
    reference: Callable[..., Any],
    samples: Callable[[], Iterable[Sample]],
    *,
    gradient: Gradient | None = None,
    no_gradient: str = "",
    promote: bool = False,
) -> OpSpec:
    return register(
        OpSpec(
            name=name,
            kind=Kind.HOST,
            summary=summary,
            infer=infer,
            reference=reference,
            gradient=gradient,
            no_gradient=no_gradient,
            promote=promote,
            samples=samples,
        )
    )


def _strings(name: str, k: int, t: object) -> TensorType:
    x = tensor_operand(name, k, t)
    expect(x.dtype == STRING, f"{name}: operand {k} is {x}, a string tensor is needed")
    return x


def _each(function: Callable[..., Any], *arrays: np.ndarray, otype: Any = object) -> np.ndarray:
    """`function` applied to every element."""
    first = np.asarray(arrays[0], object)
    flat = [function(*items) for items in zip(*(np.asarray(a, object).ravel() for a in arrays), strict=True)]
    result = np.empty(len(flat), otype)
    result[:] = flat
    return result.reshape(first.shape)


# --------------------------------------------------------------------------------------- sizes that the data decides


def _nonzero_type(x: TensorType) -> TensorType:
    tensor_operand("nonzero", 0, x)
    return TensorType(INT64, (x.rank, fresh_symbol()))


def _nonzero_reference(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim == 0:
        return np.zeros((0, int(bool(x))), np.int64)
    return np.array(np.nonzero(x), np.int64).reshape(x.ndim, -1)


nonzero = host_op(
    "nonzero",
    "Where the elements that are not 0 are: a row of indices for each axis.",
    _nonzero_type,
    _nonzero_reference,
    lambda: [
        Sample((np.array([[1, 0, 2], [0, 0, 3]], np.float32),)),
        Sample((np.array([True, False]),)),
        Sample((np.zeros((0, 2), np.int32),)),
        Sample((np.int64(4),)),
    ],
    no_gradient=COUNTS,
)


def _compress_type(x: TensorType, condition: TensorType, *, axis: int) -> TensorType:
    tensor_operand("compress", 0, x)
    expect(
        condition == TensorType(BOOL, condition.shape) and condition.rank == 1,
        f"compress: the condition is {condition}, a bool vector is needed",
    )
    expect(0 <= axis < x.rank, f"compress: axis {axis} does not exist in {x}")
    return x.with_shape(tuple(fresh_symbol() if k == axis else d for k, d in enumerate(x.shape)))


def _compress_gradient(g: Value, x: Value, condition: Value, y: Value, *, axis: int) -> Value:
    """Each slice back to where the condition held."""
    places = nonzero(condition)
    return put(g, x.shape, reshape(places, shape=(places.shape[1],)), axis)


compress = host_op(
    "compress",
    "The slices of x along `axis` at which the condition holds; a short condition is false for the rest.",
    _compress_type,
    lambda x, condition, *, axis: np.compress(condition, x, axis),
    lambda: [
        Sample((np.arange(6).reshape(3, 2), np.array([False, True, True])), {"axis": 0}),
        Sample((np.arange(6, dtype=np.float32).reshape(3, 2), np.array([False])), {"axis": 1}),
        Sample((np.arange(6, dtype=np.float32).reshape(2, 3), np.array([True, False, True])), {"axis": 1}),
    ],
    gradient=by_operand(_compress_gradient, None),
)


def _unique_type(x: TensorType, *, axis: int | None = None, sorted: bool = True) -> tuple[TensorType, ...]:  # noqa: A002
    tensor_operand("unique", 0, x)
    expect(axis is None or 0 <= axis < x.rank, f"unique: axis {axis} does not exist in {x}")
    count = fresh_symbol()
    shape = (count,) if axis is None else tuple(count if k == axis else d for k, d in enumerate(x.shape))
    inverse = product(x.shape) if axis is None else x.shape[axis]
    return x.with_shape(shape), TensorType(INT64, (count,)), TensorType(INT64, (inverse,)), TensorType(INT64, (count,))


def _unique_reference(x: np.ndarray, *, axis: int | None = None, sorted: bool = True) -> tuple[np.ndarray, ...]:  # noqa: A002
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.ravel()
    if not sorted:
        order = np.argsort(first, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        values, first, counts, inverse = np.take(values, order, axis or 0), first[order], counts[order], place[inverse]
    return values, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)


def _unique_gradient(
    node: Node, cotangents: tuple[Value | None, ...], wanted: tuple[bool, ...]
) -> Sequence[Value | None]:
    """Each value was taken from where it is first."""
    (x,), (_, first, _, _), g = node.inputs, node.outputs, cotangents[0]
    if g is None:
        return [None]
    axis = node.attrs.get("axis")
    if axis is not None:
        return [put(g, x.shape, first, axis)]
    return [reshape(put(g, (product(x.shape),), first, 0), shape=x.shape)]


unique = host_op(
    "unique",
    (
        "The different elements (slices along `axis`, if given), where each is first, which one each element "
        "is, and how often."
    ),
    _unique_type,
    _unique_reference,
    lambda: [
        Sample((np.array([2, 1, 1, 3, 2], np.float32),)),
        Sample((np.array([2, 1, 1, 3, 2]),), {"sorted": False}),
        Sample((np.array([[1, 0], [1, 0], [2, 3]], np.int32),), {"axis": 0}),
        Sample((np.array([[1, 0], [1, 0], [0, 3]], np.int32),), {"axis": 0, "sorted": False}),
    ],
    gradient=_unique_gradient,
)


def _suppression_type(
    boxes: TensorType, scores: TensorType, *limits: TensorType, center_point_box: bool = False
) -> TensorType:
    for k, t in enumerate((boxes, scores, *limits)):
        tensor_operand("non_max_suppression", k, t)
    expect(
        boxes.rank == 3 and boxes.shape[2] == 4,
        f"non_max_suppression: the boxes are {boxes}, [batch, boxes, 4] is needed",
    )
    expect(scores.rank == 3, f"non_max_suppression: the scores are {scores}, [batch, classes, boxes] is needed")
    expect(
        len(limits) == 3 and all(t.rank == 0 for t in limits),
        "non_max_suppression: most boxes, overlap and lowest score are needed, of rank 0",
    )
    return TensorType(INT64, (fresh_symbol(), 3))


def _corners(boxes: np.ndarray, center_point_box: bool) -> np.ndarray:
    """Boxes as (x low, y low, x high, y high), whichever way round their corners were given."""
    if center_point_box:
        x, y, w, h = boxes.T
        return np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)
    y1, x1, y2, x2 = boxes.T
    return np.stack([np.minimum(x1, x2), np.minimum(y1, y2), np.maximum(x1, x2), np.maximum(y1, y2)], -1)


def _overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with each of the others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), -1)
    union = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], -1) - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0)


def _suppression_reference(
    boxes: np.ndarray,
    scores: np.ndarray,
    most: np.ndarray,
    overlap: np.ndarray,
    lowest: np.ndarray,
    *,
    center_point_box: bool = False,
) -> np.ndarray:
    chosen: list[tuple[int, int, int]] = []
    for b, c in np.ndindex(*scores.shape[:2]):
        corners = _corners(boxes[b], center_point_box)
        order = [int(k) for k in np.argsort(-scores[b, c], kind="stable") if scores[b, c, k] > lowest]
        kept: list[int] = []
        for k in order:
            if len(kept) >= int(most):
                break
            if not kept or not np.any(_overlaps(corners[k], corners[kept]) > overlap):
                kept.append(k)
        chosen += [(b, c, k) for k in kept]
    return np.array(chosen, np.int64).reshape(-1, 3)


def _suppression_samples() -> Iterable[Sample]:
    boxes = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 10, 1, 11], [1, 11, 0, 10.1]]], np.float32)
    scores = np.array([[[0.9, 0.75, 0.6, 0.95], [0.1, 0.2, 0.3, 0.4]]], np.float32)
    for centred in (False, True):
        yield Sample((boxes, scores, np.int64(2), np.float32(0.5), np.float32(0.15)), {"center_point_box": centred})
    yield Sample((boxes, scores, np.int64(0), np.float32(0.5), np.float32(0)))


non_max_suppression = host_op(
    "non_max_suppression",
    (
        "The best boxes of each class of each item, best first, without those that overlap a better one by "
        "more than a threshold. Operands: "
        "boxes[B, N, 4], scores[B, C, N], most boxes a class, largest overlap, lowest score. Result rows: "
        "item, class, box."
    ),
    _suppression_type,
    _suppression_reference,
    _suppression_samples,
    no_gradient=COUNTS,
)

# -------------------------------------------------------------------------------------------------------------- text


def _concat_type(a: TensorType, b: TensorType) -> TensorType:
    for k, t in enumerate((a, b)):
        _strings("string_concat", k, t)
    expect(a.shape == b.shape, f"string_concat: the operands are {a} and {b}; their shapes differ")
    return a


_WORDS = np.array([["ab", "c d"], ["", "Monday x-y"]], object)

string_concat = host_op(
    "string_concat",
    "Each string of a followed by that of b.",
    _concat_type,
    lambda a, b: _each(lambda x, y: x + y, a, b),
    lambda: [Sample((_WORDS, _WORDS[::-1])), Sample((_WORDS[:0], _WORDS[:0]))],
    no_gradient=WORDS,
    promote=True,
)


def _split_type(x: TensorType, *, delimiter: str = "", maxsplit: int = -1) -> tuple[TensorType, TensorType]:
    _strings("string_split", 0, x)
    return x.with_shape((*x.shape, fresh_symbol())), x.with_dtype(INT64)


def _split_reference(x: np.ndarray, *, delimiter: str = "", maxsplit: int = -1) -> tuple[np.ndarray, np.ndarray]:
    x = np.asarray(x, object)
    parts = [t.split(delimiter or None, maxsplit) if t else [] for t in x.ravel()]
    width = max(map(len, parts), default=0)
    padded = np.full((len(parts), width), "", object)
    for row, pieces in zip(padded, parts, strict=True):
        row[: len(pieces)] = pieces
    return padded.reshape(*x.shape, width), np.array([len(p) for p in parts], np.int64).reshape(x.shape)


string_split = host_op(
    "string_split",
    (
        "Substrings between delimiters (runs of blanks when it is empty) on a new last axis, filled up with "
        "empty ones; and how many."
    ),
    _split_type,
    _split_reference,
    lambda: [
        Sample((_WORDS,)),
        Sample((_WORDS,), {"delimiter": "-"}),
        Sample((_WORDS,), {"maxsplit": 1}),
        Sample((_WORDS[:0],)),
    ],
    no_gradient=WORDS,
)


def _match_type(x: TensorType, *, pattern: str) -> TensorType:
    _strings("regex_full_match", 0, x)
    try:
        re.compile(pattern)
    except re.error as e:
        expect(False, f"regex_full_match: the pattern {pattern!r} is not a regular expression: {e}")
    return x.with_dtype(BOOL)


regex_full_match = host_op(
    "regex_full_match",
    "Whether the whole string matches the regular expression.",
    _match_type,
    lambda x, *, pattern: _each(lambda t: re.fullmatch(pattern, t) is not None, x, otype=bool),
    lambda: [Sample((_WORDS,), {"pattern": r"[a-c d]*"}), Sample((_WORDS[:0],), {"pattern": "x"})],
    no_gradient=WORDS,
)


def _normalizer_type(
    x: TensorType,
    *,
    case_action: str = "NONE",
    is_case_sensitive: bool = False,
    stopwords: tuple[str, ...] = (),
    locale: str = "",
) -> TensorType:
    _strings("string_normalizer", 0, x)
    expect(
        case_action in ("NONE", "LOWER", "UPPER"),
        f"string_normalizer: case_action is {case_action!r}; known are NONE, LOWER, UPPER",
    )
    expect(
        x.rank == 1 or (x.rank == 2 and (x.shape[0] == 1 or not isinstance(x.shape[0], int))),
        f"string_normalizer: the operand is {x}, [count] or [1, count] is needed",
    )
    return x.with_shape((*x.shape[:-1], fresh_symbol()))


def _normalizer_reference(
    x: np.ndarray,
    *,
    case_action: str = "NONE",
    is_case_sensitive: bool = False,
    stopwords: tuple[str, ...] = (),
    locale: str = "",
) -> np.ndarray:
    x = np.asarray(x, object)
    changes: dict[str, Callable[[str], str]] = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}
    change = changes[case_action]
    fold: Callable[[str], str] = str if is_case_sensitive else str.lower
    stop = {fold(w) for w in stopwords}
    kept = [change(t) for t in x.ravel() if fold(t) not in stop] or [""]
    return np.array(kept, object).reshape(*x.shape[:-1], -1)


string_normalizer = host_op(
    "string_normalizer",
    (
        "Strings without the stopwords, in the case asked for; one empty string where nothing is left. The "
        "locale is not used."
    ),
    _normalizer_type,
    _normalizer_reference,
    lambda: [
        Sample((np.array(["monday", "Tuesday", "x"], object),), {"stopwords": ("Monday",), "case_action": "UPPER"}),
        Sample((np.array([["monday", "Tuesday"]], object),), {"stopwords": ("monday", "tuesday")}),
        Sample((np.array(["Monday", "b"], object),), {"stopwords": ("monday",), "is_case_sensitive": True}),
    ],
    no_gradient=WORDS,
)

# -------------------------------------------------------------------------------------------------- n-gram statistics


def _tfidf_type(
    x: TensorType,
    *,
    mode: str,
    min_gram_length: int,
    max_gram_length: int,
    max_skip_count: int,
    ngram_counts: tuple[int, ...],
    ngram_indexes: tuple[int, ...],
    pool: tuple[Any, ...],
    weights: tuple[float, ...] = (),
) -> TensorType:
    tensor_operand("tfidf_vectorizer", 0, x)
    expect(mode in ("TF", "IDF", "TFIDF"), f"tfidf_vectorizer: mode is {mode!r}; known are TF, IDF, TFIDF")
    expect(x.rank in (1, 2), f"tfidf_vectorizer: the operand is {x}, rank 1 or 2 is needed")
    expect(
        not weights or len(weights) == len(ngram_indexes),
        f"tfidf_vectorizer: {len(weights)} weights for {len(ngram_indexes)} n-grams",
    )
    return TensorType(FLOAT32, (*x.shape[:-1], max(ngram_indexes) + 1))


def _tfidf_pool(ngram_counts: Sequence[int], pool: Sequence[Any]) -> dict[tuple[Any, ...], int]:
    """Each n-gram of the pool and its number; ngram_counts[n - 1] says where those of length n begin."""
    grams: dict[tuple[Any, ...], int] = {}
    ends = [*ngram_counts[1:], len(pool)]
    for n, (start, end) in enumerate(zip(ngram_counts, ends, strict=True), 1):
        for at in range(start, end, n):
            grams[tuple(pool[at : at + n])] = len(grams)
    return grams


def _tfidf_reference(
    x: np.ndarray,
    *,
    mode: str,
    min_gram_length: int,
    max_gram_length: int,
    max_skip_count: int,
    ngram_counts: tuple[int, ...],
    ngram_indexes: tuple[int, ...],
    pool: tuple[Any, ...],
    weights: tuple[float, ...] = (),
) -> np.ndarray:
    x = np.asarray(x)
    rows = x.reshape(-1, x.shape[-1]) if x.ndim == 2 else x[None]
    grams = _tfidf_pool(ngram_counts, pool)
    factor = weights or (1.0,) * len(ngram_indexes)
    result = np.zeros((len(rows), max(ngram_indexes) + 1), np.float32)
    for row, out in zip(rows.tolist(), result, strict=True):
        for n in range(min_gram_length, max_gram_length + 1):
            for skip in range(max_skip_count + 1 if n > 1 else 1):
                span = (n - 1) * (skip + 1) + 1
                for at in range(len(row) - span + 1):
                    k = grams.get(tuple(row[at : at + span : skip + 1]))
                    if k is not None:
                        out[ngram_indexes[k]] += 1.0
    scale = np.zeros(result.shape[-1], np.float32)
    scale[list(ngram_indexes)] = factor
    result = {"TF": result, "IDF": (result > 0) * scale, "TFIDF": result * scale}[mode].astype(np.float32)
    return result if x.ndim == 2 else result[0]


def _tfidf_samples() -> Iterable[Sample]:
    attrs = {
        "min_gram_length": 1,
        "max_gram_length": 2,
        "max_skip_count": 1,
        "ngram_counts": (0, 4),
        "ngram_indexes": (0, 1, 2, 3, 4, 5, 6),
        "pool": (2, 3, 5, 4, 5, 6, 7, 8, 6, 7),
    }
    row = np.array([1, 1, 3, 3, 3, 7, 8, 6, 7, 5, 6, 8], np.int32)
    yield Sample((row,), {"mode": "TF", **attrs})
    yield Sample((row.reshape(2, 6),), {"mode": "TFIDF", "weights": (0.5, 1.0, 2.0, 3.0, 1.0, 1.0, 0.25), **attrs})
    yield Sample((row.reshape(2, 6).astype(np.int64),), {"mode": "IDF", **attrs})


tfidf_vectorizer = host_op(
    "tfidf_vectorizer",
    (
        "How often each n-gram of the pool stands in each row (TF), whether it does (IDF), or how often times "
        "its weight (TFIDF)."
    ),
    _tfidf_type,
    _tfidf_reference,
    _tfidf_samples,
    no_gradient="counts are constant almost everywhere",
)
