"""Operators on strings; they run on the host."""

from __future__ import annotations

from graphc import ops
from graphc.frontends.onnx.context import Context
from graphc.frontends.onnx.registry import importer
from graphc.ir.graph import Value

__all__: list[str] = []


@importer("StringConcat", 20)
def string_concat(c: Context, x: Value, y: Value) -> Value:
    return ops.string_concat(x, y)


@importer("StringSplit", 20)
def string_split(c: Context, x: Value) -> tuple[Value, Value]:
    return ops.string_split(x, delimiter=c.string("delimiter", ""), maxsplit=c.int("maxsplit", -1))


@importer("RegexFullMatch", 20)
def regex_full_match(c: Context, x: Value) -> Value:
    return ops.regex_full_match(x, pattern=c.string("pattern"))


@importer("StringNormalizer", 10)
def string_normalizer(c: Context, x: Value) -> Value:
    return ops.string_normalizer(
        x,
        case_action=c.string("case_change_action", "NONE"),
        is_case_sensitive=c.flag("is_case_sensitive"),
        stopwords=c.strings("stopwords", ()),
        locale=c.string("locale", ""),
    )


@importer("TfIdfVectorizer", 9)
def tfidf_vectorizer(c: Context, x: Value) -> Value:
    words = c.strings("pool_strings", ())
    return ops.tfidf_vectorizer(
        x,
        mode=c.string("mode"),
        min_gram_length=c.int("min_gram_length"),
        max_gram_length=c.int("max_gram_length"),
        max_skip_count=c.int("max_skip_count"),
        ngram_counts=c.ints("ngram_counts"),
        ngram_indexes=c.ints("ngram_indexes"),
        pool=words or c.ints("pool_int64s", ()),
        weights=c.floats("weights", ()),
    )
