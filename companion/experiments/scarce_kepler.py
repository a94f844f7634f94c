r"""The orbit of the kepler experiment, with noise from 1e-4 to 1e-1, and with n measurements only.

Three networks of equal hidden widths, steps, batches and stopping rule. The augmented one is the
unconstrained network whose every measurement is turned at random before it is used: what the
symmetry buys without a layer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from companion import datasets, groups, invariants, metrics, systems, training
from companion.experiments import _lagrangian, _scarce
from companion.invariants import Layer
from companion.lagrangian import LagrangianNetwork

VARIANTS: dict[str, Callable[[], Layer]] = {
    "invariant": lambda: invariants.Rotations(1, 3),
    "unconstrained": lambda: invariants.Unconstrained(1, 3),
    "augmented": lambda: invariants.Unconstrained(1, 3),
}
LOST = 1.0  # a deviation of the angular momentum that counts no further: all of it
DT = 0.02


@dataclass(frozen=True)
class Settings:
    """The levels of both studies and their training.

    `sigma` is the noise of the study of n; a quarter of its measurements is kept for validation.
    """

    sigmas: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    sizes: tuple[int, ...] = (32, 100, 320, 1000, 3200, 10_000)
    sigma: float = 1e-2
    hidden: tuple[int, ...] = (48, 48)
    steps: int = 1600
    batch: int = 64
    lr: float = 5e-3
    lr_end: float = 5e-6
    warmup: int = 200


def network(
    variant: str, settings: Settings, levels: Sequence[float | int], seeds: Sequence[int]
) -> LagrangianNetwork:
    """An untrained ensemble, level after level; its features are scaled on the noiseless orbit."""
    _, members = _scarce.grid(levels, seeds)
    net = LagrangianNetwork(
        VARIANTS[variant](), settings.hidden, seeds=members, mass=[1.0] * 3, output_scale=0.01
    )
    states = systems.Kepler().sample(2000, torch.Generator().manual_seed(0), torch.float32)
    if variant == "augmented":
        states = tuple(_scarce.turn([x[None] for x in states], rotations(0, 2000)))
        states = (states[0][0], states[1][0])
    net.standardise(*states)
    return net


def rotations(step: int, count: int) -> Float[Tensor, "B 3 3"]:
    """The rotations by which the augmented network's measurements are turned at a step."""
    draw = torch.Generator().manual_seed(datasets._mix(2**31 + 5, step))
    return groups.SO(3).sample(count, generator=draw, dtype=torch.float32)


def train_noise(
    variant: str, settings: Settings, seeds: Sequence[int], progress: bool = True
) -> tuple[LagrangianNetwork, training.History, list[int]]:
    """Trains a variant at every noise level on fresh data in every step."""
    sigmas, members = _scarce.grid(settings.sigmas, seeds)
    data = datasets.NoisyMeasurements(systems.Kepler(), members, settings.batch, sigmas)
    net = network(variant, settings, settings.sigmas, seeds)
    batch = _scarce.rotated(data, rotations) if variant == "augmented" else data
    return net, *_fit(net, batch, settings, None, progress)


def train_samples(
    variant: str, settings: Settings, seeds: Sequence[int], progress: bool = True
) -> tuple[LagrangianNetwork, training.History, list[int]]:
    """Trains a variant on n measurements for every n; members stop where they validate best."""
    sizes, members = _scarce.grid(settings.sizes, seeds)
    data = datasets.FiniteMeasurements(
        systems.Kepler(), members, sizes, settings.batch, settings.sigma
    )
    net = network(variant, settings, settings.sizes, seeds)
    batch, (held_out, weights) = data, data.validation()
    if variant == "augmented":  # it is asked about turned measurements, as it was taught
        batch = _scarce.rotated(data, rotations)
        q, qdot, qddot = _scarce.turn(held_out, rotations(2**30, weights.shape[1]))
        held_out = (q, qdot, qddot)
    return net, *_fit(net, batch, settings, (held_out, weights), progress)


def _fit(net, batch, settings: Settings, held_out, progress: bool):
    return _scarce.fit(
        net,
        _lagrangian.relative_error,
        batch,
        held_out=held_out,
        steps=settings.steps,
        lr=settings.lr,
        lr_end=settings.lr_end,
        warmup=settings.warmup,
        progress=progress,
    )


@torch.no_grad()
def judge(net: LagrangianNetwork, levels: int) -> dict[str, Float[Tensor, "levels seeds"]]:
    """What an ensemble is worth: its errors on the noiseless orbit, and the momentum it loses.

    `orbit`: rms error of the acceleration over the rms acceleration, azimuths uniform; `turned`:
    the same on the same orbit in 20 random positions; `drift`: max delta L_true (eq. 35) over two
    revolutions from the perihelion, 1 where it is larger.
    """
    net = _lagrangian.copy(net, torch.float64)
    planet = systems.Kepler()
    phi = torch.linspace(-math.pi, math.pi, 201, dtype=torch.float64)[:-1]
    q, qdot = planet.orbit(phi)
    truth = planet.acceleration(q, qdot)
    size = truth.square().sum(-1).mean().sqrt()

    def error(R: Tensor) -> Tensor:
        guess = net.acceleration(q @ R.T, qdot @ R.T, check=False)
        return (guess - truth @ R.T).square().sum(-1).mean(-1)

    turns = groups.SO(3).sample(20, generator=torch.Generator().manual_seed(3))
    turned = torch.stack([error(R) for R in turns]).mean(0).sqrt() / size
    here = error(torch.eye(3, dtype=torch.float64)).sqrt() / size
    drift = metrics.max_deviation(planet.charges(*flight(net).chunk(2, -1))[:, :, 0])
    found = {"orbit": here, "turned": turned, "drift": drift.clamp(max=LOST)}
    return {name: values.unflatten(0, (levels, -1)) for name, values in found.items()}


@torch.no_grad()
def flight(net: LagrangianNetwork, every: int = 10) -> Float[Tensor, "time S 1 6"]:
    """Two revolutions from the perihelion under every member's law: RK4, dt = 0.02."""
    planet = systems.Kepler()
    q, qdot = (x[None] for x in planet.perihelion())
    return net.rollout(q, qdot, DT, every * round(2 * planet.period / DT / every), every)
