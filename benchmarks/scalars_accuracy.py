"""How long until the springy double pendulum is learned: the authors' code and ours.

    python -m benchmarks.scalars_accuracy --paper-code DIR --emlp-code DIR --paper-python PYTHON

The options are those of `benchmarks.scalars`. Both learn from the same 500 segments of 5 states,
and both roll the same 100 unseen trajectories out over 150 states. Theirs is one run as it is
published, looked at after so many seconds of training; ours is a run for every number of steps,
because its learning rate is made for the end. Seconds are of processor time; compiling and looking
do not count.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import scalars, timing
from benchmarks.paper import ScalarsCode
from companion import metrics
from companion.experiments import springy_pendulum as pendulum

LOOKS = (30, 60, 120, 240)
STEPS = (125, 250, 500, 1000)
EPOCHS = 2000  # of the published runs


def errors(path: Tensor, true: Tensor) -> dict[str, float]:
    """The paper's metric, and the mean square error of the first 5 states; `(points, 1, n, 12)`."""
    state = metrics.geometric_mean(pendulum.errors(path, true).state)
    short = (path[:5] - true[:5, None]).square().mean()
    return {"state": float(f"{float(state):.4g}"), "short": float(f"{float(short):.4g}")}


def theirs(kind: str, code: ScalarsCode, looks: Sequence[float], true: Tensor) -> list[dict]:
    """Their run, looked at after so many seconds."""
    code.ask("compile", kind, "authors")
    train, file = code.task(kind, "authors"), code.folder / "paths.npy"
    rows, seconds, steps = [], 0.0, 0
    for look in looks:
        while seconds < look:
            seconds += train(1)
            steps += 1
        code.ask("predict", kind, "authors", str(file))
        path = torch.from_numpy(np.load(file)).transpose(0, 1)[:, None]
        rows.append({"seconds": round(seconds, 1), "steps": steps} | errors(path, true))
        print(f"{kind}, the authors': {rows[-1]}", flush=True)
    return rows


def ours(kind: str, lengths: Sequence[int], true: Tensor) -> list[dict]:
    """A run of the experiment's recipe for every number of steps."""
    rows = []
    for steps in lengths:
        begun = time.process_time()
        options = {"steps": steps, "warmup": steps // 20, "progress": False}
        net, _ = pendulum.train_cell(f"{kind}-scalars", "full", [0], "cpu", **options)
        seconds = time.process_time() - begun
        found = errors(pendulum.rollout(net, true[0]), true)
        rows.append({"seconds": round(seconds, 1), "steps": steps} | found)
        print(f"{kind}, ours: {rows[-1]}", flush=True)
    return rows


def summary(kind: str, theirs: list[dict], ours: list[dict]) -> dict[str, float | None]:
    """Seconds to the last error of theirs and to the published one; None: not reached.

    Theirs to the published error are the steps of the published run at the mean pace of this one.
    """

    def until(error: float) -> float | None:
        return next((row["seconds"] for row in ours if row["state"] <= error), None)

    last, published = theirs[-1], pendulum.CELLS[f"{kind}-scalars"].paper or 0.0
    return {
        "error": last["state"],
        "theirs": last["seconds"],
        "ours": until(last["state"]),
        "published error": published,
        "theirs, by pace": round(EPOCHS * last["seconds"] / last["steps"]),
        "ours, published": until(published),
    }


def main(words: list[str] | None = None) -> Path:
    """Measures, and writes `results/scalars_accuracy.json`."""
    words = sys.argv[1:] if words is None else words
    asked = scalars.parser("scalars_accuracy", __doc__)
    asked.add_argument("--looks", type=float, nargs="+", default=LOOKS, help="seconds, theirs")
    asked.add_argument("--steps", type=int, nargs="+", default=STEPS, help="runs of ours")
    options = asked.parse_args(words)
    torch.set_num_threads(options.threads)
    true = pendulum.true_trajectories()
    command = ("python -m benchmarks.scalars_accuracy " + " ".join(words)).strip()
    cases = {}
    with scalars.running(options) as code:
        for kind in reversed(scalars.KINDS):
            own = ours(kind, options.steps, true)
            their = theirs(kind, code, options.looks, true)
            cases[kind] = {"theirs": their, "ours": own, "summary": summary(kind, their, own)}
            path = timing.save("scalars_accuracy", command, 1, cases, paper=code.about)
    return path


if __name__ == "__main__":
    print(main())
