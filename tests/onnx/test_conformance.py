"""onnx's own backend tests, run on the imported graphs by the interpreter; the exceptions are listed with reasons."""

from __future__ import annotations

import unittest
import warnings
from fnmatch import fnmatch

import interpreting_backend
import onnx.backend.test

#: test name pattern -> why it may fail
EXCEPTIONS = {
    "test_bernoulli*": "random numbers of another generator",
    "test_training_dropout*": "random numbers of another generator",
    "test_bitcast*": "there is no operation that reinterprets bits",
    "test_image_decoder*": "needs an image library",
    "test_dft_inverse*": "cancellation: the results are 1e-7 next to 0",
    "test_squeezenet*": "made-up weights: differences between huge equal numbers decide its softmax",
    "test_loop16_seq_none*": "an empty optional sequence of scalars to which vectors are added",
}


class Outcomes(unittest.TestResult):
    """Names of tests that passed and that did not."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: set[str] = set()
        self.failed: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802  (unittest's name)
        self.passed.add(test.id().split(".")[-1])

    def addFailure(self, test: unittest.TestCase, err: object) -> None:  # noqa: N802
        self.failed[test.id().split(".")[-1]] = str(err[1])[:200]  # type: ignore[index]

    addError = addFailure  # noqa: N815


def test_backend_suite() -> None:
    outcomes = Outcomes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = onnx.backend.test.BackendTest(interpreting_backend, __name__).test_cases
        for case in cases.values():
            for test in unittest.TestLoader().loadTestsFromTestCase(case):
                if not test.id().endswith("_cuda"):
                    test.run(outcomes)
    unexpected = {n: why for n, why in outcomes.failed.items() if not any(fnmatch(n, p) for p in EXCEPTIONS)}
    assert not unexpected
    assert len(outcomes.passed) >= 1990
