r"""The models of the comparison, on every system where they make sense; why not, on the others.

Every pair of a world and a model is a cell, unless `EMPTY` has a reason why not. The cells of
`WRONG` impose a law that the world does not have; with data enough they must lose.

A `Learner` is a network with what the study needs of it: a loss on pairs of a state z = (q, p) and
its rate, in units of the world's typical rate, and a rollout in z. Lagrangian networks are taught
accelerations, which are made of the same pairs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from companion import finite, groups, integrators
from companion.canonical import SymmetryControlNetwork, Transformation
from companion.emlp import EMLP
from companion.experiments._comparison_worlds import World
from companion.hamiltonian import HamiltonianNetwork
from companion.invariants import Rotations, RotationsTranslations, Unconstrained
from companion.lagrangian import LagrangianNetwork
from companion.phase_space import Coordinates
from companion.representations import SCALAR, V
from companion.scalars import Components, Scalars
from companion.symplectic import Composition, LinearPoint, LinearSymplectic, Polar
from companion.unitary import UnitaryNetwork
from companion.vectorfield import VectorField

MODELS = {
    "plain": "the rates by a dense network",
    "augmented": "the same, every example moved by a random symmetry",
    "hnn": "a learned energy",
    "lnn": "a learned Lagrangian",
    "lnn-invariant": "a learned Lagrangian of invariants",
    "scalars": "rates from scalars",
    "scalars-hnn": "a learned energy of scalars",
    "emlp": "rates by equivariant layers",
    "emlp-hnn": "a learned energy behind equivariant layers",
    "scnn": "a learned energy in learned coordinates, some of them cyclic",
    "exact": "the same, the coordinates canonical by construction",
    "unitary": "rates by unitary equivariant layers",
}

_NONE = "none: the springs pull along fixed axes; but for half a turn, no turn and no shift is left"
_WRONG = "wrong: a mirror reverses the field, so the symmetry is SO(2) and not O(2)"
_FIXED = "wrong: the springs pull along fixed axes, turning is no symmetry"
_ONCE = "as wrong as `scalars`, whose cell stands for it"
# Cells that are empty, and cells whose law is not the world's: (world, model) -> why.
EMPTY: dict[tuple[str, str], str] = {
    ("modes", "augmented"): _NONE,
    ("modes", "lnn-invariant"): _NONE,
    ("modes", "scalars"): _ONCE.replace("scalars", "scalars-hnn"),
    ("modes", "emlp"): _NONE,
    ("modes", "emlp-hnn"): _NONE,
    ("modes", "unitary"): _NONE,
    ("magnetic", "scalars-hnn"): _ONCE,
    ("springy", "lnn-invariant"): (
        "no layer of the course: gravity would have to be a vector among those of the state"
    ),
}
WRONG: dict[tuple[str, str], str] = {
    ("modes", "scalars-hnn"): _FIXED,
    ("magnetic", "scalars"): _WRONG,
    **{
        ("drag", model): "wrong: drag takes energy, and this model keeps one"
        for model in ("hnn", "lnn", "lnn-invariant", "scalars-hnn", "emlp-hnn", "scnn", "exact")
    },
}
# How many cyclic coordinates, and which of them are angles. The learned maps get the same as the
# exact ones, but an exact polar angle is no pair of Cartesian coordinates.
CYCLIC: dict[str, tuple[int, tuple[int, ...]]] = {
    "two_body": (3, (2,)),
    "drag": (1, (0,)),
    "magnetic": (2, (0, 1)),
    "modes": (2, (0, 1)),
    "springy": (1, (0,)),
    "four_bodies": (3, ()),
}


def cells() -> list[tuple[str, str]]:
    """Every (world, model) that is trained, world after world."""
    return [(w, m) for w in CYCLIC for m in MODELS if (w, m) not in EMPTY]


def combinations(world: World) -> list[list[float]]:
    """What a symmetric model sees: differences of positions, then momenta, then what is given.

    A row is a combination of positions, momenta, given vectors.
    """
    n, m = world.n, 0 if world.given is None else len(world.given)
    rows = torch.eye(2 * n + m, dtype=torch.float64)
    if world.shifts:
        rows[1:n, 0] = -1  # all relative to the first body
        rows = rows[1:]
    elif world.name == "springy":
        rows[1, 0] = -1  # the second spring begins where the first ends
    return rows.tolist()


class UnitaryField(torch.nn.Module):
    r"""$\dot z = F(z)$ by a `UnitaryNetwork` on the combinations of a world, as columns.

    In the plane a vector (x, y) is the complex number x + iy, and the network is equivariant under
    U(1) = SO(2), which no mirror belongs to; in space it is real, and equivariant under O(3).
    """

    def __init__(self, world: World, width: int, seeds: Sequence[int]) -> None:
        super().__init__()
        rows = combinations(world)
        self.world, self.layer = world, Components(rows, D=world.D)
        self.plane = world.D == 2
        dtype = torch.complex64 if self.plane else torch.float32
        sizes = (len(rows), width, width, 2 * world.n)
        self.net = UnitaryNetwork(
            sizes, seeds=seeds, output_scale=0.1, epsilon=0.3, a=1.0, dtype=dtype
        )

    @property
    def S(self) -> int:
        """Number of members."""
        return self.net.S

    def columns(self, z: Tensor) -> Tensor:
        """The vectors that the network sees, `(..., D, k)`, or `(..., 1, k)` complex."""
        v = z.unflatten(-1, (-1, self.world.D))
        if self.world.given is not None:
            given = self.world.given.to(v)
            v = torch.cat([v, given.expand(*v.shape[:-2], *given.shape)], dim=-2)
        return self._complex(self.layer.combinations(v))

    def forward(self, z: Float[Tensor, "S B two_d"]) -> Float[Tensor, "S B two_d"]:
        """The rates."""
        y = self.net(self.columns(z))
        y = torch.view_as_real(y.squeeze(-2)) if self.plane else y.mT
        return y.flatten(-2)

    def standardise(self, z: Tensor, zdot: Tensor) -> None:
        """Sets the units of vectors and rates by these states."""
        rates = zdot.unflatten(-1, (-1, self.world.D))
        self.net.standardise(self.columns(z), self._complex(rates))

    def _complex(self, v: Tensor) -> Tensor:
        return torch.view_as_complex(v.contiguous())[..., None, :] if self.plane else v.mT


def network(world: World, model: str, width: int, seeds: Sequence[int]) -> Any:
    """An untrained network of a cell, standardised. ValueError for an empty cell."""
    if model not in MODELS or (world.name, model) in EMPTY:
        why = EMPTY.get((world.name, model), f"the models are {', '.join(MODELS)}")
        raise ValueError(f"model = {model!r} on {world.name!r}: {why}")
    d, D, n, hidden = world.system.d, world.D, world.n, (width, width)
    same: dict[str, Any] = {"seeds": seeds}
    net: Any
    if model in ("plain", "augmented"):
        net = VectorField(Coordinates(d), d, hidden, **same)
    elif model == "hnn":
        net = HamiltonianNetwork(Coordinates(d), d, hidden, **same)
    elif model in ("lnn", "lnn-invariant"):
        layer: Any = Unconstrained(n, D)
        if model == "lnn-invariant":
            # In the plane with the Levi-Civita symbol: SO(2), which a field leaves. In space O(3).
            layer = (RotationsTranslations if world.shifts else Rotations)(n, D, D == 2)
        net = LagrangianNetwork(layer, hidden, mass=[1.0] * d, output_scale=0.01, **same)
    elif model.startswith(("scalars", "emlp")):
        rows = combinations(world)
        places = [k for k, row in enumerate(rows) if any(row[:n])]
        cls = HamiltonianNetwork if model.endswith("hnn") else VectorField
        if model.startswith("scalars"):
            net = cls(Scalars(rows, D=D, lengths=places), n, hidden, **same)
        else:
            own = [row[: 2 * n] for row in rows if any(row[: 2 * n])]  # gravity is in the group
            out = SCALAR if model.endswith("hnn") else 2 * n * V
            core = EMLP(len(own) * V, out, _group(world), width, 2, output_scale=0.1, **same)
            net = cls(Components(own, D=D), n, core)
    elif model == "unitary":
        net = UnitaryField(world, width, seeds)
    else:
        number, circular = CYCLIC[world.name]
        if model == "scnn":
            T: Any = Transformation(d, hidden, "silu", **same)
        else:
            T, circular = exact_map(world, seeds)
        net = SymmetryControlNetwork(T, number, circular, hidden, "silu")
    _standardise(world, net)
    return net


def exact_map(world: World, seeds: Sequence[int]) -> tuple[Any, tuple[int, ...]]:
    """A canonical map that can reach the world's cyclic coordinates, and which are angles that K
    sees as pairs. A polar angle is a coordinate of its own: it is none of them."""
    d = world.system.d
    if world.name in ("magnetic", "modes"):
        return LinearSymplectic(d, seeds), (0, 1)
    if world.name == "four_bodies":
        return LinearPoint(d, seeds), ()
    plane = (2, 3) if world.name == "two_body" else (0, 1)
    others = [(3, 4)] if world.name == "springy" else []
    return Composition([LinearPoint(d, seeds), Polar(d, plane, others, seeds=seeds)]), ()


def size(net: Any) -> int:
    """Number of trained parameters of one member."""
    return sum(x[0].numel() for x in net.parameters())


def _group(world: World) -> Any:
    if world.name == "magnetic":
        return groups.SO(2)
    return finite.Embedded(groups.O(2), 3) if world.turns == "axis" else groups.O(world.D)


def _told(world: World, net: Any) -> Tensor | None:
    """Gravity, for a network that is told of it."""
    return world.given if isinstance(getattr(net, "layer", None), Scalars) else None


def _standardise(world: World, net: Any) -> None:
    z = world.typical
    if isinstance(net, UnitaryField):
        net.standardise(z.float(), world.flow(z).float())
    elif isinstance(net, LagrangianNetwork):
        net.standardise(*(x.float() for x in velocities(world, z)))
    elif isinstance(net, SymmetryControlNetwork):
        net.standardise(z.float())
    else:
        net.standardise(z.float(), _told(world, net))


def velocities(world: World, z: Tensor) -> tuple[Tensor, Tensor]:
    """q and the true qdot at z = (q, p)."""
    return z[..., : world.system.d], world.system.velocity(z)


def field(world: World, net: Any) -> Any:
    """The learned z -> zdot; of a Lagrangian network (q, qdot) -> their rates."""
    if isinstance(net, LagrangianNetwork):
        return net.rhs
    if isinstance(net, (VectorField, HamiltonianNetwork)):
        return net.field(_told(world, net))
    return net.forward


def loss(world: World, net: Any, z: Tensor, zdot: Tensor) -> Float[Tensor, " S"]:
    """What is minimised: `rate_error`; with eqs. (7) and (8) of Syväri et al. (2021) beside it
    where a transformation is to become canonical."""
    if isinstance(net, SymmetryControlNetwork) and isinstance(net.transformation, Transformation):
        part = net.losses(z, zdot)
        return torch.log1p(part.hnn / world.scale) + part.poisson + part.cyclic / world.scale
    return rate_error(world, net, z, zdot)


def rate_error(world: World, net: Any, z: Tensor, zdot: Tensor) -> Float[Tensor, " S"]:
    r"""$\log(1 + |\hat{\dot z} - \dot z|^2/s)$, s the typical $|\dot z|^2$, averaged over pairs.

    For a Lagrangian network the error is that of the acceleration, in its own typical size.
    """
    if isinstance(net, LagrangianNetwork):
        q, qdot = velocities(world, z)
        wanted, s = world.acceleration(zdot), world.scale_of_accelerations
        error = net.acceleration(q, qdot, check=False) - wanted
    else:
        error, s = field(world, net)(z) - zdot, world.scale
    return torch.log1p(error.square().sum(-1) / s).mean(-1)


@torch.no_grad()
def rollout(
    world: World, net: Any, z: Float[Tensor, "B two_d"], T: float, points: int, step: float
) -> Float[Tensor, "points S B two_d"]:
    """Trajectories of all members from z to T in float32, by RK4 with steps of at most `step`."""
    every = max(1, -int(-T / (points - 1) // step))
    dt = T / (points - 1) / every
    lagrangian = isinstance(net, LagrangianNetwork)
    S = net.S
    start = torch.cat(velocities(world, z), dim=-1) if lagrangian else z
    y = start.float().expand(S, *z.shape)
    path = integrators.solve(field(world, net), y, dt, every * (points - 1), every=every).double()
    if not lagrangian:
        return path
    q, qdot = path.chunk(2, dim=-1)
    return torch.cat([q, world.system.momentum(q, qdot)], dim=-1)
