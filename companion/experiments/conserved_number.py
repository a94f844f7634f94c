r"""How many conserved quantities? Figure 4 of Syvaeri et al. (2021), and a count without networks.

First the paper's way: train with n = 0, 1, 2 cyclic coordinates and look where the test loss jumps.
For the double pendulum, which has one conserved quantity (figure 4), and for two coupled
oscillators, which have two: there nothing should jump. The paper's weights, alpha_1 = alpha_2 = 1
and beta = 0, the brackets of eq. (7) on the cyclic pairs alone; every network sees the same states
for the same number of steps. `hnn` is the plain Hamiltonian network, n = 0 a symmetry control
network without a cyclic coordinate; n = 1a and 2a have angles as cyclic coordinates (`circular`).

Then the count of `companion.conserved`, on trajectories of every system of the paper.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from companion import artifacts, conserved, datasets, formulas, systems, training
from companion.artifacts import Figure
from companion.experiments._canonical import Model, Settings, Task
from companion.experiments._lagrangian import described

NAME = "conserved_number"
SUMMARY = "The number of conserved quantities: by networks, and by linear algebra"
PAPER = "Syvaeri et al. (2021), section 3.2.4 and figure 4"

MODELS = {
    "hnn": Model("hnn"),
    **{f"n={n}": Model("scnn", n=n, beta=0.0) for n in (0, 1, 2)},
    **{f"n={n}a": Model("scnn", n=n, beta=0.0, circular=tuple(range(n))) for n in (1, 2)},
}
SETTINGS = {
    "ci": Settings(steps=150, models=("hnn", "n=1", "n=2"), width=32, warmup=10),
    "demo": Settings(steps=1000, models=tuple(MODELS)),
    "full": Settings(steps=2000, models=tuple(MODELS)),
}
RECORD = 100  # steps between two values of a test loss
SHOWN = 40  # ratios of a count that are kept for the book: fewer where the library is smaller


def _task(name: str, system: systems.System, angles: tuple[int, ...] = ()) -> Task:
    """The data of appendix B: 100 trajectories of 500 points to T = 10, 80 of them for training."""
    return Task(
        name=name,
        system=system,
        models=MODELS,
        settings=SETTINGS,
        trajectories=80,
        tested=20,
        points=500,
        T=10.0,
        angles=angles,
    )


TASKS = {
    "pendulum": _task("pendulum", systems.DoublePendulum(), angles=(0, 1)),
    "oscillators": _task("oscillators", systems.CoupledOscillators()),
}
TRUE = {"pendulum": 1, "oscillators": 2}


@torch.no_grad()
def test_loss(task: str, net: Any) -> Float[Tensor, " S"]:
    """Eq. (6) on all test states of a task."""
    one, like = TASKS[task], next(net.parameters())
    z = one.test.flatten(0, 1)
    zdot, z = one.system.flow(z).to(like), z.to(like)
    parts = zip(z.split(2500), zdot.split(2500), strict=True)
    errors = [(net(a) - b).square().sum(-1) for a, b in parts]
    return torch.cat(errors, dim=1).mean(1).double()


class Watched(torch.nn.Module):
    """A network and its test loss, `(records, S)`, taken as it trains."""

    curve: Tensor

    def __init__(self, net: Any, records: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("curve", torch.zeros(records, net.S))


def train_model(
    task: str,
    model: str,
    budget: str = "demo",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    device: str = "auto",
    checkpoint: Path | None = None,
    progress: bool = True,
    **changes: Any,
) -> tuple[Any, Tensor, training.History]:
    """Trains a model on a task, all seeds at once: the network, its test loss every `RECORD` steps
    `(records, S)`, from before the first step on, and the history. `changes` replace settings."""
    settings, one = replace(SETTINGS[budget], **changes), TASKS[task]
    where = training.device(device)
    net = Watched(one.network(model, seeds, settings.width, where), 1 + settings.steps // RECORD)
    net.to(where)
    batch, loss = one.data(seeds, settings.batch, where), one.loss(model)

    def watched_batch(step: int) -> tuple[Tensor, Tensor]:
        if step % RECORD == 0:
            net.curve[step // RECORD] = test_loss(task, net.net).to(net.curve)
        return batch(step)

    history = training.fit(
        net,
        lambda watched, z, zdot: loss(watched.net, z, zdot),
        watched_batch,
        steps=settings.steps,
        lr=settings.lr,
        lr_end=settings.lr / 1000,
        warmup=settings.warmup,
        checkpoint=checkpoint,
        progress=progress,
        graph=False,
    )
    if settings.steps % RECORD == 0:
        net.curve[-1] = test_loss(task, net.net).to(net.curve)
    return net.net, net.curve.cpu(), history


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains every model of the budget on both tasks and writes the weights; resumes a run that was
    stopped."""
    settings = SETTINGS[budget]
    states, histories, curves = {}, {}, {}
    for task in TASKS:
        for model in settings.models:
            name = f"{task}-{model}"
            if progress:
                print(f"{name}: {len(seeds)} seeds, {settings.steps} steps", flush=True)
            checkpoint = folder / f"checkpoint-{name}.safetensors"
            net, curve, histories[name] = train_model(
                task, model, budget, seeds, device, checkpoint, progress
            )
            states[name] = net.state_dict()
            curves[name] = [[float(f"{x:.4g}") for x in row] for row in curve.tolist()]
    where = training.device(device)
    about = described(NAME, budget, settings, seeds, where, command, histories)
    for name, curve in curves.items():
        about["history"][name]["test"] = curve
    artifacts.save_weights(folder, states, about)


