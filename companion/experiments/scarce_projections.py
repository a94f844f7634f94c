r"""Orbits seen from one side: two coordinates of the position at known times, and nothing else.

Several planets circle one centre in planes that no one knows. An observer measures $x$ and $y$ on
the sky, with noise; the line of sight $z$ and all velocities stay hidden. The unknowns are a
potential, which is a network, and the states of the planets at a few moments, the nodes. They are
fitted together by multiple shooting: RK4 carries every state through the network's law to the next
node, and two misfits are differentiated through all of its steps, that of $x$ and $y$ from the
measurements and that of each arc's end from the next arc's start. The gaps between arcs may be wide
at first and become narrow.

The Lagrangian is $\tfrac12\dot q^2 + N$: the kinetic term is fixed. `Depth` lets N depend on
$q\cdot q$ alone, `Place` on $(x, y, z)$.

What was tried first: single shooting from one state an orbit works too, but its RK4 steps follow
one another and cost five times as much; q.q itself as the feature, in place of its logarithm, is
too steep near the pericentre for a small network, and half of the orbits ended in a wrong plane.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, integrators, training
from companion.invariants import Layer
from companion.lagrangian import LagrangianNetwork


class Depth(Layer):
    """The only rotation-invariant feature of a position in space, as log(q.q); M = 1, no velocity.

    The logarithm makes an attraction such as 1/r smooth for the network. q must not be zero.
    """

    def __init__(self) -> None:
        super().__init__(3, (r"\log(q\cdot q)",))

    def value(self, z: Tensor) -> Tensor:
        return z[..., :3].square().sum(-1, keepdim=True).log()

    def first(self, z: Tensor) -> Tensor:
        q = z[..., :3]
        slope = 2 * q / q.square().sum(-1, keepdim=True)
        return torch.cat([slope, torch.zeros_like(slope)], -1)[..., None, :]

    def second(self, z: Tensor, g: Tensor) -> Tensor:
        q = z[..., :3]
        square = q.square().sum(-1)[..., None, None]
        unit = torch.eye(3, dtype=z.dtype, device=z.device)
        block = 2 * unit / square - 4 * q[..., :, None] * q[..., None, :] / square.square()
        return torch.nn.functional.pad(g[..., None] * block, (0, 3, 0, 3))


class Place(Layer):
    """No symmetry: the features are x, y and z; M = 3, no velocity."""

    def __init__(self) -> None:
        super().__init__(3, ("q_1", "q_2", "q_3"))

    def value(self, z: Tensor) -> Tensor:
        return z[..., :3]

    def first(self, z: Tensor) -> Tensor:
        return torch.eye(3, 6, dtype=z.dtype, device=z.device).expand(*z.shape[:-1], 3, 6)

    def second(self, z: Tensor, g: Tensor) -> Tensor:
        return z.new_zeros(*z.shape, 6)


VARIANTS: dict[str, Callable[[], Layer]] = {"invariant": Depth, "unconstrained": Place}


@dataclass(frozen=True)
class Settings:
    """What is seen of K orbits, and how the fit is trained.

    An orbit is cut into `arcs` with `measured` measurements each, one every `every` RK4 steps of
    `dt`. `tries` fits from different first guesses are made for each seed, all of them stored: the
    one with the smallest misfit of the measurements is the one to judge.
    """

    orbits: int = 8
    arcs: int = 10
    measured: int = 10
    every: int = 1
    dt: float = 0.1
    sigma: float = 0.01
    hidden: tuple[int, ...] = (64,)
    steps: int = 1600
    lr: float = 2e-2
    lr_end: float = 1e-3
    warmup: int = 50
    tries: int = 8


@dataclass(frozen=True)
class Sky:
    """What happened, and what was seen of it, for S seeds and K orbits.

    `path` `(time, S, K, 6)` the true states, one every dt; `seen` `(M, S, K, 2)` the measured x and
    y, one every `every` steps.
    """

    path: Tensor
    seen: Tensor


def observe(seeds: Sequence[int], settings: Settings) -> Sky:
    """Planets on ellipses in random planes: eccentricity up to 0.5, long half axis 1 to 1.6."""
    starts, noise = [], []
    count = settings.arcs * settings.measured + 1
    for seed in seeds:
        draw = torch.Generator().manual_seed(1_000_003 + seed)
        options = {"generator": draw, "dtype": torch.float64}
        u = torch.rand(3, settings.orbits, **options)
        turn = groups.SO(3).sample(settings.orbits, **options)
        e, a, phi = 0.1 + 0.4 * u[0], 1 + 0.6 * u[1], 2 * math.pi * u[2]
        p = a * (1 - e.square())  # vis-viva in the plane of the orbit, with alpha = m = 1
        r, speed = p / (1 + e * phi.cos()), p.rsqrt()
        flat = torch.stack([r * phi.cos(), r * phi.sin(), 0 * r], -1)
        move = torch.stack([-speed * phi.sin(), speed * (e + phi.cos()), 0 * r], -1)
        starts.append(torch.cat([(turn @ x[..., None])[..., 0] for x in (flat, move)], -1))
        noise.append(torch.randn(count, settings.orbits, 2, **options))
    fine = 10
    path = integrators.solve(
        lambda y: torch.cat(
            [y[..., 3:], -y[..., :3] / y[..., :3].norm(dim=-1, keepdim=True) ** 3], -1
        ),
        torch.stack(starts),
        settings.dt / fine,
        fine * settings.every * (count - 1),
        every=fine,
    )
    seen = path[:: settings.every, ..., :2] + settings.sigma * torch.stack(noise, 1)
    return Sky(path, seen)


class Fit(torch.nn.Module):
    """The unknowns: a network, and the state of every orbit at the nodes, `(S, K, J, 6)`."""

    def __init__(self, net: LagrangianNetwork, nodes: Float[Tensor, "S K J 6"]) -> None:
        super().__init__()
        self.net = net
        self.nodes = torch.nn.Parameter(nodes)

    def rhs(self, y: Float[Tensor, "S B 6"]) -> Float[Tensor, "S B 6"]:
        """The first-order form: A is the unit matrix, so the force is the acceleration."""
        q, qdot = y.split(3, dim=-1)
        return torch.cat([qdot, self.force(q)], -1)

    def force(self, q: Float[Tensor, "S B 3"]) -> Float[Tensor, "S B 3"]:
        """`net.gradient(q, ...)[0]` for one hidden layer and features of q, three times faster."""
        net, W, round_ = self.net, self.net.weights[0], isinstance(self.net.layer, Depth)
        square = q.square().sum(-1, keepdim=True)
        feature = square.log() if round_ else q
        u = torch.baddbmm(net.biases[0][:, None], (feature - net.centre) / net.scale, W.mT)
        slope = torch.bmm(u.sigmoid() * net.output[:, None], W) / net.scale
        return 2 * slope * q / square if round_ else slope

    def arcs(self, dt: float, steps: int) -> Float[Tensor, "time S K J 6"]:
        """From every node, `steps` steps under the network's law, with gradients."""
        path = integrators.solve(self.rhs, self.nodes.flatten(1, 2), dt, steps)
        return path.unflatten(2, self.nodes.shape[1:3])


