r"""Lagrangian networks for fields: one density for every site of a ring.

A field $u(x, t)$ on a ring of n sites, a apart, has the Lagrangian

$$ \mathcal L = \sum_j a\,\ell_\theta(u_j, \dot u_j, u'_j), \qquad u' = D u, $$

with one small network $\ell_\theta$ for all sites and an antisymmetric matrix D that takes the
derivative in space. Site j's velocity occurs at site j alone, so the velocity Hessian is diagonal
and nothing has to be solved:

$$ \ell_{\dot u\dot u}\,\ddot u = \ell_u - D\,\ell_{u'} - \ell_{\dot u u}\,\dot u
   - \ell_{\dot u u'}\,D\dot u . $$

What is conserved depends on D. The energy always is, and without u in the density the charge
$\sum_j a\,p_j$ of $u \to u + \mathrm{const}$. The field momentum $P = -\sum_j a\,p_j\,u'_j$ changes
by $-a\sum_j \nabla\ell_j\cdot (Dw)_j$, $w = (u, \dot u, u')$: zero for quadratic densities,
exponentially small in n for a spectral D, of order $a^2$ for differences.
"""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion._activations import Activation
from companion._dense import Dense, expanded
from companion.lagrangian import SingularHessianError
from companion.systems.wave import central_difference, spectral_derivative

DERIVATIVES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "spectral": spectral_derivative,
    "difference": central_difference,
}

States = Shaped[Tensor, "..."]  # (S, B, n) or (B, n): `_sites` checks, and says what is wrong
Vectors = Float[Tensor, "S B n"]
Values = Float[Tensor, "S B"]


