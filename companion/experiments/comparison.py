"""Which symmetry for which problem: every model of the course on six systems, by one protocol.

`_comparison_worlds` has the systems and their data, `_comparison_models` the models and which of
them make sense where, `_comparison` the jobs. This module trains, stores, loads and measures. The
networks with the most data are kept, and `evaluate` measures them again; the other sizes of data,
and all costs, are in `cells.json`, the tuning in `tuning.json`.

    python -m companion train comparison --budget full --seeds 3 --jobs 2

trains with several processes, or with `--cluster tcp://host:8786` on an existing Dask cluster.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from companion import artifacts
from companion.artifacts import Figure
from companion.experiments import _comparison, _comparison_models, _comparison_worlds
from companion.experiments._comparison import Settings

NAME = "comparison"
SUMMARY = "Every model on every system where it makes sense, by one protocol"
PAPER = "none: the course's own comparison"

SMALL = tuple((w, m) for w in ("two_body", "magnetic") for m in ("plain", "hnn", "unitary"))
SETTINGS = {
    "ci": Settings(
        steps=100, tuning_steps=0, targets=(1500,), sizes=(8,), tested=4, cells=SMALL[:3]
    ),
    "demo": Settings(steps=600, tuning_steps=0, sizes=(4, 32), tested=10, cells=SMALL),
    "full": Settings(),
}


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
    cluster: str | None = None,
    jobs_at_once: int = 1,
) -> None:
    """Tunes and trains every cell of the budget; resumes a run that was stopped.

    Raises ValueError for a GPU (the costs are those of one CPU thread) and what `cluster.run`
    raises; TrainingError if jobs failed, once the others are stored.
    """
    if device not in ("auto", "cpu"):
        raise ValueError(f"device = {device!r}: costs are compared on one CPU thread; use cpu")
    settings, where = SETTINGS[budget], (folder, cluster, jobs_at_once, progress)
    tuning = _comparison.finish(_comparison.tuning_jobs(settings), *where)
    finals = _comparison.finish(_comparison.final_jobs(settings, tuning), *where)
    most, edge = max(settings.sizes), _comparison.at_the_edge(settings, finals)
    again = _comparison.finish(_comparison.tuning_jobs(settings, most, edge), *where)
    anew = _comparison.finish(_comparison.final_jobs(settings, again), *where)
    tuning += [*finals, *again, *anew]
    _comparison.write_json(folder / "tuning.json", tuning)
    jobs = _comparison.training_jobs(settings, seeds, finals, anew)
    records = _comparison.finish(jobs, *where)
    _comparison.write_json(folder / "cells.json", records)
    kept = {
        f"{job.world}-{job.model}": (job, _comparison.weights(job, folder))
        for job in jobs
        if job.trajectories == most
    }
    kept = {name: (job, state) for name, (job, state) in kept.items() if state}
    seconds = sum(row.get("seconds", 0.0) for row in (*tuning, *records))
    made = artifacts.provenance(torch.device("cpu"), list(seeds), settings.steps, seconds, command)
    about = {
        "experiment": NAME,
        "budget": budget,
        "settings": artifacts.settings_dict(settings),
        "widths": {name: job.width for name, (job, _) in kept.items()},
        "provenance": made | {"threads": 1},
    }
    artifacts.save_weights(folder, {name: state for name, (_, state) in kept.items()}, about)


def load(folder: Path | None = None) -> tuple[dict[str, Any], dict]:
    """The networks trained with the most data, by cell, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """

    def untrained(about: dict) -> Iterator[tuple[str, Any]]:
        for name, width in about["widths"].items():
            world, model = name.split("-", 1)
            here, seeds = _comparison_worlds.WORLDS[world], about["provenance"]["seeds"]
            yield name, _comparison_models.network(here, model, width, seeds)

    return artifacts.load_networks(NAME, folder, untrained)


def records(folder: Path | None = None) -> list[dict]:
    """Every cell and size of data as one flat record: what the table of the chapter is made of.

    Raises ValueError, naming the file, if it is missing or damaged.
    """
    path = (folder or artifacts.folder(NAME)) / "cells.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); `python -m companion train comparison` makes it "
            "anew, without training again what is there"
        ) from error


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Measures the stored networks again; returns the figures and the facts of the run.

    There are no curves to keep: the learning curves are in `cells.json`.
    """
    networks, about = load(folder)
    rows = []
    for name, net in tqdm(networks.items(), desc="cells", disable=not progress):
        world = _comparison_worlds.WORLDS[name.split("-", 1)[0]]
        found = _comparison.measured(world, net, about["settings"]["tested"])
        for what, values in found.items():
            if what.startswith("state"):
                meaning = "relative state error " + ("to T" if what == "state" else "from T to 2 T")
            else:
                meaning = f"error of the true {what} to 2 T, in units of its spread"
            meaning += ", geometric mean over test trajectories"
            figure = Figure(
                f"{name}: {what}", meaning, "1", "lower", None, None, tuple(values), 1.5
            )
            rows.append(figure)
        size = float(_comparison_models.size(net))
        rows.append(
            Figure(
                f"{name}: parameters",
                "trained parameters of one network",
                "count",
                "lower",
                None,
                None,
                (size,),
                1.0,
            )
        )
    return rows, about


if __name__ == "__main__":
    from companion.__main__ import main

    sys.exit(main(["train", NAME, *sys.argv[1:]]))
