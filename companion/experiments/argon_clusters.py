r"""A force that is learned on few atoms and used on many: accuracy, and cost against N.

Compact argon clusters, their atoms displaced as heat would: pieces of an fcc crystal, stretched
and shaken. Those of the training are hotter than those of the test, so that the test has no
distance that the training lacks. The energy is Lennard-Jones with argon's own Axilrod-Teller
term, smoothly cut at 10 angstrom. Models see 13 or 38 atoms and are asked about up to 147:
`linear` is a sum over pairs (eq. 33 of Ma & Chan 2022), `energy` the invariant energy of
`companion.descriptors`, so that the forces of any cluster are a gradient. Both are sums over
neighbours within the cutoff: with a neighbour list the cost grows as N, without as its square.
"""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from companion import artifacts, training
from companion.artifacts import Figure
from companion.datasets import _mix
from companion.descriptors import Descriptors, EnergyForces, LinearForces
from companion.experiments._lagrangian import described, trained
from companion.neighbours import neighbours
from companion.systems import argon
from companion.systems.argon import Argon

NAME = "argon_clusters"
SUMMARY = "Forces learned on 13 or 38 argon atoms, asked about up to 147, and their cost"
PAPER = "Ma & Chan (2022), section 3.5, eqs. 29 to 34; the task is not theirs"

CUTOFF = 10.0  # angstrom, of the energy and of the models
COLD = (0.15, 0.98, 1.06, 2.9)  # angstrom, spread of a coordinate about its lattice site; smallest
HOT = (0.20, 0.95, 1.12, 2.8)  # and largest stretch; distance (angstrom) that no pair falls below
SIZES = (13, 38, 55, 147)  # atoms, of the test
LISTED, ALL = (147, 309, 561, 1415, 2869), (55, 147, 309, 561)  # atoms, of the timing
VARIANTS = {  # model, and the atoms of the clusters it is trained on
    "linear on 13": ("linear", 13),
    "energy on 13": ("energy", 13),
    "energy on 38": ("energy", 38),
}


@dataclass(frozen=True)
class Settings:
    """What a budget fixes: steps, atoms in a minibatch and in the data, variants, learning rate."""

    steps: int
    batch: int = 304
    data: int = 19_000
    variants: tuple[str, ...] = tuple(VARIANTS)
    lr: float = 1e-2


SETTINGS = {
    "ci": Settings(150, 104, 2600, ("linear on 13", "energy on 13")),
    "demo": Settings(600),
    "full": Settings(2000),
}


def clusters(
    N: int, n: int, generator: torch.Generator, heat: tuple[float, float, float, float] = COLD
) -> Float[Tensor, "n N 3"]:
    """n compact clusters of N atoms, stretched and shaken, in angstrom, float64.

    A cluster with a closer pair than `heat` allows is discarded whole, as the paper does with four.
    """
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    shaken, low, high, r_min = heat
    found: list[Tensor] = []
    while sum(map(len, found)) < n:
        stretch = low + (high - low) * torch.rand(n, 1, 1, **options)
        r = Argon(N).start * stretch + shaken * torch.randn(n, N, 3, **options)
        near = [torch.nn.functional.pdist(x).min() for x in r]
        found.append(r[torch.stack(near) >= r_min])
    return torch.cat(found)[:n]


@cache
def labelled(
    N: int, n: int, seed: int, heat: tuple[float, float, float, float] = COLD
) -> tuple[Float[Tensor, "n N 3"], Float[Tensor, "n N 3"], Float[Tensor, "n N 3"]]:
    """n clusters, their forces, and the part of these that comes from three atoms at a time."""
    r = clusters(N, n, torch.Generator().manual_seed(seed), heat)
    whole, pairs = Argon(N, nu=argon.NU, cutoff=CUTOFF), Argon(N, cutoff=CUTOFF)
    F = torch.stack([whole.forces(x) for x in r])  # each has its own neighbours
    return r, F, F - torch.stack([pairs.forces(x) for x in r])


def network(variant: str, seeds: Sequence[int]) -> Any:
    """An untrained model of a variant."""
    kind, _ = VARIANTS[variant]
    functions = Descriptors(24, CUTOFF, first=2.6)
    if kind == "linear":
        return LinearForces(functions, seeds)
    return EnergyForces(functions, (32, 32), lengths=16, pair=True, seeds=seeds)


def loss(net: Any, r: Float[Tensor, "S B N 3"], F: Float[Tensor, "S B N 3"]) -> Float[Tensor, " S"]:
    """Mean square error of a component of the force, in units of (0.1 eV/angstrom)^2."""
    return 100 * (net.forces(r) - F).square().mean((1, 2, 3))