def first_guess(sky: Sky, settings: Settings, tries: Sequence[int]) -> Float[Tensor, "S K J 6"]:
    """x, y and their velocity at the nodes from parabolas through the nearest measurements.

    The hidden coordinate starts as z = alpha x + beta y with random alpha and beta, one pair an
    orbit; in every third try as a random constant, which is what a law without symmetry may like.
    """
    count = len(sky.seen)
    t = settings.dt * settings.every * torch.arange(count, dtype=torch.float64)
    states = []
    for node in range(settings.arcs):
        first = min(max(0, node * settings.measured - 2), count - 5)
        s = t[first : first + 5] - t[node * settings.measured]
        powers = torch.stack([s**0, s, s**2], -1)
        fitted = torch.linalg.lstsq(powers, sky.seen[first : first + 5].flatten(1)).solution
        states.append(fitted[:2].unflatten(1, sky.seen.shape[1:]))  # (2, S, K, 2)
    position, velocity = torch.stack(states, 3)
    z, zdot = [], []
    for s, attempt in enumerate(tries):
        draw = torch.Generator().manual_seed(7919 + attempt)
        slope = torch.randn(settings.orbits, 1, 2, generator=draw, dtype=torch.float64)
        flat = attempt % 3 == 2
        z.append(3 * slope[..., 0] if flat else (position[s] * slope).sum(-1))
        zdot.append(
            torch.zeros_like(velocity[s, ..., 0]) if flat else (velocity[s] * slope).sum(-1)
        )
    heights = (torch.broadcast_to(x, y.shape) for x, y in zip(z, zdot, strict=True))
    hidden = torch.stack(list(heights)), torch.stack(zdot)
    return torch.cat([position, hidden[0][..., None], velocity, hidden[1][..., None]], -1)


def untrained(variant: str, settings: Settings, seeds: Sequence[int]) -> Fit:
    """First guesses, `tries` for every seed, seed after seed; features scaled by what is seen."""
    tries = range(settings.tries)
    sky = observe([s for s in seeds for _ in tries], settings)
    net = LagrangianNetwork(
        VARIANTS[variant](),
        settings.hidden,
        seeds=[100 * s + k for s in seeds for k in tries],
        mass=[1.0] * 3,
        output_scale=0.01,
    )
    spread = sky.seen.std().item()
    q = spread * torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    net.standardise(q, q)
    return Fit(net, first_guess(sky, settings, list(tries) * len(seeds)).float())


