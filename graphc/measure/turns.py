"""Timing several subjects against each other: in turns, with pauses, so that all see the same machine.

A subject's threads may spin for a while after a run, in hope of the next one, and would then take the cores from whoever
is measured next. So every turn begins with a pause in which they come to rest, and with two runs that are not counted,
which wake the subject's own threads and bring its data back into the caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["PAUSE", "ROUNDS", "Figures", "figures", "take_turns", "turn"]

PAUSE = 0.1
"""Seconds of rest before a turn."""

ROUNDS = 5
"""Turns that each subject gets."""


@dataclass(frozen=True)
class Figures:
    """Times of runs in milliseconds: quantiles, and half the distance between the quartiles."""

    median: float
    p10: float
    p90: float
    spread: float
    runs: int


def figures(times: Sequence[float]) -> Figures:
    """The figures of run times in ms, of which there is at least one."""
    p10, low, middle, high, p90 = (float(q) for q in np.quantile(times, (0.1, 0.25, 0.5, 0.75, 0.9)))
    return Figures(middle, p10, p90, (high - low) / 2, len(times))


def turn(run: Callable[[], Any], seconds: float) -> list[float]:
    """One turn: rest, warm up, then run times in ms until `seconds` have passed, at least one."""
    time.sleep(PAUSE)
    run()
    run()
    times = []
    until = time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        run()
        ended = time.perf_counter()
        times.append((ended - started) * 1e3)
        if ended >= until:
            return times


def take_turns(
    subjects: Mapping[str, Callable[[], Any]], seconds: float, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Run times in ms of each subject, measured in turns; each gets about `seconds` altogether."""
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, run in subjects.items():
            times[name] += turn(run, seconds / rounds)
    return times
