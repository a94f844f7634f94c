r"""The systems of the comparison: what moves, what is measured, and which symmetries there are.

| world | what it is | symmetry that a model can build in |
|---|---|---|
| `two_body` | two bodies under gravity, in the plane | translations, rotations |
| `drag` | a Yukawa rosette in space, slowed by drag | rotations; nothing is Hamiltonian |
| `magnetic` | a charge in a magnetic field and a well | SO(2), and not O(2) |
| `modes` | two coupled oscillators | none in space; two energies, hidden |
| `springy` | a springy double pendulum | O(2) about gravity |
| `four_bodies` | four bodies that attract each other, in space | E(3), permutations |

All models get the same pairs of a state z = (q, p) and its true rate, from the same noise-free
trajectories: n of them a member, `POINTS` states each. Those of n are among those of 2 n.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, integrators, systems
from companion.datasets import _mix
from companion.systems import System

POINTS = 50  # states of a training trajectory
BATCH = 128
TYPICAL, VALIDATION, TEST = 2**20, 2**20 + 1, 2**21  # seeds that no member has
SHIFT = 0.5  # spread of the places that translations move a world to

Pairs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class World:
    """A system, and what the models may be told about it.

    Args:
        name: a row of the table above.
        system: without drag.
        D: dimension of space; the system has d / D particles.
        T: length of a training trajectory.
        turns: what turning a state means: `space` (SO(D)), `axis` (about the third axis), or
            nothing, where it is no symmetry.
        shifts, swaps: whether translations and permutations of the particles are symmetries.
        speed: factor on the momenta that the system samples.
        drag: the rate at which momenta decay.
        dt: largest Runge-Kutta step of the truth.
        steps: Runge-Kutta steps of a rollout to T, at least. With the true field such a rollout
            has a relative state error below 1e-5 at T, which is what the figures can resolve.
    """

    name: str
    system: System
    D: int
    T: float
    turns: str = ""
    shifts: bool = False
    swaps: bool = False
    speed: float = 1.0
    drag: float = 0.0
    dt: float = 0.02
    steps: int = 200

    @property
    def n(self) -> int:
        """Number of particles."""
        return self.system.d // self.D

    @property
    def given(self) -> Float[Tensor, "m D"] | None:
        """Vectors that symmetric models are told: gravity."""
        return self.system.given[1:] if isinstance(self.system, systems.SpringyPendulum) else None

    def flow(self, z: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch two_d"]:
        """The true rate of z = (q, p)."""
        rate = self.system.flow(z)
        if not self.drag:
            return rate
        return rate - self.drag * torch.cat([0 * z[..., : self.system.d], self._p(z)], dim=-1)

    def _p(self, z: Tensor) -> Tensor:
        return z[..., self.system.d :]

    def sample(self, n: int, seed: int) -> Float[Tensor, "n two_d"]:
        """n starts, each a function of the seed and its number alone."""
        rows = []
        for k in range(n):
            generator = torch.Generator().manual_seed(_mix(seed, k))
            z = self.system.sample_phase(1, generator)
            q, p = z.chunk(2, dim=-1)
            p = self.speed * p
            if self.swaps:  # clusters at some place, drifting
                q = q + SHIFT * _everywhere(generator, self.n, self.D)
                p = p + 0.3 * _everywhere(generator, self.n, self.D)
            rows.append(torch.cat([q, p], dim=-1))
        return torch.cat(rows)

    def follow(
        self, z: Float[Tensor, "n two_d"], points: int, T: float
    ) -> Float[Tensor, "points n two_d"]:
        """True trajectories from z, `points` states from 0 to T, in float64."""
        every = -int(-T / (points - 1) // self.dt)
        dt = T / (points - 1) / every
        with torch.no_grad():
            return integrators.solve(self.flow, z, dt, (points - 1) * every, every=every)

    @cached_property
    def typical(self) -> Float[Tensor, "B two_d"]:
        """States that all networks are standardised on."""
        return self.follow(self.sample(32, TYPICAL), POINTS, self.T).flatten(0, 1)

    @cached_property
    def scale(self) -> float:
        """The mean square of a typical rate, summed over its components."""
        return self.flow(self.typical).square().sum(-1).mean().item()

    def acceleration(self, zdot: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch d"]:
        """The rate of the velocity where z moves at this rate, drag included.

        In all worlds the velocity is linear in z, so its rate is its value at zdot.
        """
        return self.system.velocity(zdot)

    @cached_property
    def scale_of_accelerations(self) -> float:
        """The mean square of a typical acceleration, summed over its components."""
        rate = self.flow(self.typical)
        return self.acceleration(rate).square().sum(-1).mean().item()

    def elements(
        self, B: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "B D D"], Float[Tensor, "B D"], Tensor]:
        """Random symmetries: rotations, shifts, and orders `(B, n)` of the particles."""
        R = torch.eye(self.D, dtype=torch.float64).expand(B, -1, -1)
        if self.turns == "space":
            R = groups.SO(self.D).sample(B, generator=generator)
        elif self.turns == "axis":
            R = torch.block_diag(torch.zeros(2, 2, dtype=R.dtype), torch.ones(1, 1).to(R)) + (
                torch.nn.functional.pad(groups.SO(2).sample(B, generator=generator), (0, 1, 0, 1))
            )
        shift = SHIFT * torch.randn(B, self.D, generator=generator, dtype=torch.float64)
        order = torch.rand(B, self.n, generator=generator).argsort(-1)
        if not self.swaps:
            order = torch.arange(self.n).expand(B, -1)
        return R, shift if self.shifts else 0 * shift, order

    def moved(self, z: Tensor, zdot: Tensor, element: tuple[Tensor, Tensor, Tensor]) -> Pairs:
        """States and rates `(..., 2 d)` at which the symmetries take them."""
        R, shift, order = element
        results = []
        for x, by in ((z, shift), (zdot, 0 * shift)):
            halves = []
            for half, w in zip(x.chunk(2, dim=-1), (by, 0 * by), strict=True):
                v = half.unflatten(-1, (self.n, self.D))
                v = v.gather(-2, order[..., None].expand(v.shape))
                halves.append((v @ R.to(v).mT + w.to(v)[:, None]).flatten(-2))
            results.append(torch.cat(halves, dim=-1))
        return results[0], results[1]


def _everywhere(generator: torch.Generator, n: int, D: int) -> Tensor:
    return torch.randn(1, D, generator=generator, dtype=torch.float64).repeat(1, n)


WORLDS = {
    world.name: world
    for world in (
        World("two_body", systems.TwoBody(), 2, 20.0, "space", shifts=True),
        World(
            "drag",
            systems.CentralForce("yukawa", length=5.0),
            3,
            10.0,
            "space",
            speed=1.55,
            drag=0.01,
            dt=0.01,
        ),
        World("magnetic", systems.MagneticField(), 2, 10.0, "space", dt=0.005, steps=500),
        World("modes", systems.CoupledOscillators(), 2, 10.0),
        World("springy", systems.SpringyPendulum(), 3, 10.0, "axis"),
        World(
            "four_bodies",
            systems.ManyBody((1.0,) * 4, softening=0.5),
            3,
            5.0,
            "space",
            shifts=True,
            swaps=True,
        ),
    )
}


@cache
def paths(
    world: str, seeds: tuple[int, ...], n: int, points: int = POINTS, times: int = 1
) -> Float[Tensor, "points S n two_d"]:
    """Trajectories of each seed in float64, to `times` the world's T."""
    here = WORLDS[world]
    starts = torch.cat([here.sample(n, seed) for seed in seeds])
    return here.follow(starts, points, times * here.T).unflatten(1, (len(seeds), n))


