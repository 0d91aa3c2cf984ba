"""What a user may choose about a compilation; everything has a default."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import Any

from graphc.errors import OptionError

__all__ = ["MOST_THREADS", "PRECISIONS", "Options", "default_threads", "seconds"]

TARGETS = ("cpu",)
PRECISIONS = ("strict", "float32", "bfloat16")
MEMORY = ("planned", "separate")
MOST_THREADS = 1024
#: what else `graphc.compile` takes, for Python functions
FUNCTION_OPTIONS = ("donate_argnums", "static_argnums", "static_argnames")


@dataclass(frozen=True)
class Options:
    """Options of `graphc.compile`.

    target      "cpu"
    threads     threads a run may use; None means $GRAPHC_THREADS, else every CPU this process may run on
    precision   "float32"; "strict": no algorithm that changes the order or number of roundings of the definition; or
                "bfloat16": convolutions and matrix products of float32 round their operands to bfloat16 (8 bits of
                significand, to nearest) and sum the products in float32. All else stays float32: biases, activations,
                normalisations, softmax, sums, depthwise convolutions, recurrent arithmetic, inputs and outputs; and so
                do convolutions for which Winograd's algorithm is estimated to be faster than multiplying bfloat16
    level       0: only what is needed to run; 1: folding, simplification and batch normalisation; 2: also blocked
                layouts and fusion (default)
    disable     names of passes to leave out, or of parts of passes (`PARTS` in `graphc.passes.pipeline` says what they
                are); a wrong name lists those there are. "simplify" and "fold" also leave the cleaning passes
    memory      "planned": buffers share one arena by their lifetimes; "separate": each has a place of its own
    memory_budget
                bytes that the arena may take (a number, or text such as "64MB"); what does not fit is computed again
                instead of being kept, in loops of Python functions by checkpoints. None: no limit
    tune        seconds (a number, or text such as "90s", "5m") to measure how to compute convolutions and products before
                compiling; what is found is kept for this processor. None: what was found before is used. False: the
                estimates alone
    progress    show a progress bar on standard error while compiling
    """

    target: str = "cpu"
    threads: int | None = None
    precision: str = "float32"
    level: int = 2
    disable: frozenset[str] = frozenset()
    memory: str = "planned"
    memory_budget: int | None = None
    tune: float | bool | None = None
    progress: bool = False

    @staticmethod
    def of(**given: Any) -> Options:
        """Options from keyword arguments. Raises OptionError for an unknown name or a value out of range."""
        known = [f.name for f in fields(Options)]
        for name in given:
            if name in FUNCTION_OPTIONS:
                raise OptionError(f"{name} is for Python functions, as an argument of graphc.compile")
            if name not in known:
                from difflib import get_close_matches

                close = get_close_matches(name, [*known, *FUNCTION_OPTIONS], n=1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                shown = f"known: {', '.join(known)}; for Python functions also {', '.join(FUNCTION_OPTIONS)}"
                raise OptionError(f"unknown option {name!r}{hint} ({shown})")
        if "disable" in given:
            disable = given["disable"]
            given["disable"] = frozenset([disable] if isinstance(disable, str) else disable)
        if isinstance(given.get("memory_budget"), str):
            given["memory_budget"] = _bytes(given["memory_budget"])
        if isinstance(given.get("tune"), str):
            given["tune"] = seconds(given["tune"])
        options = Options(**given)
        options._check()
        return options

    def _check(self) -> None:
        if self.target not in TARGETS:
            raise OptionError(f"target={self.target!r}: expected one of {', '.join(TARGETS)}")
        if self.precision not in PRECISIONS:
            raise OptionError(f"precision={self.precision!r}: expected one of {', '.join(PRECISIONS)}")
        if self.memory not in MEMORY:
            raise OptionError(f"memory={self.memory!r}: expected one of {', '.join(MEMORY)}")
        if self.level not in (0, 1, 2):
            raise OptionError(f"level={self.level!r}: expected 0, 1 or 2")
        tune = self.tune
        if tune is True or (tune is not None and not (isinstance(tune, int | float) and 0 <= tune < float("inf"))):
            raise OptionError(f"tune={tune!r}: expected seconds, text such as '90s' or '5m', None or False")
        budget = self.memory_budget
        if budget is not None and (type(budget) is not int or budget <= 0):
            raise OptionError(f"memory_budget={budget!r}: expected a number of bytes, or text such as '64MB'")
        threads = self.threads
        if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
            raise OptionError(f"threads={threads!r}: expected a number from 1 to {MOST_THREADS}, or None for every CPU")

    @property
    def thread_count(self) -> int:
        """`threads`, or the default for it."""
        return self.threads or default_threads()


def seconds(text: str) -> float:
    """A time from "90", "90s", "5m" or "1h", at most a day. Raises OptionError for anything else."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("s", "m", "h") else (text, "s")
    try:
        value = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise OptionError(f"expected a time such as 90s or 5m, at most a day, got {text!r}")
    return value


def _bytes(text: str) -> int:
    """A number of bytes from "64MB", "1.5 GiB", "4096". Raises OptionError for anything else."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)[bB]?\s*", text)
    if found is None:
        raise OptionError(f"memory_budget={text!r}: expected a number of bytes, or text such as '64MB'")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(prefix.upper() or " "))


def default_threads() -> int:
    """Threads to use when nobody says: $GRAPHC_THREADS, else the CPUs this process may run on."""
    chosen = os.environ.get("GRAPHC_THREADS")
    if chosen is not None:
        if not chosen.isdigit() or not 1 <= int(chosen) <= MOST_THREADS:
            raise OptionError(f"GRAPHC_THREADS is {chosen!r}; it takes a number from 1 to {MOST_THREADS}")
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