def load(folder: Path | None = None) -> tuple[dict[str, Any], dict]:
    """The trained networks, as `pendulum-n=1`, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """

    def untrained(about: dict) -> Iterator[tuple[str, Any]]:
        settings, seeds = about["settings"], about["provenance"]["seeds"]
        for task, one in TASKS.items():
            for model in settings["models"]:
                yield f"{task}-{model}", one.network(model, seeds, settings["width"])

    return artifacts.load_networks(NAME, folder, untrained)


# The count -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A system, trajectories of it, and a library.

    `n` trajectories of `points` + 1 states to time `T`, RK4 with `substeps` between two of them.
    `degree` is that of the monomials in the coordinates and what `features` adds. `moved`: the
    bodies start with their centre of mass anywhere (spread 0.3), not at the origin as in the
    paper. `true` is the number of independent conserved quantities that the system has, single-
    valued and free of the time; `commuting` how many of them commute; `paper` the number of cyclic
    coordinates that the paper asks for.
    """

    system: systems.System
    degree: int
    true: int
    commuting: int
    paper: int
    features: conserved.Features | None = None
    n: int = 60
    points: int = 20
    T: float = 10.0
    substeps: int = 50
    moved: bool = False

    def path(self, seed: int) -> Float[Tensor, "time kept two_d"]:
        """The trajectories of a seed, in float64.

        Those on which the integrator loses 1e-4 of the energies' spread are left out: a spherical
        pendulum that grazes the equator, bodies that nearly collide.
        """
        generator = torch.Generator().manual_seed(datasets._mix(seed, 4))
        z = self.system.sample_phase(self.n, generator)
        if self.moved:
            shift = 0.3 * torch.randn(self.n, 2, generator=generator, dtype=z.dtype)
            z[:, : self.system.d] += shift.repeat(1, self.system.d // 2)
        path = datasets.phase_trajectories(
            self.system, z, self.points + 1, self.T, substeps=self.substeps
        )
        H = self.system.hamiltonian(path)
        return path[:, (H - H[0]).abs().amax(0) < 1e-4 * H[0].std()]  # nan is not below

    def count(self, seed: int, degree: int | None = None) -> conserved.Count:
        """The count on the trajectories of a seed, with another degree if given."""
        path = self.path(seed)
        library = conserved.Library(degree or self.degree, self.features)
        return conserved.count(conserved.spectrum(library, path), path)


def reciprocals(z: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch m"]:
    """Coordinates of bodies in the plane, and 1/r for every pair: what their energy needs."""
    bodies = z.shape[-1] // 4
    x = z[..., : 2 * bodies].unflatten(-1, (bodies, 2))
    i, j = torch.triu_indices(bodies, bodies, offset=1)
    return torch.cat([z, (x[..., i, :] - x[..., j, :]).square().sum(-1).rsqrt()], dim=-1)


def height(z: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 5"]:
    """Coordinates of the spherical pendulum, and the height that its energy needs."""
    return torch.cat([z, (1 - z[..., :2].square().sum(-1, keepdim=True)).sqrt()], dim=-1)


def turns(z: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 6"]:
    """Cosines and sines of two angles, and the momenta."""
    return torch.cat([z[..., :2].cos(), z[..., :2].sin(), z[..., 2:]], dim=-1)


def speeds(z: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 6"]:
    """Cosines and sines of the double pendulum's angles, and their rates, which the data hold:
    in the rates its energy is a polynomial, in the momenta it is not."""
    rate = TASKS["pendulum"].system.velocity(z)
    return torch.cat([z[..., :2].cos(), z[..., :2].sin(), rate], dim=-1)


@cache
def cases() -> dict[str, Case]:
    """The systems of the paper, each with a library that holds all its conserved quantities."""
    two, three = systems.TwoBody(), systems.ThreeBody()
    springs = systems.CoupledOscillators.random(3, torch.Generator().manual_seed(0))
    bodies: dict[str, Any] = {"features": reciprocals}
    return {
        "two bodies": Case(two, 3, 6, 4, 4, T=20.0, substeps=200, moved=True, **bodies),
        "two bodies, centred": Case(two, 3, 6, 4, 4, T=20.0, substeps=200, **bodies),
        "three bodies": Case(
            three, 2, 5, 4, 6, n=150, points=10, T=5.0, substeps=500, moved=True, **bodies
        ),
        "three bodies, centred": Case(
            three, 2, 5, 4, 6, n=150, points=10, T=5.0, substeps=500, **bodies
        ),
        "two oscillators": Case(TASKS["oscillators"].system, 4, 3, 2, 2),
        "three oscillators": Case(springs, 4, 5, 3, 3),
        "spherical pendulum": Case(
            systems.SphericalPendulum(), 4, 2, 2, 2, features=height, substeps=500
        ),
        "magnetic field": Case(systems.MagneticField(), 4, 2, 2, 2),
        "double pendulum": Case(
            TASKS["pendulum"].system, 4, 1, 1, 1, features=speeds, substeps=100
        ),
    }


# The figures -------------------------------------------------------------------------------------


def ratios(task: str, net: Any) -> Float[Tensor, "S n"]:
    """The conservation ratio of every cyclic momentum along the true test trajectories, sorted."""
    return formulas.conservation_ratio(TASKS[task].momenta(net).transpose(1, 2)).sort(-1).values


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` the curves of figure 4 and the ratios are written beside the weights.
    """
    networks, about = load(folder)
    rows, curves = [], {}
    for task in TASKS:
        losses = {}
        for model in about["settings"]["models"]:
            net = networks[f"{task}-{model}"]
            losses[model] = test_loss(task, net)
            curves[f"{task}-{model}"] = torch.tensor(about["history"][f"{task}-{model}"]["test"])
            rows += _network_rows(task, model, net, losses[model])
        rows += [_jump(task, losses, kind) for kind in ("", "a") if f"n=2{kind}" in losses]
    for name, case in tqdm(cases().items(), desc="counts", disable=not progress):
        found = [case.count(seed) for seed in about["provenance"]["seeds"]]
        rows += _count_rows(name, case, found)
        curves[f"ratios of {name}"] = torch.stack([c.ratios[:SHOWN] for c in found])
    if keep_curves:
        place = folder or artifacts.folder(NAME)
        artifacts.save_curves(place, {k: x.float() for k, x in curves.items()})
    return rows, about


