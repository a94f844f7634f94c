r"""Springy pendulums of every make, hung anywhere: their true motion, their data, their frames.

The paper's experiment has one pendulum at one place. Here masses, springs, lengths, pivot and
gravity belong to the sample: `given` `(..., 2, 3)` holds $q_o$ and $g$, `constants` `(..., 6)`
holds $m_1, m_2, k_1, k_2, l_1, l_2$. States are $z = (q_1, q_2, p_1, p_2)$, `(..., 12)`.
"""

from collections.abc import Callable, Sequence
from functools import cache

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import _march, groups, systems
from companion.datasets import _mix

POINTS, DT = 150, 0.2  # as in the paper: t = 0, 0.2, ..., 29.8
CHUNK = 5  # successive states in a segment of the training data
STANDARD = (1.0, 1.0, 1.0, 2.0, 1.0, 1.0)  # the paper's pendulum
Questions = tuple[Tensor, Tensor, Tensor]  # z, given, constants


# The true motion --------------------------------------------------------------------------------


@cache
def _machine_code() -> Callable:
    """The equations of motion with the parameters as coordinates that stand still."""
    system = systems.SpringyPendulum()  # its parameters: the six constants, then g, then q_o
    symbols = [*system.q, *system.qdot, *system.parameters]
    still = [sympy.Integer(0)] * len(system.parameters)
    rates = [*system.qdot, *system.acceleration_expressions, *still]
    return _march.machine_code(rates, symbols, {})


def true_paths(
    questions: Questions, points: int = POINTS, substeps: int = 20
) -> Float[Tensor, "points *batch 12"]:
    """True trajectories from `(z, given, constants)`, a state every 0.2, RK4 steps of 0.01."""
    z, given, constants = (x.double() for x in questions)
    masses = constants[..., :2].repeat_interleave(3, dim=-1)
    q, p = z.chunk(2, dim=-1)
    y = torch.cat([q, p / masses, constants, given[..., 1, :], given[..., 0, :]], dim=-1)
    steps = (points - 1) * substeps
    path = _march.march(_machine_code(), y, DT / substeps, steps, substeps)
    return torch.cat([path[..., :6], masses * path[..., 6:12]], dim=-1)


# What is asked: pendulums and their starts ------------------------------------------------------


def standard(n: int) -> tuple[Float[Tensor, "n 2 3"], Float[Tensor, "n 6"]]:
    """n times the paper's pendulum: pivot at the origin, $g = (0, 0, -1)$."""
    given = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    return given.expand(n, 2, 3), torch.tensor(STANDARD, dtype=torch.float64).expand(n, 6)


def start(
    given: Float[Tensor, "n 2 3"], constants: Float[Tensor, "n 6"], generator: torch.Generator
) -> Float[Tensor, "n 12"]:
    """Random states near the line through the pivot along g, as `SpringyPendulum.sample`.

    The springs are 1.5 natural lengths long; coordinates spread by 0.2 natural lengths, momenta by
    0.4 masses.
    """
    noise = torch.randn(len(given), 4, 3, generator=generator, dtype=torch.float64)
    pivot, g = given.unbind(-2)
    down = g / g.norm(dim=-1, keepdim=True)
    m1, m2, _, _, l1, l2 = constants[..., None].unbind(-2)
    places = [pivot + 1.5 * l1 * down, pivot + 1.5 * (l1 + l2) * down]
    spread = zip(places, (l1, l2), noise[:, :2].unbind(1), strict=True)
    q = [place + 0.2 * size * x for place, size, x in spread]
    return torch.cat([*q, 0.4 * m1 * noise[:, 2], 0.4 * m2 * noise[:, 3]], dim=-1)


def ask(
    n: int,
    seed: int,
    strengths: tuple[float, float] = (1.0, 1.0),
    spread: float = 1.0,
    turned: bool = False,
) -> Questions:
    r"""n random pendulums and their starts `(z, given, constants)`, a pure function of the seed.

    Args:
        n, seed: how many, and which. The first m of n are not those of `ask(m, seed)`.
        strengths: $|g|$ is log-uniform between these two.
        spread: every constant is the paper's, times a factor log-uniform in [1/spread, spread].
        turned: whether g has a random direction, instead of $-z$.
    """
    generator = torch.Generator().manual_seed(_mix(seed, 0))
    options = {"generator": generator, "dtype": torch.float64}
    given, constants = (x.clone() for x in standard(n))
    low, high = torch.tensor(strengths, dtype=torch.float64).log()
    given[:, 1] *= (low + (high - low) * torch.rand(n, 1, **options)).exp()
    constants *= spread ** (2 * torch.rand(n, 6, **options) - 1)
    if turned:
        given[:, 1] = groups.O(3).act(groups.O(3).sample(n, **options), given[:, 1])
    return start(given, constants, generator), given, constants


