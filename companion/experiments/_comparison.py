r"""The comparison as jobs: one is a cell, a size of data and an ensemble of seeds, in one file.

    python -m companion train comparison --budget full --seeds 3 --jobs 2
    python -m companion train comparison --budget full --seeds 3 --cluster tcp://host:8786

The protocol, the same for every cell: the pairs of `_comparison_worlds`; first every cell is tuned
(four rates times two sizes of network for some of the steps, then the two best pairs for all of
them, on a seed and validation trajectories that no result uses, judged by the loss there), then
trained with what was best, with each number of trajectories. A cell that does best with the
smallest rate holds back because it overfits on the data of the tuning: for the largest number of
trajectories it is tuned anew, on that. Widths are chosen so that the number of weights is nearest
to one of two targets. A job runs on one thread and counts its own processor time.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from companion import cluster, metrics, training
from companion._checkpoint import load_tensors, save_tensors, write_atomically
from companion.experiments import _comparison_models as models
from companion.experiments import _comparison_worlds as worlds
from companion.experiments._springy_tuning import RatePerMember
from companion.optim import SOAP

RATES = (3e-3, 1e-2, 3e-2, 1e-1)
WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
TUNING_SEED = 100


@dataclass(frozen=True)
class Settings:
    """What a budget fixes.

    `targets` are numbers of weights, `sizes` numbers of training trajectories; tuning uses
    `tuned_on` of them and `tuning_steps` (0: no tuning, `RATES[1]` and the first target), the
    `finalists` all steps. `tested` trajectories are followed. `cells` are (world, model), all of
    them if empty.
    """

    steps: int = 1500
    tuning_steps: int = 600
    tuned_on: int = 32
    targets: tuple[int, ...] = (1500, 5000)
    finalists: int = 2
    sizes: tuple[int, ...] = (2, 16, 128)
    tested: int = 20
    cells: tuple[tuple[str, str], ...] = ()

    @property
    def every_cell(self) -> tuple[tuple[str, str], ...]:
        """The cells, world after world."""
        return tuple((w, m) for w, m in self.cells) or tuple(models.cells())


@dataclass(frozen=True)
class Job:
    """All that a job's result depends on.

    Tuning has several rates, each member its own. A finalist of it has one, and no test
    trajectories; else the weights are kept.
    """

    world: str
    model: str
    trajectories: int
    steps: int
    seeds: tuple[int, ...]
    width: int
    rates: tuple[float, ...]
    tested: int

    @property
    def name(self) -> str:
        """The name of its file."""
        first, *more = self.rates
        what = f"{self.trajectories}"
        if more:
            what = f"tune-{self.width}"
        elif not self.tested:
            what = f"final-{self.width}-{RATES.index(first)}"
        if not self.tested and self.trajectories != Settings.tuned_on:
            what += f"-on-{self.trajectories}"
        return f"{self.world}-{self.model}-{what}"


Result = tuple[dict[str, Tensor], dict[str, Any]]  # weights, and a record of plain numbers


def do(job: Job) -> Result:
    """Tunes or trains one cell: a function of the job alone, wherever it runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _do(job)
    finally:
        torch.set_num_threads(threads)


def _do(job: Job) -> Result:
    world = worlds.WORLDS[job.world]
    net = models.network(world, job.model, job.width, job.seeds)
    data = worlds.Batches(world, job.seeds, job.trajectories, moved=job.model == "augmented")
    record: dict[str, Any] = {
        "parameters": models.size(net),
        "width": job.width,
        "rates": list(job.rates),
    }
    begun = time.thread_time()
    try:
        history = training.fit(
            net,
            partial(_loss, world),
            data,
            steps=job.steps,
            lr=job.rates[0],
            lr_end=job.rates[0] / 1000,
            warmup=job.steps // 20,
            progress=False,
            optimizer=SOAP if len(job.rates) == 1 else partial(RatePerMember, rates=job.rates),
        )
    except training.TrainingError as error:
        if len(job.rates) > 2:  # the largest rate was too large: compare the others
            return _do(replace(job, seeds=job.seeds[:-1], rates=job.rates[:-1]))
        return {}, record | {"failed": str(error)}  # a result too: it is said, and has no figures
    record |= {"seconds": round(time.thread_time() - begun, 2), "train": _short(history.loss[-1])}
    record["validation"] = _short(validation(world, net).tolist())
    if not job.tested:
        return {}, record
    true = truth(world, job.tested)
    begun = time.thread_time()
    path = rollout(world, net, true)
    record["rollout_seconds"] = round(time.thread_time() - begun, 2)
    found = errors(world, path, true)
    return net.state_dict(), record | {key: _short(x) for key, x in found.items()}


