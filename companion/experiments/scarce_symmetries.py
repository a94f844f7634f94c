r"""Five worlds in the plane, and three beliefs about their symmetry.

Worlds: an oscillator whose springs differ by $\pm\varepsilon$ (0: rotations are a symmetry), and a
charge in a magnetic field (rotations are a symmetry, reflections are not). Beliefs, built into the
first layer of the network: O2, rotations and reflections, by dot products alone; SO2, rotations
only, by one more feature, $q_1\dot q_2 - q_2\dot q_1$; none. Every network learns every world from
n noisy measurements. States are normal, a distribution that every rotation and reflection leaves
alone: here averaging over the group is a theorem, and the smallest error that a belief allows is
known.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from companion import datasets, invariants, systems, training
from companion.experiments import _scarce
from companion.experiments._lagrangian import copy
from companion.invariants import Layer
from companion.lagrangian import LagrangianNetwork
from companion.systems.base import System, normal_states

BELIEFS: dict[str, Callable[[], Layer]] = {
    "O2": partial(invariants.Rotations, 1, 2, levi_civita=False),
    "SO2": partial(invariants.Rotations, 1, 2),
    "none": partial(invariants.Unconstrained, 1, 2),
}
Triple = tuple[Tensor, Tensor, Tensor]
EPSILONS = (0.0, 0.03, 0.1, 0.3)


class Plane(System):
    """A system of one particle in space, kept in the plane z = 0; its states are normal.

    Its Lagrangian is the other's with z and its velocity set to zero, which is right where the
    force in the plane does not push out of it.
    """

    def __init__(self, system: System) -> None:
        flat = dict.fromkeys((system.q[2], system.qdot[2]), 0)
        super().__init__(
            f"{system.name} in the plane",
            (system.q[:2], system.qdot[:2], system.qddot[:2]),
            system.parameters,
            system.lagrangian.subs(flat),
        )

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
        """n states with standard normal positions and velocities."""
        return normal_states(n, 2, generator, dtype)


def worlds() -> dict[str, System]:
    """The five worlds by name."""
    made: dict[str, System] = {f"eps {e:g}": systems.AnisotropicOscillator(e) for e in EPSILONS}
    return made | {"magnetic": Plane(systems.ChargedParticle())}


@dataclass(frozen=True)
class Settings:
    """Numbers of measurements, their noise, and the training."""

    sizes: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000, 10_000)
    sigma: float = 0.05
    hidden: tuple[int, ...] = (24, 24)
    steps: int = 1000
    batch: int = 32
    lr: float = 1e-2
    lr_end: float = 1e-5
    warmup: int = 100


def network(belief: str, settings: Settings, seeds: Sequence[int]) -> LagrangianNetwork:
    """An untrained ensemble, world after world, size after size; features scaled on pure states."""
    _, members = _scarce.grid(settings.sizes, seeds)
    net = LagrangianNetwork(
        BELIEFS[belief](),
        settings.hidden,
        seeds=members * len(worlds()),
        mass=[1.0, 1.0],
        output_scale=0.01,
    )
    net.standardise(*normal_states(2000, 2, torch.Generator().manual_seed(0), torch.float32))
    return net


def train(
    belief: str, settings: Settings, seeds: Sequence[int], progress: bool = True
) -> tuple[LagrangianNetwork, training.History, list[int]]:
    """Trains one belief in all worlds; every member stops where its validation error is best."""
    sizes, members = _scarce.grid(settings.sizes, seeds)
    measured = [
        datasets.FiniteMeasurements(system, members, sizes, settings.batch, settings.sigma)
        for system in worlds().values()
    ]

    def together(parts: Sequence[Triple]) -> Triple:
        q, qdot, qddot = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return q, qdot, qddot

    kept = [data.validation() for data in measured]
    held_out = (together([m for m, _ in kept]), torch.cat([w for _, w in kept]))
    net = network(belief, settings, seeds)
    history, stopped = _scarce.fit(
        net,
        _scarce.log_square,
        lambda step: together([data(step) for data in measured]),
        held_out=held_out,
        steps=settings.steps,
        lr=settings.lr,
        lr_end=settings.lr_end,
        warmup=settings.warmup,
        progress=progress,
    )
    return net, history, stopped


def judged_states(n: int = 60) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"]]:
    """n normal states and all their images under the eight symmetries of the square, B = 8 n.

    A finite set that quarter turns and reflections leave alone: on it the lower bounds of `floor`
    hold exactly, not only on average.
    """
    q, qdot = normal_states(n, 2, torch.Generator().manual_seed(12), torch.float64)
    images = [(q @ g.T, qdot @ g.T) for g in square_symmetries()]
    return torch.cat([a for a, _ in images]), torch.cat([b for _, b in images])


def square_symmetries() -> Float[Tensor, "8 2 2"]:
    """The quarter turns and reflections that map a square to itself, as matrices."""
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    mirror = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    turns = [torch.linalg.matrix_power(turn, k) for k in range(4)]
    return torch.stack([*turns, *(g @ mirror for g in turns)])


def floor(belief: str, world: str) -> float:
    """The relative error below which no network of this belief can come in this world.

    Epsilon over sqrt(1 + epsilon^2) for rotations in the uneven oscillator; 1 for reflections in a
    magnetic field, whose force they turn round.
    """
    if belief == "none":
        return 0.0
    if world == "magnetic":
        return 1.0 if belief == "O2" else 0.0
    epsilon = float(world.removeprefix("eps "))
    return epsilon / math.sqrt(1 + epsilon**2)


@torch.no_grad()
def errors(net: LagrangianNetwork, settings: Settings) -> dict[str, Float[Tensor, "sizes seeds"]]:
    """Error of the acceleration on `judged_states` by world: its rms over the acceleration's."""
    q, qdot = judged_states()
    guess = _by_world(copy(net, torch.float64).acceleration(q, qdot, check=False), settings)
    result = {}
    for world, system in worlds().items():
        truth = system.acceleration(q, qdot)
        error = (guess[world] - truth).square().sum(-1).mean(-1)
        result[world] = (error / truth.square().sum(-1).mean()).sqrt()
    return result


@torch.no_grad()
def torque(net: LagrangianNetwork, settings: Settings) -> dict[str, Float[Tensor, "sizes seeds B"]]:
    r"""The rate $q_1\ddot q_2 - q_2\ddot q_1$ at which a network changes the angular momentum."""
    q, qdot = judged_states()
    qddot = copy(net, torch.float64).acceleration(q, qdot, check=False)
    return _by_world(q[:, 0] * qddot[..., 1] - q[:, 1] * qddot[..., 0], settings)


def agreement(values: Float[Tensor, "seeds B"]) -> float:
    """What seeds have in common over what they scatter: rms of the mean over rms of its error.

    Near 1 where the seeds agree by chance only; above it where they saw the same thing.
    """
    error = values.std(0).square().mean().sqrt() / math.sqrt(len(values))
    return (values.mean(0).square().mean().sqrt() / error).item()


def _by_world(values: Tensor, settings: Settings) -> dict[str, Tensor]:
    parts = values.chunk(len(worlds()))
    return {
        world: part.unflatten(0, (len(settings.sizes), -1))
        for world, part in zip(worlds(), parts, strict=True)
    }