class LagrangianDensity(torch.nn.Module):
    r"""An ensemble of S densities $\ell = \tfrac12\dot u^2 + N_\theta(\dot u, u', u)$.

    States $(u, \dot u)$ are `(S, B, n)`, or `(B, n)` for the same in every member, on any number n
    of equidistant sites.

    Args:
        length: circumference of the ring; the sites are `length / n` apart.
        derivative: "spectral" or "difference".
        sees_field: whether the density depends on u itself, or on its derivatives only. Without u,
            $u \to u + \mathrm{const}$ is an exact symmetry on every grid.
        hidden: widths of the dense layers.
        activation: as in `companion.lagrangian`.
        seeds: S, or the seeds of the members.
        output_scale: standard deviation of the last layer.
        dtype, device: of the parameters.

    Raises:
        ValueError: no hidden layer, a width or `seeds` below 1, a length that is not positive, an
            unknown derivative or activation.
    """

    def __init__(
        self,
        length: float = 2 * math.pi,
        derivative: str = "spectral",
        sees_field: bool = True,
        hidden: Sequence[int] = (32, 32),
        *,
        activation: str | Activation = "softplus",
        seeds: int | Sequence[int] = 1,
        output_scale: float = 0.01,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
        self.hidden = tuple(hidden)
        if not self.seeds or not hidden or min(hidden) < 1 or not 0 < length < math.inf:
            raise ValueError(
                f"expected length > 0, seeds and every hidden width 1 or more, got length={length},"
                f" hidden={self.hidden}, seeds={self.seeds}"
            )
        if derivative not in DERIVATIVES:
            raise ValueError(
                f"derivative {derivative!r} is not known; take one of {', '.join(DERIVATIVES)}"
            )
        self.length, self.derivative, self.sees_field = length, derivative, sees_field
        sources = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        features = 3 if sees_field else 2
        self.density = Dense(features, hidden, 1, activation, sources, output_scale, dtype, device)

    @property
    def S(self) -> int:
        """Number of members."""
        return len(self.seeds)

    def D(self, u: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """The derivative in space: linear, antisymmetric, zero for constants."""
        return DERIVATIVES[self.derivative](u, self.length)

    # What the network says about a state -------------------------------------------------------

    def lagrangian(self, q: States, qdot: States) -> Values:
        """The Lagrangian, the sum of the density over the ring, `(S, B)`."""
        w = self._sites(q, qdot)
        density = self.density.value(w.flatten(1, 2)).view(w.shape[:3])
        return self.length * (0.5 * w[..., 0].square() + density).mean(-1)

    def momentum(self, q: States, qdot: States) -> Vectors:
        r"""The momentum density $p_j = \ell_{\dot u}$ of every site, `(S, B, n)`.

        The canonical momentum of the coordinate $u_j$ is a times it.
        """
        w = self._sites(q, qdot)
        return w[..., 0] + self.density.gradient(w.flatten(1, 2)).view_as(w)[..., 0]

    def energy(self, q: States, qdot: States) -> Values:
        r"""The energy $\sum_j a\,p_j\dot u_j - \mathcal L$, conserved on every grid, `(S, B)`."""
        p, w = self.momentum(q, qdot), self._sites(q, qdot)
        return self.length * (p * w[..., 0]).mean(-1) - self.lagrangian(q, qdot)

    def field_momentum(self, q: States, qdot: States) -> Values:
        r"""$P = -\sum_j a\,p_j\,u'_j$, the charge of translations along the ring, `(S, B)`."""
        p, w = self.momentum(q, qdot), self._sites(q, qdot)
        return -self.length * (p * w[..., 1]).mean(-1)

    def shift_charge(self, q: States, qdot: States) -> Values:
        r"""$\sum_j a\,p_j$, the charge of $u \to u + \mathrm{const}$, `(S, B)`.

        Conserved, on every grid, if the density does not see u.
        """
        return self.length * self.momentum(q, qdot).mean(-1)

    # What the network says about motion --------------------------------------------------------

    def acceleration(self, q: States, qdot: States, check: bool = True) -> Vectors:
        r"""$\ddot u$ at every site, `(S, B, n)`; one division a site.

        With `check`, $\ell_{\dot u\dot u} = 0$ raises `SingularHessianError`, which names member,
        state and site; without, it gives inf or nan.
        """
        w = self._sites(q, qdot)
        qdot = w[..., 0]
        motion = [torch.zeros_like(qdot), self.D(qdot), qdot][: w.shape[-1]]
        along = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)[0].expand_as(w)
        directions = torch.stack([along, torch.stack(motion, dim=-1)], dim=-2)
        g, H = self.density.second_order(w.flatten(1, 2), directions.flatten(1, 2))
        g, H = g.view_as(w), H.view(*w.shape[:3], 2, 2)
        force = -self.D(g[..., 1]) - H[..., 0, 1]
        if self.sees_field:
            force = force + g[..., 2]
        result = force / (1 + H[..., 0, 0])
        if check and not bool(result.isfinite().all()):
            s, b, j = (~result.isfinite()).nonzero()[0].tolist()
            raise SingularHessianError(
                f"member {s}, state {b}, site {j}: d2l/dudot2 is zero, or the state is not finite, "
                f"at (udot, u', ...) = {w[s, b, j].tolist()}; lower the learning rate, or keep away"
                " from this state"
            )
        return result

    def rhs(self, y: Float[Tensor, "S B two_n"]) -> Float[Tensor, "S B two_n"]:
        """The first-order form of y = (u, udot), for `companion.integrators`; unchecked."""
        q, qdot = y.chunk(2, dim=-1)
        return torch.cat([qdot, self.acceleration(q, qdot, check=False)], dim=-1)

    # Housekeeping ------------------------------------------------------------------------------

    @torch.no_grad()
    def standardise(self, q: States, qdot: States) -> None:
        """Centres and scales what the density sees, by its mean and spread over these states."""
        self.density.standardise(self._sites(q, qdot).flatten(1, 2))

    def member(self, s: int) -> "LagrangianDensity":
        """Member `s` as an ensemble of one, parameters copied. IndexError if there is none."""
        if not 0 <= s < self.S:
            raise IndexError(f"member {s} of an ensemble of {self.S}: expected 0..{self.S - 1}")
        one = copy.deepcopy(self)
        one.seeds = (self.seeds[s],)
        one.density.keep(s)
        return one

    def _sites(self, q: Tensor, qdot: Tensor) -> Tensor:
        """What the density sees at every site, (udot, u', u) or (udot, u'): `(S, B, n, 3 or 2)`."""
        like = self.density.output
        if q.shape != qdot.shape or q.dim() not in (2, 3) or q.shape[-1] < 3:
            raise ValueError(
                "q and qdot must both be (B, n) or (S, B, n) with n >= 3 sites, got "
                f"{tuple(q.shape)} and {tuple(qdot.shape)}; add a batch axis with q[None]"
            )
        q, qdot = expanded(q, qdot, like, self.S, "n")
        return torch.stack([qdot, self.D(q), q][: 3 if self.sees_field else 2], dim=-1)