def _loss(world: worlds.World, net: Any, z: Tensor, zdot: Tensor) -> Tensor:
    return models.loss(world, net, z, zdot)


def validation(world: worlds.World, net: Any) -> Float[Tensor, " S"]:
    """The loss on validation pairs, that of the rates alone for every model; inf for nan."""
    z, zdot = (x.expand(net.S, *x.shape) for x in worlds.held_out(world, 16))
    with torch.no_grad():
        error = models.rate_error(world, net, z, zdot)
    return error.nan_to_num(nan=torch.inf)


def measured(world: worlds.World, net: Any, tested: int) -> dict[str, list[float]]:
    """The `errors` of a network along test trajectories to 2 T."""
    true = truth(world, tested)
    return errors(world, rollout(world, net, true), true)


def truth(world: worlds.World, tested: int) -> Float[Tensor, "points n two_d"]:
    """The test trajectories to 2 T. They are kept, so that no model's time contains theirs."""
    return worlds.paths(world.name, (worlds.TEST,), tested, 2 * worlds.POINTS - 1, 2)[:, 0]


def rollout(
    world: worlds.World, net: Any, true: Float[Tensor, "points n two_d"]
) -> Float[Tensor, "points S n two_d"]:
    """The trajectories of all members from the true starts to 2 T."""
    return models.rollout(world, net, true[0], 2 * world.T, len(true), world.T / world.steps)


@torch.no_grad()
def errors(
    world: worlds.World,
    path: Float[Tensor, "points S n two_d"],
    true: Float[Tensor, "points n two_d"],
) -> dict[str, list[float]]:
    r"""What trajectories to 2 T are worth, a number a member.

    `state` is the relative state error up to T, `state 2T` that from T to 2 T. Of the energy and
    each conserved quantity C it is $|\hat C - C|$ up to 2 T over the root mean square of C; the
    true C changes with drag. All are geometric means over times after the start and trajectories;
    what ran away counts as 1, and less than 1e-7 as that.
    """
    expanded = true[:, None].expand_as(path)

    def mean(error: Tensor) -> list[float]:
        error = error.nan_to_num(nan=1.0, posinf=1.0).clamp(max=1.0)
        return metrics.geometric_mean(error, dim=(0, 2)).tolist()

    state = metrics.relative_state_error(path, expanded)
    found = {"state": mean(state[1 : worlds.POINTS]), "state 2T": mean(state[worlds.POINTS :])}
    for name, C in worlds.quantities(world).items():
        size = C(world.typical).square().mean().sqrt()
        found[name] = mean((C(path) - C(expanded))[1:].abs() / size)
    return found


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{x:.4g}") for x in values]


# Which jobs there are ---------------------------------------------------------------------------


@cache
def width_for(world: str, model: str, target: int) -> int:
    """The width whose number of weights is nearest to the target, in ratio."""

    def ratio(width: int) -> float:
        size = models.size(models.network(worlds.WORLDS[world], model, width, [0]))
        return max(size / target, target / size)

    return min(WIDTHS, key=ratio)


Cells = Sequence[tuple[str, str]]


def tuning_jobs(settings: Settings, on: int | None = None, cells: Cells | None = None) -> list[Job]:
    """Every cell in every size of network; the rates are the members of an ensemble.

    `on` trajectories, the settings' number if None; all cells if None.
    """
    seeds, n = (TUNING_SEED,) * len(RATES), settings.tuned_on if on is None else on
    jobs = [
        Job(w, m, n, settings.tuning_steps, seeds, width, RATES, 0)
        for w, m in (settings.every_cell if cells is None else cells)
        for width in dict.fromkeys(width_for(w, m, target) for target in settings.targets)
    ]
    return jobs if settings.tuning_steps else []


def final_jobs(settings: Settings, tuning: Sequence[dict]) -> list[Job]:
    """The best pairs of width and rate of each tuned cell again, with all steps: what is best after
    a few hundred need not be."""
    on = {(row["world"], row["model"]): row["trajectories"] for row in tuning}
    return [
        Job(*cell, on[cell], settings.steps, (TUNING_SEED,), width, (rate,), 0)
        for cell, ranking in ranked(settings, tuning).items()
        if cell in on
        for width, rate in ranking[: settings.finalists]
    ]