# Frames -----------------------------------------------------------------------------------------


def move(
    R: Float[Tensor, "*#batch 3 3"], w: Float[Tensor, "*#batch 3"], z: Float[Tensor, "*batch 12"]
) -> Float[Tensor, "*batch 12"]:
    r"""States in another frame: $q \to Rq + w$, $p \to Rp$ (eq. 7)."""
    shift = torch.stack([w, w, 0 * w, 0 * w], dim=-2)
    return (z.unflatten(-1, (4, 3)) @ R.to(z).mT + shift.to(z)).flatten(-2)


def move_given(
    R: Float[Tensor, "*#batch 3 3"],
    w: Float[Tensor, "*#batch 3"],
    given: Float[Tensor, "*batch 2 3"],
) -> Float[Tensor, "*batch 2 3"]:
    r"""Pivot and gravity in another frame: $q_o \to Rq_o + w$, $g \to Rg$."""
    return given @ R.to(given).mT + torch.stack([w, 0 * w], dim=-2).to(given)


def upright(R: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation or reflection of the horizontal plane, as one of space."""
    padded = torch.nn.functional.pad(R, (0, 1, 0, 1))
    padded[..., 2, 2] = 1
    return padded


# Training data ----------------------------------------------------------------------------------


class Pieces:
    """Segments of true trajectories, each of a pendulum of its own: data for an ensemble.

    Member s owns the first `sizes[s]` segments of the stream of its seed, so that a larger set
    contains the smaller ones. Called with a step it gives that step's minibatch, drawn without
    replacement, `(segments (S, B, 5, 12), given (S, B, 2, 3), constants (S, B, 6))`: a pure
    function of seed and step.

    Args:
        seeds: one for each member.
        sizes: number of segments of each member.
        batch: segments in a minibatch, at most the smallest size.
        frames: None, or a function of n and a generator: the frames `(R, w)` that the segments of
            a minibatch are moved to, the same for all members. This is data augmentation.
        **pendulums: what `ask` takes.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        sizes: Sequence[int],
        batch: int,
        frames: Callable[[int, torch.Generator], tuple[Tensor, Tensor]] | None = None,
        **pendulums,
    ) -> None:
        if len(seeds) != len(sizes) or not 1 <= batch <= min(sizes):
            raise ValueError(
                f"expected one size for each seed and 1 <= batch <= the smallest size, got "
                f"{len(seeds)} seeds, sizes = {list(sizes)}, batch = {batch}"
            )
        self.seeds, self.sizes, self.batch, self.frames = tuple(seeds), tuple(sizes), batch, frames
        own = {seed: _segments(max(sizes), seed, pendulums) for seed in dict.fromkeys(seeds)}
        columns = zip(*(own[seed] for seed in seeds), strict=True)
        self.data = tuple(torch.stack(column).float() for column in columns)

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The minibatch of a step. ValueError for step < 0."""
        if step < 0:
            raise ValueError(f"step must be 0 or more, got {step}")
        draws = [
            torch.randperm(n, generator=torch.Generator().manual_seed(_mix(seed, step + 1)))
            for seed, n in zip(self.seeds, self.sizes, strict=True)
        ]
        rows = torch.stack([draw[: self.batch] for draw in draws])
        z, given, constants = (x[torch.arange(len(rows))[:, None], rows] for x in self.data)
        if self.frames is not None:
            generator = torch.Generator().manual_seed(_mix(2**22, step))
            R, w = self.frames(self.batch, generator)
            z, given = move(R[:, None], w[:, None], z), move_given(R, w, given)
        return z, given, constants


def _segments(n: int, seed: int, pendulums: dict) -> Questions:
    """n random pieces of n trajectories, one each, with their pendulums."""
    questions = ask(n, seed, **pendulums)
    path = true_paths(questions)
    generator = torch.Generator().manual_seed(_mix(seed, 2**20))
    first = torch.randint(POINTS - CHUNK + 1, (n,), generator=generator)
    rows = first[:, None] + torch.arange(CHUNK)
    return path[rows, torch.arange(n)[:, None]], *questions[1:]
