"""Operations whose results' sizes depend on data, and strings: each is an ONNX operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.frontends.onnx.export.body import Body
from graphc.frontends.onnx.export.registry import exporter
from graphc.ir.graph import Node


@exporter("nonzero")
def nonzero(c: Body, node: Node, x: str) -> str:
    return str(c.emit("NonZero", x))


@exporter("compress")
def compress(c: Body, node: Node, x: str, condition: str) -> str:
    return str(c.emit("Compress", x, condition, axis=node.attrs["axis"]))


@exporter("unique")
def unique(c: Body, node: Node, x: str) -> Sequence[str]:
    ordered = int(node.attrs.get("sorted", True))
    found: Sequence[str] = c.emit("Unique", x, results=4, axis=node.attrs.get("axis"), sorted=ordered)
    return found


@exporter("non_max_suppression")
def non_max_suppression(c: Body, node: Node, *operands: str) -> str:
    center = int(node.attrs.get("center_point_box", False))
    return str(c.emit("NonMaxSuppression", *operands, center_point_box=center))


@exporter("string_concat")
def string_concat(c: Body, node: Node, a: str, b: str) -> str:
    return str(c.emit("StringConcat", a, b))


@exporter("string_split")
def string_split(c: Body, node: Node, x: str) -> Sequence[str]:
    most = node.attrs.get("maxsplit", -1)
    delimiter = node.attrs.get("delimiter") or None
    found: Sequence[str] = c.emit(
        "StringSplit", x, results=2, delimiter=delimiter, maxsplit=most if most >= 0 else None
    )
    return found


@exporter("regex_full_match")
def regex_full_match(c: Body, node: Node, x: str) -> str:
    return str(c.emit("RegexFullMatch", x, pattern=node.attrs["pattern"]))


@exporter("string_normalizer")
def string_normalizer(c: Body, node: Node, x: str) -> str:
    a = node.attrs
    return str(
        c.emit(
            "StringNormalizer",
            x,
            case_change_action=a.get("case_action", "NONE"),
            is_case_sensitive=int(a.get("is_case_sensitive", False)),
            stopwords=list(a.get("stopwords", ())) or None,
        )
    )


@exporter("tfidf_vectorizer")
def tfidf_vectorizer(c: Body, node: Node, x: str) -> str:
    a = dict(node.attrs)
    pool, weights = a.pop("pool"), a.pop("weights", ())
    words = "pool_strings" if pool and isinstance(pool[0], str) else "pool_int64s"
    given: dict[str, Any] = {words: list(pool), "weights": list(weights) or None}
    given |= {k: list(v) if isinstance(v, tuple) else v for k, v in a.items()}
    return str(c.emit("TfIdfVectorizer", x, **given))