def at_the_edge(settings: Settings, finals: Sequence[dict]) -> list[tuple[str, str]]:
    """The cells that did best with the smallest rate, if there are more data to tune them on."""
    best = ranked(settings, finals)
    more = max(settings.sizes) > settings.tuned_on
    return [cell for cell in settings.every_cell if more and best[cell][0][1] == RATES[0]]


def ranked(
    settings: Settings, tuning: Sequence[dict]
) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Pairs of width and rate of each cell by validation loss, the best first."""
    losses: dict[tuple[str, str], list] = {cell: [] for cell in settings.every_cell}
    for row in tuning:
        for lr, loss in zip(row["rates"], row.get("validation", ()), strict=False):
            losses.get((row["world"], row["model"]), []).append((loss, row["width"], lr))
    untuned = {cell: [(0.0, width_for(*cell, settings.targets[0]), RATES[1])] for cell in losses}
    return {
        cell: [(width, lr) for _, width, lr in sorted(found or untuned[cell])]
        for cell, found in losses.items()
    }


def training_jobs(
    settings: Settings, seeds: Sequence[int], finals: Sequence[dict], anew: Sequence[dict] = ()
) -> list[Job]:
    """Every cell with every number of trajectories; the longest first, so that none is left over
    at the end. `anew` are finals on the largest number, and for that."""
    most, best = max(settings.sizes), ranked(settings, finals)
    for_most = best | {
        cell: ranking
        for cell, ranking in ranked(settings, anew).items()
        if any((row["world"], row["model"]) == cell for row in anew)
    }
    return [
        Job(w, m, n, settings.steps, tuple(seeds), width, (rate,), settings.tested)
        for n in sorted(settings.sizes, reverse=True)
        for w, m in reversed(settings.every_cell)
        for width, rate in (for_most if n == most else best)[w, m][:1]
    ]


# Doing them -------------------------------------------------------------------------------------


def finish(
    jobs: Sequence[Job],
    folder: Path,
    address: str | None = None,
    jobs_at_once: int = 1,
    progress: bool = True,
    function: Callable[[Job], Result] = do,
) -> list[dict]:
    """Does the jobs whose files are not there, one file a job; returns the records of all.

    Raises TrainingError, after all others are done, if a job raised: the same command tries again,
    and what `cluster.run` raises.
    """
    left = [job for job in jobs if _stored(folder, job) is None]
    errors = []
    outcomes = cluster.run(left, function, address, jobs_at_once, "cells", progress)
    for job, result in outcomes:
        if isinstance(result, Exception):
            errors.append(f"{job.name}: {type(result).__name__}: {result}")
        else:
            save_tensors(_file(folder, job), result[0], _described(job) | {"record": result[1]})
    if errors:
        raise training.TrainingError(
            f"{len(errors)} of {len(left)} jobs failed, the others are stored; the first: "
            + errors[0]
        )
    return list(_records(jobs, folder))


def _records(jobs: Sequence[Job], folder: Path) -> Iterator[dict]:
    for job in jobs:
        stored = _stored(folder, job)
        if stored is not None:
            named = {key: getattr(job, key) for key in ("world", "model", "trajectories", "steps")}
            yield named | stored[1]


def weights(job: Job, folder: Path) -> dict[str, Tensor]:
    """The weights of a job that is done; empty if it failed."""
    stored = _stored(folder, job)
    return stored[0] if stored is not None else {}


def _stored(folder: Path, job: Job) -> Result | None:
    """What a job has left, if it is of this very job."""
    path = _file(folder, job)
    if not path.exists():
        return None
    tensors, about = load_tensors(path)
    return (tensors, about["record"]) if about["job"] == _described(job)["job"] else None


def _file(folder: Path, job: Job) -> Path:
    return folder / "jobs" / f"{job.name}.safetensors"


def _described(job: Job) -> dict:
    return {"job": json.loads(json.dumps(asdict(job)))}


def write_json(path: Path, content: Any) -> None:
    """Writes plain data, one entry of a list a line."""
    rows = ",\n".join(json.dumps(row) for row in content)
    write_atomically(path, f"[\n{rows}\n]\n".encode())
