r"""The networks that are asked about other pendulums, and how they are trained and judged.

All are Hamiltonian networks. What differs is what they see:

| `sees` | features |
|---|---|
| `scalars` | O(3) products of springs, momenta and $g$, and the lengths of the springs |
| `gram` | the products alone |
| `emlp` | springs and momenta behind layers equivariant under O(2) about the vertical |
| `told` | components of springs, momenta and $g$; the pivot is taken to be the origin |
| `all` | components of positions, momenta, $q_o$ and $g$ |
| `constants` | `scalars` and the logarithms of the six constants |
| `units` | `scalars` in units made of $m_1, l_1, k_1$, and the logarithms of three ratios |
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from companion import finite, groups, integrators, metrics
from companion.emlp import EMLP
from companion.experiments._symmetry_buys_worlds import (
    DT,
    POINTS,
    Questions,
    move,
    move_given,
    true_paths,
)
from companion.hamiltonian import HamiltonianNetwork
from companion.representations import SCALAR, V
from companion.scalars import Components, Layer, Scalars

# Combinations of q_1, q_2, p_1, p_2 and the given q_o, g.
RELATIVE = [
    [1, 0, 0, 0, -1, 0],
    [-1, 1, 0, 0, 0, 0],
    [0, 0, 1, 0, 0, 0],
    [0, 0, 0, 1, 0, 0],
    [0, 0, 0, 0, 0, 1],
]
SPRINGS = (0, 1)
EXTRA = {"constants": 6, "units": 3}


def layer(sees: str) -> Layer:
    """The first layer of a network that `sees` this."""
    if sees in ("scalars", "gram", "constants", "units"):
        return Scalars(RELATIVE, lengths=() if sees == "gram" else SPRINGS)
    if sees == "emlp":
        return Components([row[:4] for row in RELATIVE[:4]])
    if sees == "told":  # the first spring begins at the origin, where the pivot of the data is
        return Components([[*row[:4], 0, row[5]] for row in RELATIVE])
    return Components(torch.eye(6))


class Network(torch.nn.Module):
    """An ensemble of Hamiltonian networks, asked about states, given vectors and constants.

    Args:
        sees: a row of the table above.
        width: of both hidden layers; for `emlp` the channels.
        seeds: the members' seeds.
    """

    def __init__(self, sees: str, width: int, seeds: Sequence[int]) -> None:
        super().__init__()
        hidden: tuple[int, ...] | EMLP = (width, width)
        if sees == "emlp":
            O2 = finite.Embedded(groups.O(2), 3)
            hidden = EMLP(4 * V, SCALAR, O2, width, 2, seeds=seeds, output_scale=0.1)
        self.sees, self.width, self.seeds = sees, width, tuple(seeds)
        self.net = HamiltonianNetwork(layer(sees), 2, hidden, seeds=seeds, extra=EXTRA.get(sees, 0))

    @property
    def S(self) -> int:
        """Number of members."""
        return self.net.S

    @property
    def size(self) -> int:
        """Number of trained parameters of one member."""
        return self.net.size

    def field(
        self, given: Float[Tensor, "*batch 2 3"], constants: Float[Tensor, "*batch 6"]
    ) -> Callable[[Tensor], Tensor]:
        r"""The learned $z \mapsto \dot z$ of these pendulums; states are `(S, B, 12)`."""
        if self.sees != "units":
            return self.net.field(self._vectors(given), self._scalars(constants))
        unit = Units.of(constants)
        inside = self.net.field(given / unit.given, self._scalars(constants))
        return lambda z: inside(z / unit.z) * (unit.z / unit.time)

    @torch.no_grad()
    def standardise(self, questions: Questions) -> None:
        """Centres and scales the features on these states."""
        like = next(self.parameters())
        z, given, constants = (x.to(like) for x in questions)
        if self.sees == "units":
            unit = Units.of(constants)
            z, given = z / unit.z, given / unit.given
        self.net.standardise(z, self._vectors(given), self._scalars(constants))

    def members(self, rows: Sequence[int]) -> "Network":
        """A copy that has these members alone."""
        part = Network(self.sees, self.width, [self.seeds[row] for row in rows])
        part.to(next(self.parameters()))
        state = self.net.core.state_dict()
        part.net.core.load_state_dict({name: x[list(rows)] for name, x in state.items()})
        return part

    def silenced(self) -> "Network":
        """A copy that does not listen to the features that are functions of g alone.

        Where g is constant these features are too, and zero once standardised: at that g nothing
        changes. Their weights never had a gradient.
        """
        part = self.members(range(self.S))
        M = part.net.layer.M
        with torch.no_grad():
            part.net.core.weights[0][..., M - (3 if self.sees == "told" else 1) : M] = 0
        return part

    def _vectors(self, given: Tensor) -> Tensor | None:
        return None if self.sees == "emlp" else given

    def _scalars(self, constants: Tensor) -> Tensor | None:
        if self.sees == "constants":
            return constants.log()
        if self.sees == "units":
            return (constants[..., 1::2] / constants[..., ::2]).log()  # m2/m1, k2/k1, l2/l1
        return None


class Units(NamedTuple):
    r"""The units made of $m_1, l_1, k_1$: of states, of $q_o$ and $g$, of time."""

    z: Float[Tensor, "*batch 12"]
    given: Float[Tensor, "*batch 2 1"]
    time: Float[Tensor, "*batch 1"]

    @classmethod
    def of(cls, constants: Float[Tensor, "*batch 6"]) -> "Units":
        r"""Length $l_1$, momentum $l_1\sqrt{m_1 k_1}$, gravity $k_1 l_1/m_1$, time
        $\sqrt{m_1/k_1}$."""
        m, k, length = (constants[..., i, None] for i in (0, 2, 4))
        momentum = length * (m * k).sqrt()
        z = torch.cat([length.expand(*m.shape[:-1], 6), momentum.expand(*m.shape[:-1], 6)], -1)
        return cls(z, torch.stack([length, k * length / m], dim=-2), (m / k).sqrt())


# Training and judging ---------------------------------------------------------------------------


def loss(
    net: Network,
    segments: Float[Tensor, "S B chunk 12"],
    given: Float[Tensor, "S B 2 3"],
    constants: Float[Tensor, "S B 6"],
) -> Float[Tensor, " S"]:
    r"""$\log(1 + 1000\,|\hat z - z|^2/12)$ over single intervals, as in `springy_pendulum`."""
    z, after = segments[:, :, :-1].flatten(1, 2), segments[:, :, 1:].flatten(1, 2)
    per = segments.shape[2] - 1
    f = net.field(given.repeat_interleave(per, dim=1), constants.repeat_interleave(per, dim=1))
    for _ in range(2):
        z = integrators.rk4_step(f, z, DT / 2)
    return torch.log1p(1000 * (z - after).square().mean(-1)).mean(-1)


@torch.no_grad()
def paths(
    net: Network, questions: Questions, points: int = POINTS
) -> Float[Tensor, "points S B 12"]:
    """Trajectories of all members, in the dtype of the weights, RK4 steps of 0.1."""
    like = next(net.parameters())
    z, given, constants = (x.to(like) for x in questions)
    start = z.expand(net.S, *z.shape[-2:])
    return integrators.solve(net.field(given, constants), start, DT / 2, 2 * (points - 1), every=2)


def state_errors(
    path: Float[Tensor, "points S B 12"], truth: Float[Tensor, "points B 12"], questions: Questions
) -> Float[Tensor, "points S B"]:
    """Relative state errors, of positions relative to the pivot, in the units of the pendulum.

    For the paper's pendulum these units are 1. A state that is lost counts as 1, the largest error.
    """
    _, given, constants = (x.double() for x in questions)
    pivot = torch.nn.functional.pad(given[..., 0, :].repeat(1, 2), (0, 6))
    unit = Units.of(constants).z
    a, b = (path - pivot) / unit, ((truth - pivot) / unit)[:, None]
    return metrics.relative_state_error(a, b).nan_to_num(nan=1.0)


def judge(net: Network, questions: Questions) -> Float[Tensor, " S"]:
    """The figure of table 1: geometric mean of the state error over 150 times and all questions."""
    errors = state_errors(paths(net, questions), true_paths(questions), questions)
    return metrics.geometric_mean(errors, dim=(0, 2))


@torch.no_grad()
def defect(
    net: Network, frames: tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B 3"]], questions: Questions
) -> Float[Tensor, " S"]:
    r"""How far a network is from eq. (7): rms of $F(gz) - gF(z)$ over frames g, over rms of F.

    The questions are moved, each to its own frame.
    """
    like = next(net.parameters())
    z, given, constants = (x.to(like) for x in questions)
    R, w = (x.to(like) for x in frames)
    before = net.field(given, constants)(z)
    after = net.field(move_given(R, w, given), constants)(move(R, w, z))
    turned = move(R, 0 * w, before)
    return ((after - turned).square().mean((1, 2)) / before.square().mean((1, 2))).sqrt()
