"""Timing in turns, so that whatever else the machine does falls on everybody alike."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch

from companion import artifacts
from companion._checkpoint import write_atomically

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
Task = Callable[[int], float]  # runs so many steps; returns the seconds that they took


def timed(step: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Task:
    """A task from one step."""

    def run(n: int) -> float:
        begun = clock()
        for _ in range(n):
            step()
        return clock() - begun

    return run


def in_turns(
    tasks: Mapping[str, Task],
    rounds: int,
    seconds: float | None,
    reference: str,
    rehearsal: tuple[int, int] = (2, 3),
) -> dict[str, dict]:
    """Milliseconds a step, and the ratio to `reference` within the same round.

    Every round runs each task once, for about `seconds` (None: for one step, without a rehearsal),
    beginning with another one each time. In the rehearsal each runs so many steps, then so many to
    see how long one takes. Of both numbers the median over the rounds and the
    quartiles are given.
    """
    steps = dict.fromkeys(tasks, 1)
    if seconds is not None:
        for name, run in tasks.items():
            first, then = rehearsal
            run(first)  # what happens only once: compilation, caches
            steps[name] = max(1, round(seconds / (run(then) / then)))
    times: dict[str, list[float]] = {name: [] for name in tasks}
    names = list(tasks)
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            times[name].append(1000 * tasks[name](steps[name]) / steps[name])
    base = times[reference]
    return {
        name: {
            "ms": quartiles(own),
            "ratio": quartiles([a / b for a, b in zip(own, base, strict=True)]),
        }
        for name, own in times.items()
    }


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles, to four digits."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {key: float(f"{x:.4g}") for key, x in (("median", median), ("low", low), ("high", high))}


def save(
    name: str, command: str, rounds: int, cases: dict, device: torch.device = CPU, **more
) -> Path:
    """Writes `results/NAME.json`: what was measured, where, and how."""
    made = artifacts.provenance(device, [0], rounds, 0.0, command)
    keep = ("device", "threads", "torch", "python", "date", "command")
    about = {key: made[key] for key in keep} | {
        "rounds": rounds,
        "load_average": round(os.getloadavg()[0], 1),
        "time": datetime.now(timezone.utc).strftime("%H:%M UTC"),
    }
    path = RESULTS / f"{name}.json"
    text = json.dumps({"provenance": about | more, "cases": cases}, indent=1) + "\n"
    write_atomically(path, text.encode())
    return path