class Minibatches:
    """Clusters drawn with replacement from each member's own; a function of seed and step."""

    def __init__(self, N: int, seeds: Sequence[int], settings: Settings) -> None:
        self.seeds, self.n = tuple(seeds), max(1, settings.batch // N)
        sets = [labelled(N, settings.data // N, _mix(seed, 0), HOT) for seed in seeds]
        self.r = torch.stack([r for r, _, _ in sets]).float()
        self.F = torch.stack([F for _, F, _ in sets]).float()

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Positions and forces `(S, B, N, 3)` of a step."""
        sources = [torch.Generator().manual_seed(_mix(seed, step + 1)) for seed in self.seeds]
        rows = torch.stack(
            [torch.randint(self.r.shape[1], (self.n,), generator=g) for g in sources]
        )
        members = torch.arange(len(sources))[:, None]
        return self.r[members, rows], self.F[members, rows]


def train_variant(
    variant: str,
    budget: str = "demo",
    seeds: Sequence[int] = (0, 1, 2),
    device: str = "auto",
    checkpoint: Path | None = None,
    progress: bool = True,
    **changes: Any,
) -> tuple[Any, training.History]:
    """Trains a variant, all seeds at once; `changes` replace settings of the budget."""
    settings, where = replace(SETTINGS[budget], **changes), training.device(device)
    net = network(variant, seeds).to(where)
    data = Minibatches(VARIANTS[variant][1], seeds, settings)
    data.r, data.F = data.r.to(where), data.F.to(where)
    if isinstance(net, LinearForces):
        net.least_squares(data.r, data.F)
        return net, training.History()
    net.standardise(data.r[:, :200], data.F[:, :200])
    history = training.fit(
        net,
        loss,
        data,
        steps=settings.steps,
        lr=settings.lr,
        lr_end=settings.lr / 1000,
        warmup=settings.steps // 20,
        checkpoint=checkpoint,
        progress=progress,
    )
    return net, history


def train(
    budget: str,
    seeds: Sequence[int],
    device: str,
    folder: Path,
    command: str,
    progress: bool = True,
) -> None:
    """Trains every variant of the budget and writes the weights; resumes a run that was stopped."""
    settings = SETTINGS[budget]
    steps = dict.fromkeys(settings.variants, settings.steps)
    states, histories = trained(train_variant, steps, budget, seeds, device, folder, progress)
    about = described(NAME, budget, settings, seeds, training.device(device), command, histories)
    artifacts.save_weights(folder, states, about)


def load(folder: Path | None = None) -> tuple[dict[str, Any], dict]:
    """The trained networks by variant, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """

    def untrained(about: dict) -> Iterator[tuple[str, Any]]:
        for variant in about["settings"]["variants"]:
            yield variant, network(variant, about["provenance"]["seeds"])

    return artifacts.load_networks(NAME, folder, untrained)


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` the times against N are written beside the weights.
    """
    networks, about = load(folder)
    rows: list[Figure] = []
    for N in tqdm(SIZES, desc="atoms", disable=not progress):
        r, F, three = labelled(N, max(4, 2000 // N), 2**21)
        for name, size in (("force", F), ("three-body force", three)):
            rows.append(
                _figure(
                    f"{name}, {N} atoms",
                    f"root mean square of a component of the {name}",
                    "eV/A",
                    (float(size.square().mean().sqrt()),),
                    1.01,
                )
            )
        for variant, net in networks.items():
            rows.append(
                _figure(
                    f"{variant}: RMSD, {N} atoms",
                    f"root mean square error of a component of the force, clusters of {N} atoms",
                    "eV/A",
                    tuple(errors(net, r, F).square().mean((1, 2, 3)).sqrt().tolist()),
                    1.1,
                )
            )
    name, net = list(networks.items())[-1]
    curves = {}
    for how, sizes in (("list", LISTED), ("all pairs", ALL)):
        curves[f"{how}: atoms"] = torch.tensor(sizes).double()
        curves[f"{how}: seconds"] = seconds(net, sizes, how == "list")
        rows.append(
            _figure(
                f"cost exponent, {how}",
                f"slope of log time against log N of one {name!r} network, "
                f"{sizes[0]} to {sizes[-1]} atoms",
                "1",
                (slope(curves[f"{how}: atoms"], curves[f"{how}: seconds"]),),
                1.5,
            )
        )
    if keep_curves:
        artifacts.save_curves(folder or artifacts.folder(NAME), curves)
    return rows, about


@torch.no_grad()
def errors(
    net: Any, r: Float[Tensor, "n N 3"], F: Float[Tensor, "n N 3"]
) -> Float[Tensor, "S n N 3"]:
    """Errors of the forces, cluster by cluster with the pairs within the cutoff."""
    like = next(net.parameters())
    parts = [net.forces(x[None].to(like), neighbours(x, CUTOFF)) for x in r]
    return torch.cat(parts, 1).double() - F


@torch.no_grad()
def seconds(net: Any, sizes: Sequence[int], listed: bool) -> Float[Tensor, "sizes"]:
    """The time of one evaluation of the forces, the list's search included; best of three."""
    net, like = copy.deepcopy(net), next(net.parameters())
    net.keep(0)
    best = []
    for N in sizes:
        r = clusters(N, 1, torch.Generator().manual_seed(0))[0].to(like)
        times = []
        for _ in range(4):
            begin = time.process_time()
            net.forces(r[None], neighbours(r, CUTOFF) if listed else None)
            times.append(time.process_time() - begin)
        best.append(min(times[1:]))
    return torch.tensor(best, dtype=torch.float64)


def slope(N: Float[Tensor, "sizes"], t: Float[Tensor, "sizes"]) -> float:
    """Least squares of log t against log N."""
    x, y = N.log(), t.log()
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


def _figure(
    name: str, meaning: str, unit: str, ours: tuple[float, ...], tolerance: float
) -> Figure:
    return Figure(name, meaning, unit, "lower", None, None, ours, tolerance)