def _jump(task: str, losses: dict[str, Tensor], kind: str) -> Figure:
    """The factor between one and two cyclic coordinates."""
    factor = losses[f"n=2{kind}"] / losses[f"n=1{kind}"]
    meaning = (
        "test loss with two cyclic coordinates over that with one; the system has "
        f"{TRUE[task]} commuting conserved quantities"
    )
    better, paper = ("higher", 3.0 if not kind else None) if task == "pendulum" else ("lower", None)
    name = f"{task}: n=2{kind} over n=1{kind}"
    return Figure(name, meaning, "1", better, paper, None, tuple(factor.tolist()))


def _network_rows(task: str, model: str, net: Any, loss: Tensor) -> list[Figure]:
    meaning = "squared error of the rates, eq. (6), summed over coordinates, mean over test states"
    name = f"{task}, {model}"
    rows = [Figure(f"{name}: test loss", meaning, "1", "lower", None, None, tuple(loss.tolist()))]
    if MODELS[model].n:
        found = ratios(task, net)
        for k in range(found.shape[1]):
            rows.append(
                Figure(
                    f"{name}: ratio of P, {k + 1}",
                    "spread within true trajectories over the whole, best P first; 0: conserved",
                    "1",
                    "lower",
                    None,
                    None,
                    tuple(found[:, k].tolist()),
                )
            )
    return rows


def _count_rows(name: str, case: Case, found: list[conserved.Count]) -> list[Figure]:
    def figure(what: str, meaning: str, better: str, aim: float | None, values: list, factor=1.0):
        ours = tuple(float(x) for x in values)
        return Figure(f"{name}: {what}", meaning, "1", better, None, aim, ours, factor)

    above = [float(c.ratios[c.conserved]) for c in found]
    rows = [
        figure(
            "counted",
            "independent conserved quantities found; the aim is how many there are",
            "higher",
            float(case.true),
            [c.number for c in found],
        ),
        figure(
            "next ratio",
            "the smallest conservation ratio of a combination that was not counted",
            "higher",
            None,
            above,
            1.2,
        ),
    ]
    if all(c.commuting is not None for c in found):
        meaning = "how many of them commute; the aim is how many there are"
        commuting = [c.commuting for c in found]
        rows.insert(1, figure("commuting", meaning, "higher", float(case.commuting), commuting))
    return rows
