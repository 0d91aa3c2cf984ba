"""The comparison that decides whether two runtimes agree must be able to say no."""

import numpy as np
import pytest

from graphc.cli.agree import compare

X = np.array([0.0, 1.0, -1000.0], np.float32)


def test_equal_arrays_agree() -> None:
    assert compare(X, X)
    assert compare(X.astype(int), X.astype(int))
    assert compare(np.array(["a", "b"], object), np.array(["a", "b"], object))
    assert compare(np.zeros((0, 3)), np.zeros((0, 3)))


def test_small_errors_agree_and_larger_ones_do_not() -> None:
    assert compare(X + np.float32([0.09, 0.09, 1]), X)
    assert not compare(X + np.float32([0.11, 0, 0]), X)
    assert not compare(X + np.float32([0, 0, 1.2]), X)
    assert compare(X * 1.001, X).worst <= 1


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        (X[:2], "shape"),
        (X[None], "shape"),
        (X.astype(np.float64), "float64"),
        (np.array([0, np.nan, -1000], np.float32), "NaN"),
        (np.array([0, np.inf, -1000], np.float32), "NaN"),
    ],
)
def test_what_differs_is_said(got: np.ndarray, reason: str) -> None:
    assert reason in compare(got, X).reason


def test_not_a_number_equals_itself_and_infinities_have_a_sign() -> None:
    special = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    assert compare(special, special)
    assert not compare(-special, special)
    assert compare(special[:1], special[:1])


def test_integers_are_exact() -> None:
    assert "1 of 3" in compare(np.array([1, 2, 3]), np.array([1, 2, 4])).reason


def test_sequences_compare_by_element() -> None:
    assert compare([X, X], [X, X])
    assert not compare([X], [X, X])
    assert not compare([X, X + 1], [X, X])
