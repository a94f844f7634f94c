r"""Many bodies and a field: networks that are trained small and used large.

The question of section 4 of Müller (2023): can the approach grow to many particles, and to fields?
Six bodies under softened gravity are measured with errors of 1e-3; a graph Lagrangian learns from
them, and two dense Lagrangian networks from the same data. The graph then moves 16, 32 and 64
bodies without being trained again. For fields, a Lagrangian density learns a nonlinear wave on 32
sites and is used on 128.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from companion import artifacts, datasets, groups, integrators, invariants, metrics, training
from companion.artifacts import Figure
from companion.experiments._lagrangian import described, relative_error
from companion.fields import LagrangianDensity
from companion.graph import GraphLagrangian
from companion.lagrangian import LagrangianNetwork
from companion.systems.many_body import ManyBody
from companion.systems.wave import Wave

NAME = "many_particle"
SUMMARY = "Graph Lagrangians for many bodies, Lagrangian densities for a field"
PAPER = "Müller (2023), section 4 (its questions; it reports no figures)"

SPECIES = (0.5, 1.0, 1.5)  # masses of the bodies, in turn
BODIES = ("graph", "free scale", "messages", "invariant", "plain")
FIELDS = ("spectral", "difference")
VARIANTS = BODIES + FIELDS
LARGER = (16, 32, 64)
BODY_T, LARGEST_T, FIELD_T = 5.0, 2.0, 10.0  # lengths of the rollouts

Network = Any  # a GraphLagrangian, LagrangianNetwork or LagrangianDensity: the variant says which


@dataclass(frozen=True)
class Settings:
    """What a budget fixes.

    N bodies in clusters of very different `sizes`; fields on `sites`, whose measured u and udot are
    smoothed to wave numbers up to `band`.
    """

    N: int = 6
    sizes: tuple[float, float] = (0.5, 3.0)
    sites: int = 32
    band: int = 6
    hidden: tuple[int, ...] = (32, 32)
    steps: int = 6000
    batch: int = 32
    sigma: float = 1e-3
    gauge: float = 1.0
    lr: float = 3e-3
    lr_end: float = 3e-6
    warmup: int = 300


SETTINGS = {
    "ci": Settings(N=4, hidden=(16, 16), steps=400, warmup=40, lr=1e-2, lr_end=1e-4),
    "demo": Settings(steps=2000, warmup=100),
    "full": Settings(),
}


def masses(N: int) -> list[float]:
    """The masses of N bodies: the three species in turn."""
    return [SPECIES[i % len(SPECIES)] for i in range(N)]


def network(variant: str, settings: Settings, seeds: int | Sequence[int] = 1) -> Network:
    """An untrained network of a variant, its inputs standardised on noisy measurements.

    `graph` and `free scale` are the same network; vertices of `messages` also see what their edges
    send. `invariant` (rotations and translations) and `plain` are dense. All bodies' networks have
    the kinetic term of the true masses to start from.
    """
    options = {"hidden": settings.hidden, "seeds": seeds}
    m = masses(settings.N)
    if variant in FIELDS:
        net = LagrangianDensity(Wave().length, variant, **options)
    elif variant in ("invariant", "plain"):
        layer = (
            invariants.Unconstrained(settings.N, 3)
            if variant == "plain"
            else invariants.RotationsTranslations(settings.N, 3, levi_civita=False)
        )
        each = [x for x in m for _ in range(3)]
        net = LagrangianNetwork(layer, mass=each, output_scale=0.01, **options)
    else:
        messages = 4 if variant == "messages" else 1
        net = GraphLagrangian(3, messages=messages, mass=m, **options)
    q, qdot, _ = measurements(variant, replace(settings, batch=2000), [2**20])(0)
    net.standardise(q[0], qdot[0])
    return net


def measurements(variant: str, settings: Settings, seeds: Sequence[int]):
    """The data of a variant, as a function of the step: `(q, qdot, qddot)`, each `(S, B, d)`."""
    if variant in FIELDS:
        return partial(_field_measurements, settings, tuple(seeds))
    system = ManyBody(masses(settings.N), sizes=settings.sizes)
    return datasets.NoisyMeasurements(system, seeds, settings.batch, settings.sigma)


def _field_measurements(settings: Settings, seeds: tuple[int, ...], step: int):
    wave, rows = Wave(n=settings.sites), []
    for seed in seeds:
        generator = torch.Generator().manual_seed(datasets._mix(seed, step))
        q, qdot = wave.sample(settings.batch, generator, torch.float32)
        exact = torch.stack([q, qdot, wave.acceleration(q, qdot)])
        noise = torch.randn(exact.shape, generator=generator)
        q, qdot, qddot = exact + settings.sigma * noise
        rows.append((smoothed(q, settings.band), smoothed(qdot, settings.band), qddot))
    return tuple(torch.stack(part) for part in zip(*rows, strict=True))


def smoothed(u: Float[Tensor, "*batch n"], band: int) -> Float[Tensor, "*batch n"]:
    """The field without its wave numbers above `band`: derivatives would amplify their noise."""
    modes = torch.fft.rfft(u)
    keep = torch.arange(modes.shape[-1], device=u.device) <= band
    return torch.fft.irfft(modes * keep, n=u.shape[-1])


def loss(
    net: Network,
    q: Float[Tensor, "S B d"],
    qdot: Float[Tensor, "S B d"],
    qddot: Float[Tensor, "S B d"],
    gauge: float = 1.0,
) -> Float[Tensor, " S"]:
    r"""The loss of `kepler`, plus a gauge fixing: `gauge` times $(\bar\mu - 1)^2$.

    $\bar\mu = \sum p\cdot\dot q / \sum m\dot q^2$ over the batch is the scale of the Lagrangian. No
    motion depends on it, so fixing it costs nothing.
    """
    fit = relative_error(net, q, qdot, qddot).mean(-1)
    return fit + gauge * (scale(net, q, qdot) - 1).square() if gauge else fit


def scale(
    net: Network, q: Float[Tensor, "*S B d"], qdot: Float[Tensor, "*S B d"]
) -> Float[Tensor, " S"]:
    r"""The scale $\bar\mu$ of each member's Lagrangian over these states."""
    p = net.momentum(q, qdot)
    m = getattr(net, "mass", None)
    mass = torch.ones_like(p[0, 0]) if m is None else m.repeat_interleave(p.shape[-1] // len(m))
    return (p * qdot).sum((-2, -1)) / (mass * qdot.square()).sum((-2, -1))


def train_variant(
    variant: str,
    budget: str = "demo",
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    checkpoint: Path | None = None,
    progress: bool = True,
    **changes,
) -> tuple[Network, training.History]:
    """Trains one variant, all seeds at once; `changes` replace settings of the budget."""
    settings = replace(SETTINGS[budget], **changes)
    net = network(variant, settings, seeds)
    history = training.fit(
        net,
        partial(loss, gauge=0.0 if variant == "free scale" else settings.gauge),
        measurements(variant, settings, seeds),
        steps=settings.steps,
        lr=settings.lr,
        lr_end=settings.lr_end,
        warmup=settings.warmup,
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
    """Trains all variants and writes the weights to `folder`; resumes a run that was stopped.

    The networks are small and train on the CPU; ValueError for a `device` that is another one.
    """
    if device not in ("auto", "cpu"):
        raise ValueError(f"device {device!r}: many_particle trains on the cpu; give cpu or auto")
    settings = SETTINGS[budget]
    states, histories = {}, {}
    for variant in VARIANTS:
        if progress:
            print(f"{variant}: {len(seeds)} seeds, {settings.steps} steps", flush=True)
        place = folder / f"checkpoint-{variant.replace(' ', '-')}.safetensors"
        net, history = train_variant(variant, budget, seeds, place, progress)
        states[variant], histories[variant] = net.state_dict(), history
    about = described(NAME, budget, settings, seeds, torch.device("cpu"), command, histories)
    artifacts.save_weights(folder, states, about)


def load(folder: Path | None = None) -> tuple[dict[str, Network], dict]:
    """The trained networks by variant, and what is known about them.

    `folder` is a run's folder; None means the artifact in the package. Raises ValueError if the
    weights are missing, damaged, or not of this experiment.
    """

    def untrained(about: dict) -> Iterator[tuple[str, Network]]:
        settings = artifacts.as_settings(Settings, about["settings"])
        for variant in VARIANTS:
            yield variant, network(variant, settings, about["provenance"]["seeds"])

    return artifacts.load_networks(NAME, folder, untrained)


# Measuring ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rollout:
    """Trajectories of all members from one start, and the drift of what should be conserved.

    `t` `(time,)`; `q` `(time, S, d)`; the drifts `(time, S)`. Bodies: of the true momentum and
    angular momentum, and of the network's own. Fields: of the true energy and field momentum, and
    of the network's own. Each in units of the sum over bodies (the integral over the ring) of the
    sizes of its parts at t = 0.
    """

    t: Tensor
    q: Tensor
    true: dict[str, Tensor]
    own: dict[str, Tensor]


@torch.no_grad()
def body_error(
    net: GraphLagrangian | LagrangianNetwork, N: int, clusters: int = 20
) -> tuple[float, ...]:
    """Median relative error of the acceleration of N bodies over fresh clusters, per member."""
    system, net = ManyBody(masses(N)), of_size(net, N).double()
    q, qdot = system.sample(clusters, torch.Generator().manual_seed(11))
    truth = system.acceleration(q, qdot).unflatten(-1, (N, 3))
    error = (net.acceleration(q, qdot, check=False).unflatten(-1, (N, 3)) - truth).norm(dim=-1)
    return tuple((error / truth.norm(dim=-1)).flatten(1).median(1).values.tolist())


@torch.no_grad()
def field_error(net: LagrangianDensity, n: int) -> tuple[float, ...]:
    """Relative error of the acceleration over 50 fresh fields on n sites, per member."""
    wave, net = Wave(n=n), of_size(net).double()
    q, qdot = wave.sample(50, torch.Generator().manual_seed(12))
    truth = wave.acceleration(q, qdot)
    error = (net.acceleration(q, qdot, check=False) - truth).norm(dim=-1) / truth.norm(dim=-1)
    return tuple(error.median(1).values.tolist())


@torch.no_grad()
def body_rollout(
    net: GraphLagrangian | LagrangianNetwork, N: int, T: float, dt: float = 0.01, keep: float = 0.1
) -> Rollout:
    """RK4 trajectories in float64 of N bodies that start in equilibrium, one a member."""
    system, net = ManyBody(masses(N)), of_size(net, N).double()
    q, qdot = system.initial()
    y = torch.cat([q, qdot]).expand(net.S, 1, -1)
    path = integrators.solve(net.rhs, y, dt, round(T / dt), every=round(keep / dt))[:, :, 0]
    q, qdot = path.chunk(2, dim=-1)
    p = system._mass(q)[:, None] * qdot.unflatten(-1, (N, 3))
    x = q.unflatten(-1, (N, 3))
    sizes = {"P": p[0].norm(dim=-1).sum(-1), "L": x[0].cross(p[0], dim=-1).norm(dim=-1).sum(-1)}
    charges = system.charges(q, qdot)
    true = {"P": charges[..., :3], "L": charges[..., 3:]}
    states = (q.movedim(0, 1), qdot.movedim(0, 1))
    own = {
        name: net.charges(*states, group(3).generators()).movedim(1, 0)
        for name, group in (("P", groups.Translation), ("L", groups.SO))
    }
    return Rollout(_times(path, keep), q, _drifts(true, sizes), _drifts(own, sizes))


@torch.no_grad()
def field_rollout(
    net: LagrangianDensity, n: int, T: float, dt: float = 0.01, keep: float = 0.1
) -> Rollout:
    """RK4 trajectories in float64 of a field on n sites from `field_start`, one a member."""
    wave, net = Wave(n=n), of_size(net).double()
    y = torch.cat(field_start(n)).expand(net.S, 1, -1)
    path = integrators.solve(net.rhs, y, dt, round(T / dt), every=round(keep / dt))[:, :, 0]
    q, qdot = path.chunk(2, dim=-1)
    a, b = (x.movedim(0, 1) for x in (q, qdot))
    true = {"E": wave.energy(q, qdot)[..., None], "P": wave.momentum(q, qdot)[..., None]}
    own = {
        "E": net.energy(a, b).movedim(1, 0)[..., None],
        "P": net.field_momentum(a, b).movedim(1, 0)[..., None],
    }
    sizes = {name: value[0].abs().squeeze(-1) for name, value in true.items()}
    return Rollout(_times(path, keep), q, _drifts(true, sizes), _drifts(own, sizes))


def field_start(n: int) -> tuple[Tensor, Tensor]:
    """A smooth field on n sites that travels to the right, and breathes."""
    x = Wave(n=n).grid(n)
    return 0.8 * x.sin() + 0.3 * (2 * x).cos(), -0.8 * x.cos() + 0.4 * (2 * x).sin() + 0.2


def of_size(net: Network, N: int | None = None) -> Network:
    """A copy, to be changed at will; of a graph network for N bodies, if given."""
    net = copy.deepcopy(net)
    return net.bodies(masses(N)) if N and isinstance(net, GraphLagrangian) else net


def evaluate(
    folder: Path | None = None, progress: bool = False, keep_curves: bool = False
) -> tuple[list[Figure], dict]:
    """Recomputes every figure from the stored weights; returns them and the facts of the run.

    With `keep_curves` what the book draws is written beside the weights.
    """
    networks, about = load(folder)
    N, n = about["settings"]["N"], about["settings"]["sites"]
    rows, curves = [], {}

    def add(name: str, meaning: str, ours: tuple[float, ...], tolerance: float = 1.2) -> None:
        rows.append(Figure(name, meaning, "1", "lower", None, None, ours, tolerance))

    for variant in BODIES:
        graph = isinstance(networks[variant], GraphLagrangian)
        for size in (N, *LARGER) if graph else (N,):
            error = body_error(networks[variant], size)
            curves[f"{variant}.error.{size}"] = torch.tensor(error)
            add(
                f"{variant}: force error, N = {size}",
                f"median relative error of a body's acceleration in fresh clusters of {size}",
                error,
            )
    for variant, size, T in (
        ("graph", N, BODY_T),
        ("invariant", N, BODY_T),
        ("plain", N, BODY_T),
        ("graph", LARGER[-1], LARGEST_T),
    ):
        run = body_rollout(networks[variant], size, T)
        conserved = variant != "plain"
        for name, what in (("P", "momentum"), ("L", "angular momentum")):
            about_it = f"of {size} bodies to T = {T:g}, in units of the sum of its parts' sizes"
            add(
                f"{variant}: drift of true {name}, N = {size}",
                f"largest drift of the true {what} {about_it}",
                _largest(run.true[name]),
                1.5,
            )
            if conserved:
                add(
                    f"{variant}: drift of own {name}, N = {size}",
                    f"largest drift of the network's own {what} {about_it}; RK4, float64",
                    _largest(run.own[name]),
                    3.0,
                )
        curves |= _curves(f"{variant}.{size}", run)
    for variant in FIELDS:
        for sites in (n, 4 * n):
            error = field_error(networks[variant], sites)
            add(
                f"{variant}: error, {sites} sites",
                f"median relative error of the field's acceleration on {sites} sites",
                error,
            )
            run = field_rollout(networks[variant], sites, FIELD_T)
            for name, what in (("E", "energy"), ("P", "field momentum")):
                for whose, drift in (("true", run.true), ("own", run.own)):
                    add(
                        f"{variant}: drift of {whose} {name}, {sites} sites",
                        f"largest drift of the {whose} {what} to T = {FIELD_T:g}",
                        _largest(drift[name]),
                        3.0 if whose == "own" else 1.5,
                    )
            curves |= _curves(f"{variant}.{sites}", run)
    if keep_curves:
        artifacts.save_curves(folder or artifacts.folder(NAME), curves)
    return rows, about


def _curves(name: str, run: Rollout) -> dict[str, Tensor]:
    """A rollout as float32: the drifts of all members, and the path of the first."""
    curves = {"t": run.t, "q": run.q[:, 0]}
    curves |= {f"true.{k}": v for k, v in run.true.items()}
    curves |= {f"own.{k}": v for k, v in run.own.items()}
    return {f"{name}.{k}": v.float() for k, v in curves.items()}


def _largest(drift: Tensor) -> tuple[float, ...]:
    return tuple(drift.nan_to_num(nan=torch.inf, posinf=torch.inf).amax(0).tolist())


def _times(path: Tensor, keep: float) -> Tensor:
    return keep * torch.arange(len(path), dtype=path.dtype)


def _drifts(charges: dict[str, Tensor], sizes: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: metrics.relative_deviation(I, reference=sizes[name][:, None])
        for name, I in charges.items()  # noqa: E741 -- the letter of the chapter
    }
