"""What the two-body and the three-body problem of the paper have in common."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion.systems.base import Parameter, PhaseSpaceSystem


class PlanarBodies(PhaseSpaceSystem):
    r"""N bodies in the plane that attract each other, every pair with the same strength.

    .. math:: H = \sum_i \frac{|p_i|^2}{2 m_i} - \sum_{i<j} \frac{g}{|q_i - q_j|}

    The masses do not enter the attraction, and nothing softens it. Three conserved quantities in
    involution, each the Noether charge of a point transformation: the total momentum,

    .. math:: P_x = \sum_i p_{x_i}, \qquad P_y = \sum_i p_{y_i},

    and the angular momentum about the centre of mass :math:`(X, Y)`, positive counterclockwise,

    .. math:: L = \sum_i (x_i - X)\, p_{y_i} - (y_i - Y)\, p_{x_i}.

    L belongs to turning the bodies about their own centre of mass. Turning them about the origin
    is a symmetry too, but its charge :math:`L + X P_y - Y P_x` has no vanishing bracket with the
    momentum. Coordinates :math:`x_1, y_1, x_2, y_2, \dots`, body after body. Dimensionless.

    Args:
        name: how ``systems.get`` knows the system.
        masses: the symbol of each body's mass.
        strength: the symbol of g.
        parameters: all these symbols.
    """

    def __init__(
        self,
        name: str,
        masses: Sequence[sympy.Symbol],
        strength: sympy.Symbol,
        parameters: Mapping[sympy.Symbol, Parameter],
    ) -> None:
        N = len(masses)
        coordinates = symbolic.coordinates(" ".join(f"x_{i} y_{i}" for i in range(1, N + 1)))
        q, qdot, _ = coordinates
        x, y = q[::2], q[1::2]
        speeds = [a**2 + b**2 for a, b in zip(qdot[::2], qdot[1::2], strict=True)]
        kinetic = sympy.Add(*(m / 2 * s for m, s in zip(masses, speeds, strict=True)))
        distances = [
            sympy.sqrt((x[i] - x[j]) ** 2 + (y[i] - y[j]) ** 2) for j in range(N) for i in range(j)
        ]
        shares = [sympy.cancel(m / sympy.Add(*masses)) for m in masses]
        X, Y = (sympy.Add(*(c * a for c, a in zip(shares, u, strict=True))) for u in (x, y))
        super().__init__(
            name=name,
            coordinates=coordinates,
            parameters=parameters,
            lagrangian=kinetic + sympy.Add(*(strength / r for r in distances)),
            symmetries={
                "P_x": N * [sympy.S.One, sympy.S.Zero],
                "P_y": N * [sympy.S.Zero, sympy.S.One],
                "L": [e for a, b in zip(x, y, strict=True) for e in (Y - b, a - X)],
            },
        )
        self.masses = tuple(float(self.values[m]) for m in masses)
        self.g = float(self.values[strength])
        self._mass_symbols = [m for m in masses for _ in "xy"]

    @cached_property
    def acceleration_expressions(self) -> list[sympy.Expr]:
        """The accelerations, one term a pair; to simplify such sums takes sympy half a minute."""
        return [
            self.lagrangian.diff(x) / m for x, m in zip(self.q, self._mass_symbols, strict=True)
        ]

    def _polygon(
        self, n: int, deviations: int, generator: torch.Generator, dtype: torch.dtype
    ) -> Float[Tensor, "n two_d"]:
        """n near-circular motions of a regular polygon; `deviations` factors 1 + epsilon each."""
        N, options = len(self.masses), {"dtype": dtype, "device": generator.device}
        corner = 0.5 + torch.rand(n, 1, 2, generator=generator, **options)
        epsilon = 0.05 * torch.randn(n, deviations, 1, generator=generator, **options)
        drift = 0.1 * torch.randn(n, 1, 2, generator=generator, **options)
        angle = 2 * math.pi / N * torch.arange(N, **options)[:, None]
        q = angle.cos() * corner + angle.sin() * _quarter_turn(corner)
        # On the circle of radius r the pull on a body is pull / r^2; p^2 / (m r) balances it.
        pull = self.g / 4 * sum(1 / math.sin(math.pi * k / N) for k in range(1, N))
        mean = N / sum(1 / m for m in self.masses)  # harmonic: twice the reduced mass of two
        circular = math.sqrt(mean * pull) * _quarter_turn(q) / q.norm(dim=-1, keepdim=True) ** 1.5
        share = N * torch.tensor(self.masses, **options)[:, None] / sum(self.masses)
        p = (1 + epsilon) * circular + share * drift
        return torch.cat([q.flatten(1), p.flatten(1)], dim=-1)


def _quarter_turn(x: Tensor) -> Tensor:
    """Vectors `(..., 2)` turned counterclockwise by 90 degrees."""
    return torch.stack([-x[..., 1], x[..., 0]], dim=-1)