class Batches:
    """The pairs of n trajectories a member; called with a step, that step's minibatch.

    A member's pairs depend on its seed alone, its minibatch on seed and step. With `moved` every
    pair is moved by a random symmetry of the world: augmentation.
    """

    def __init__(self, world: World, seeds: Sequence[int], n: int, moved: bool = False) -> None:
        self.world, self.seeds, self.augmented = world, tuple(seeds), moved
        z = paths(world.name, self.seeds, n).transpose(0, 1).flatten(1, 2)
        self.z, self.zdot = z.float(), world.flow(z).float()

    def __call__(self, step: int) -> Pairs:
        """States and rates, each `(S, B, 2 d)`."""
        pairs = []
        for z, zdot, seed in zip(self.z, self.zdot, self.seeds, strict=True):
            generator = torch.Generator().manual_seed(_mix(seed, step + 2**16))
            rows = torch.randint(len(z), (BATCH,), generator=generator)
            pair = z[rows], zdot[rows]
            if self.augmented:
                pair = self.world.moved(*pair, self.world.elements(BATCH, generator))
            pairs.append(pair)
        return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])


def held_out(world: World, n: int) -> Pairs:
    """Validation pairs `(B, 2 d)`, of trajectories that no member learns from."""
    z = paths(world.name, (VALIDATION,), n).flatten(0, 2)
    return z.float(), world.flow(z).float()


def quantities(world: World) -> dict[str, Callable[[Tensor], Tensor]]:
    """The energy, and the size of each conserved vector or number: functions of z."""
    system = world.system
    kept: dict[str, Callable[[Tensor], Tensor]] = {"energy": system.hamiltonian}
    for k, name in enumerate(system.phase_charge_names):
        kept[name] = lambda z, k=k: system.phase_charges(z)[..., k]
    return kept
