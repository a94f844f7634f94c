"""N bodies that attract each other, in D dimensions: a star cluster in a nutshell."""

import math
from collections.abc import Sequence
from functools import cached_property

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, symbolic
from companion._algebra import entries
from companion.systems.base import Parameter, Real, System


class ManyBody(System):
    r"""N bodies under softened gravity.

    .. math:: L = \sum_i \frac{m_i}{2} \dot x_i^2 - \sum_{i<j} V(|x_i - x_j|^2, m_i, m_j), \qquad
              V(s, m_i, m_j) = -\frac{G m_i m_j}{\sqrt{s + \epsilon^2}}

    The pair potential is written once, as :attr:`pair_expression` in :math:`s = r^2`. The full
    Lagrangian of :class:`System` is made of it, and so are the torch functions, which sum over
    pairs: :math:`\ddot x_i = -\frac{2}{m_i} \sum_j V'(s_{ij})\,(x_i - x_j)`. They take O(N^2) for
    any N, where sympy's accelerations are for the reader and for a few bodies.

    The charges are the momenta ``P_i`` and the angular momenta (``L_x, L_y, L_z`` for D = 3, else
    ``L_ij``) of all bodies together. Dimensionless. Coordinates body after body.

    Args:
        masses: one a body; their number is N.
        D: dimension of space.
        G: strength of the attraction.
        softening: :math:`\epsilon`; below it the attraction stops growing.
        sizes: of the clusters that `sample` draws, from and to, in units of :attr:`radius`.

    Raises:
        ValueError: fewer than two masses, D is not a whole number >= 1, a parameter is not
            positive, or `sizes` are not two positive numbers in order.
    """

    def __init__(
        self,
        masses: Sequence[Real] = (1.0, 0.5),
        D: int = 3,
        G: Real = 1.0,
        softening: Real = 0.3,
        sizes: tuple[Real, Real] = (0.7, 1.6),
    ) -> None:
        if len(masses) < 2:
            raise ValueError(f"masses: got {list(masses)}, expected two bodies or more")
        if not isinstance(D, int) or D < 1:
            raise ValueError(f"D: got {D!r}, expected a whole number >= 1, the dimension of space")
        if not 0 < sizes[0] <= sizes[1] < math.inf:
            raise ValueError(
                f"sizes: got {sizes}, expected two positive numbers, the first smaller"
            )
        N = len(masses)
        names = " ".join(f"x_{{{i}{k}}}" for i in range(1, N + 1) for k in range(1, D + 1))
        coordinates = symbolic.coordinates(names)
        q, qdot, _ = coordinates
        m = sympy.symbols(f"m_1:{N + 1}", positive=True)
        strength, epsilon = sympy.symbols("G epsilon", positive=True)
        self.s = sympy.Symbol("s", nonnegative=True)
        self.pair_masses = sympy.symbols("m_i m_j", positive=True)
        m_i, m_j = self.pair_masses
        self.pair_expression = -strength * m_i * m_j / sympy.sqrt(self.s + epsilon**2)
        self.sizes = sizes
        self.N, self.D, self.masses = N, D, tuple(float(x) for x in masses)
        shifts = groups.Translation(D).sympy_generators()
        super().__init__(
            name="many-body",
            coordinates=coordinates,
            parameters={
                **{s: Parameter(x, "1", "mass") for s, x in zip(m, masses, strict=True)},
                strength: Parameter(G, "1", "strength of the attraction"),
                epsilon: Parameter(softening, "1", "softening length"),
            },
            lagrangian=self._full_lagrangian(q, qdot, m),
            symmetries={
                **{f"P_{i + 1}": N * entries(e) for i, e in enumerate(shifts)},
                **groups.rotation_symmetries(q, D),
            },
        )
        self.G, self.softening = G, softening

    def _full_lagrangian(self, q: tuple, qdot: tuple, m: tuple) -> sympy.Expr:
        D, (m_i, m_j) = self.D, self.pair_masses
        body = [slice(i * D, (i + 1) * D) for i in range(self.N)]
        terms = [m[i] / 2 * v**2 for i in range(self.N) for v in qdot[body[i]]]
        for j in range(self.N):
            for i in range(j):
                s = sum((a - b) ** 2 for a, b in zip(q[body[i]], q[body[j]], strict=True))
                terms.append(-self.pair_expression.xreplace({self.s: s, m_i: m[i], m_j: m[j]}))
        return sympy.Add(*terms)

    @cached_property
    def acceleration_expressions(self) -> list[sympy.Expr]:
        """The accelerations as sympy expressions; the mass matrix is constant and diagonal."""
        masses = [m for m in list(self.parameters)[: self.N] for _ in range(self.D)]
        return [self.lagrangian.diff(x) / m for x, m in zip(self.q, masses, strict=True)]

    # Sums over pairs, for the machine -------------------------------------------------------------

    @cached_property
    def _pair(self):
        """V and dV/ds of `(s, m_i, m_j)`, along a last axis of two."""
        V = self.pair_expression
        values = {k: v for k, v in self.values.items() if k in V.free_symbols}
        return symbolic.to_torch([V, V.diff(self.s)], [self.s, *self.pair_masses], values)

    def _pairs(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Differences `(..., N, N, D)`, V and dV/ds `(..., N, N)`, with zeros on the diagonal."""
        if q.shape[-1:] != (self.d,):
            raise ValueError(f"q: expected shape (..., {self.d}), got {tuple(q.shape)}")
        x = q.unflatten(-1, (self.N, self.D))
        r = x.unsqueeze(-2) - x.unsqueeze(-3)
        m = self._mass(q)
        s = r.square().sum(-1)
        V = self._pair(s, m[:, None].expand_as(s), m[None].expand_as(s))
        V = V * (1 - torch.eye(self.N, dtype=q.dtype, device=q.device))[..., None]
        return r, V[..., 0], V[..., 1]

    def _mass(self, q: Tensor) -> Tensor:
        return torch.tensor(self.masses, dtype=q.dtype, device=q.device)

    def _kinetic(self, qdot: Tensor) -> Tensor:
        v = qdot.unflatten(-1, (self.N, self.D))
        return 0.5 * (self._mass(qdot) * v.square().sum(-1)).sum(-1)

    def potential(self, q: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        """The potential energy of all pairs. Raises ValueError for a last axis other than d."""
        return 0.5 * self._pairs(q)[1].sum((-2, -1))

    def lagrangian_value(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch"]:
        """The Lagrangian at a state, by sums over pairs."""
        return self._kinetic(qdot) - self.potential(q)

    def energy(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch"]:
        """The energy at a state, by sums over pairs."""
        return self._kinetic(qdot) + self.potential(q)

    def acceleration(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch d"]:
        """The true acceleration, by sums over pairs."""
        r, _, slope = self._pairs(q)
        force = -2 * (slope[..., None] * r).sum(-2)
        return (force / self._mass(q)[:, None]).flatten(-2)

    def rhs(self, y: Float[Tensor, "*batch two_d"]) -> Float[Tensor, "*batch two_d"]:
        """The first-order form y' = f(y) of y = (q, qdot), for the integrators."""
        q, qdot = y.split(self.d, dim=-1)
        return torch.cat([qdot, self.acceleration(q, qdot)], dim=-1)

    def charges(
        self, q: Float[Tensor, "*batch d"], qdot: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*batch k"]:
        """Momenta, then angular momenta, in the order of :attr:`charge_names`."""
        x, v = (y.unflatten(-1, (self.N, self.D)) for y in (q, qdot))
        p = self._mass(q)[:, None] * v
        gamma = groups.SO(self.D).generators(q.dtype).to(q.device)
        return torch.cat([p.sum(-2), torch.einsum("...ni,kij,...nj->...k", p, gamma, x)], dim=-1)

    # Initial conditions --------------------------------------------------------------------------

    @property
    def radius(self) -> float:
        """Of a cluster of unit number density: it grows as N^(1/D)."""
        return 0.75 * self.N ** (1 / self.D)

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """One cluster of `sample`, always the same."""
        q, qdot = self.sample(1, torch.Generator().manual_seed(0))
        return q[0].to(dtype), qdot[0].to(dtype)

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """n bound clusters at rest in the origin.

        Positions uniform in a ball whose radius is :attr:`radius` times a number between the two
        `sizes`, its logarithm uniform; normal velocities, scaled to a kinetic energy between 0.1
        and 0.9 of what would unbind the cluster (0.5 is equilibrium). Every N has the same number
        of bodies in a volume, so a larger cluster is wider and faster.
        """
        options = {"generator": generator, "dtype": dtype, "device": generator.device}
        direction = torch.randn(n, self.N, self.D, **options)
        direction = direction / direction.norm(dim=-1, keepdim=True)
        depth = torch.rand(n, self.N, 1, **options) ** (1 / self.D)
        low, high = (math.log(size) for size in self.sizes)
        size = (low + (high - low) * torch.rand(n, 1, 1, **options)).exp()
        x = self._centred(self.radius * size * depth * direction)
        v = self._centred(torch.randn(n, self.N, self.D, **options))
        q, qdot = x.flatten(-2), v.flatten(-2)
        share = 0.1 + 0.8 * torch.rand(n, **options)
        factor = (share * self.potential(q).abs() / self._kinetic(qdot)).sqrt()
        return q, factor[:, None] * qdot

    def _centred(self, x: Tensor) -> Tensor:
        """Vectors `(n, N, D)` minus their mean, weighted with the masses."""
        weight = self._mass(x) / sum(self.masses)
        return x - (weight[:, None] * x).sum(-2, keepdim=True)