def misfit(
    fit: Fit, seen: Float[Tensor, "M S K 2"], slack: float | Tensor, settings: Settings
) -> Float[Tensor, " S"]:
    r"""Mean square of the misfit in x and y over sigma, plus that of the gaps over the slack."""
    path = fit.arcs(settings.dt, settings.every * settings.measured)
    sky = path[:: settings.every, ..., :2]  # (measured + 1, S, K, J, 2)
    parts = seen[:-1].unflatten(0, (settings.arcs, settings.measured))  # (J, measured, S, K, 2)
    miss = (sky[:-1] - parts.permute(1, 2, 3, 0, 4)).square().mean((0, 2, 3, 4))
    gap = (path[-1, ..., :-1, :] - fit.nodes[..., 1:, :]).square().mean((1, 2, 3))
    return miss / settings.sigma**2 + gap / slack**2


def slack(step: int, settings: Settings) -> float:
    """The size of the gaps between arcs that costs as much as a misfit of sigma: 0.1 to 0.005."""
    return 0.1 * 0.05 ** min(1.0, 1.25 * step / settings.steps)


def train(
    variant: str, settings: Settings, seeds: Sequence[int], progress: bool = True
) -> tuple[Fit, training.History]:
    """Fits every seed `tries` times from different first guesses, all at once."""
    seen = observe([s for s in seeds for _ in range(settings.tries)], settings).seen.float()
    fit = untrained(variant, settings, seeds)
    history = training.fit(
        fit,
        lambda model, size: misfit(model, seen, size, settings),
        lambda step: (torch.tensor(slack(step, settings)),),
        steps=settings.steps,
        lr=settings.lr,
        lr_end=settings.lr_end,
        warmup=settings.warmup,
        progress=progress,
    )
    return fit, history


# What was recovered ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Recovered:
    """Fits against the truth, a value for every try and orbit, `(S, K)`, and their paths.

    `path` `(time, S, K, 3)` in the mirror image nearer to the truth; `sky` the misfit in x and y,
    rms over sigma; `depth` the rms error of z over the rms of z; `tilt` the angle between the true
    and the recovered plane of the orbit, in degrees; `force` the rms error of the acceleration on
    the true orbit over its rms.
    """

    path: Tensor
    sky: Tensor
    depth: Tensor
    tilt: Tensor
    force: Tensor


@torch.no_grad()
def recovered(fit: Fit, seeds: Sequence[int], settings: Settings) -> Recovered:
    """Compares all tries with what really happened; z counts up to its sign, orbit by orbit."""
    sky = observe([s for s in seeds for _ in range(settings.tries)], settings)
    arcs = fit.arcs(settings.dt, settings.every * settings.measured)[:-1].double()
    path = arcs.permute(3, 0, 1, 2, 4).flatten(0, 1)[..., :3]  # (time, S, K, 3)
    true = sky.path[:-1, ..., :3]
    z, depth = path[..., 2], true[..., 2]
    nearer = torch.where((z - depth).norm(dim=0) <= (z + depth).norm(dim=0), 1.0, -1.0)
    path = torch.cat([path[..., :2], (nearer * z)[..., None]], -1)
    miss = (path[:: settings.every, ..., :2] - sky.seen[:-1]).square().mean((0, -1)).sqrt()
    error = (path[..., 2] - depth).square().mean(0).sqrt() / depth.square().mean(0).sqrt()
    cosine = (normal(path) * normal(true)).sum(-1).abs().clamp(max=1)
    truth = -true / true.norm(dim=-1, keepdim=True) ** 3
    mirrored = torch.cat([true[..., :2], (nearer * depth)[..., None]], -1)
    states = mirrored.permute(1, 0, 2, 3).flatten(1, 2).float()  # (S, time K, 3)
    force = fit.force(states).double().unflatten(1, (len(true), -1)).permute(1, 0, 2, 3)
    force = torch.cat([force[..., :2], (nearer * force[..., 2])[..., None]], -1)
    wrong = ((force - truth).square().sum(-1).mean(0) / truth.square().sum(-1).mean(0)).sqrt()
    return Recovered(path, miss / settings.sigma, error, cosine.acos().rad2deg(), wrong)


def normal(path: Float[Tensor, "time S K 3"]) -> Float[Tensor, "S K 3"]:
    """The unit normal of the plane through the origin that is nearest to every orbit."""
    return torch.linalg.svd(path.permute(1, 2, 0, 3), full_matrices=False).Vh[..., 2, :]
