r"""Argon atoms with the Lennard-Jones potential, and the Axilrod-Teller term of three atoms.

Units: angstrom, electronvolt, femtosecond, and the unified atomic mass unit u. Equation numbers
refer to P.-W. Ma and T.-H. H. Chan, *A feedforward unitary equivariant neural network* (2022).
"""

import math
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import NamedTuple

import sympy
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from companion import integrators
from companion.neighbours import NeighbourList, minimum_image, triangles
from companion.systems import _clusters
from companion.systems._potentials import (
    ACCELERATION,
    EPSILON,
    KB,
    MASS,
    NU,
    R_0,
    Terms,
    axilrod_teller,
    compiled,
    lennard_jones,
    smoothly_cut,
)

__all__ = ["ACCELERATION", "EPSILON", "KB", "MASS", "NU", "R_0", "Argon", "Path", "relative"]

Forces = Callable[[Tensor], Tensor]


class Path(NamedTuple):
    """A trajectory: times (T,) in fs, positions and velocities (T, ..., N, 3)."""

    t: Tensor
    r: Tensor
    v: Tensor


class Argon:
    r"""N argon atoms.

    .. math:: U = \sum_{i<j} 4\epsilon \left[\left(\frac{r_0}{r_{ij}}\right)^{12}
              - \left(\frac{r_0}{r_{ij}}\right)^6\right] + \sum_{i<j<k} \nu\,
              \frac{1 + 3 \cos\alpha \cos\beta \cos\gamma}{(r_{ij} r_{jk} r_{ki})^3}

    eqs. (37) and (38); the second sum, of Axilrod and Teller (1943), is over triangles with the
    inner angles :math:`\alpha, \beta, \gamma` and is no sum over pairs. Both are written once, as
    the sympy expressions :attr:`pair` of the distance ``r`` and :attr:`triple` of the three sides
    ``a, b, c``; the forces (39) are compiled from their derivatives.

    With a cutoff each distance :math:`r` carries the factor :math:`(1 - t)^2 (1 + 2 t)`, where t
    goes from 0 to 1 as :math:`r^2` goes from :math:`r_{on}^2` to :math:`r_c^2` and
    :math:`r_{on} = 0.66\, r_c`: energy and force are continuous and end at zero, so nothing is
    shifted. It is the factor of ASE's ``LennardJones(smooth=True)``. Pairs then come from a
    neighbour list, one cluster at a time.

    Args:
        N: number of atoms.
        nu: Axilrod-Teller strength in eV angstrom^9, :data:`NU` for argon; 0 leaves pairs only.
        cutoff: :math:`r_c` in angstrom, or None for all pairs.
        box: side of a periodic cube in angstrom, or None for free space.

    Raises:
        ValueError: N < 2, nu is not finite, a cutoff below the potential's minimum, a box without
            cutoff or too small for it (two cutoffs; three with nu, so that no triangle winds around
            the box).
    """

    def __init__(
        self,
        N: int = 4,
        nu: float | int = 0.0,
        cutoff: float | int | None = None,
        box: float | int | None = None,
    ) -> None:
        if not isinstance(N, int) or N < 2:
            raise ValueError(f"N: got {N!r}, expected a whole number of atoms, two or more")
        if not math.isfinite(nu):
            raise ValueError(f"nu: got {nu}, expected a finite number in eV angstrom^9 (NU, or 0)")
        _check_lengths(cutoff, box, images=3 if nu else 2)
        self.N, self.nu, self.cutoff, self.box = N, float(nu), cutoff, box
        self.r = sympy.Symbol("r", positive=True)
        self.sides = a, b, c = sympy.symbols("a b c", positive=True)
        self.pair = smoothly_cut(lennard_jones(self.r), [self.r], cutoff)
        self.triple = smoothly_cut(axilrod_teller(a, b, c, nu), [a, b, c], cutoff)
        self._list = None if cutoff is None else NeighbourList(cutoff, box=box)

    def __repr__(self) -> str:
        return f"Argon(N={self.N}, nu={self.nu:g}, cutoff={self.cutoff}, box={self.box})"

    # Energy and forces ----------------------------------------------------------------------------

    @cached_property
    def _pair(self) -> Terms:
        return compiled(self.pair, (self.r,))

    @cached_property
    def _triple(self) -> Terms:
        return compiled(self.triple, self.sides)

    def _neighbours(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Pairs (P, 2) and, where three bodies count, triangles (T, 3)."""
        if self._list is None:
            return _everyone(self.N, self.nu != 0, r.device)
        pairs = self._list(r)
        return pairs, triangles(pairs) if self.nu else pairs.new_empty(0, 3)

    def _check(self, r: Tensor) -> None:
        _expect_atoms("r", r, self.N)
        if self.cutoff is not None and r.ndim != 2:
            raise ValueError(
                f"r: got shape {tuple(r.shape)}; with a cutoff each cluster has its own "
                f"neighbours, so give one at a time, shape ({self.N}, 3), or leave the cutoff away"
            )

    def _distances(self, r: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pairs (P, 2), triangles (T, 3), vectors (..., P, 3) and their squares (..., P)."""
        self._check(r)
        pairs, corners = self._neighbours(r)
        d = r.index_select(-2, pairs[:, 1]) - r.index_select(-2, pairs[:, 0])
        if self.box is not None:
            d = minimum_image(d, self.box)
        s = d.square().sum(-1)
        _refuse_coincident(s, pairs)
        return pairs, corners, d, s

    def energy(self, r: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The potential energy in eV, shape (...), of positions (..., N, 3), eq. (38).

        Raises ValueError for a wrong shape, coinciding atoms, or a batch where there is a cutoff.
        """
        _, corners, _, s = self._distances(r)
        U = self._pair.energy(s).sum(-1)
        if len(corners):
            U = U + self._triple.energy(*(s.index_select(-1, k) for k in corners.T)).sum(-1)
        return U

    def forces(self, r: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The forces in eV/angstrom, (..., N, 3), eq. (39), in closed form; as `energy` raises."""
        pairs, corners, d, s = self._distances(r)
        slope = self._pair.slopes(s)[..., 0]
        if len(corners):
            sides = self._triple.slopes(*(s.index_select(-1, k) for k in corners.T))
            slope = slope.index_add(-1, corners.flatten(), sides.flatten(-2))
        pull = slope[..., None] * d  # on the first atom of a pair, towards the second if positive
        return (
            torch.zeros_like(r)
            .index_add(-2, pairs[:, 0], pull)
            .index_add(-2, pairs[:, 1], pull, alpha=-1)
        )

    # States ---------------------------------------------------------------------------------------

    @property
    def start(self) -> Float[Tensor, "N 3"]:
        """Where a simulation begins, float64.

        N = 4 in free space: the paper's four positions (section 4.3). Otherwise the N points of a
        face-centred cubic lattice nearest to a hole of it, neighbours at the potential's minimum;
        in a box, the lattice that fills it.
        """
        return _clusters.start(self.N, 2 ** (1 / 6) * R_0, self.box)

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        sd: float | int = 3.0,
        r_min: float | int = 2.8,
    ) -> Float[Tensor, "n N 3"]:
        """n random configurations, float64, no two atoms closer than `r_min` (section 4.1).

        For N <= 4 every coordinate is normal with spread `sd` and a configuration with a close pair
        is discarded whole, as in the paper. That accepts ever fewer as N grows, so larger clusters
        are filled atom by atom, drawing again the atom that comes too close, with the spread
        sd (N/4)^(1/3): the same density for every N. In a box the atoms are uniform instead.

        Raises ValueError if n, sd or r_min is not positive or no room is found.
        """
        return _clusters.sample(n, self.N, generator, sd, r_min, self.box)

    def velocities(
        self, n: int, temperature: float | int, generator: torch.Generator
    ) -> Float[Tensor, "n N 3"]:
        """n sets of velocities in angstrom/fs, float64: normal, the centre of mass brought to rest,
        then scaled to a kinetic energy of exactly (3/2) N k T. Raises ValueError for T < 0."""
        if not 0 <= temperature < math.inf:
            raise ValueError(
                f"temperature: got {temperature}, expected a number of kelvin, zero or more"
            )
        v = torch.randn(
            n, self.N, 3, generator=generator, dtype=torch.float64, device=generator.device
        )
        v = v - v.mean(-2, keepdim=True)
        return v * (temperature / self.temperature(v)).sqrt()[:, None, None]

    def kinetic(self, v: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The kinetic energy in eV of velocities (..., N, 3) in angstrom/fs."""
        _expect_atoms("v", v, self.N)
        return (0.5 * MASS / ACCELERATION) * v.square().sum((-2, -1))

    def temperature(self, v: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The temperature in kelvin at which (3/2) N k T is the kinetic energy."""
        return self.kinetic(v) / (1.5 * self.N * KB)

    def total_energy(
        self, r: Shaped[Tensor, "..."], v: Shaped[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """Kinetic and potential energy in eV, eq. (46)."""
        return self.kinetic(v) + self.energy(r)

    def momentum(self, v: Shaped[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The total momentum (..., 3) in u angstrom/fs."""
        _expect_atoms("v", v, self.N)
        return MASS * v.sum(-2)

    def angular_momentum(
        self, r: Shaped[Tensor, "..."], v: Shaped[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """The total angular momentum (..., 3) about the origin in u angstrom^2/fs."""
        _expect_atoms("r", r, self.N)
        _expect_atoms("v", v, self.N)
        return MASS * torch.linalg.cross(r, v).sum(-2)

    # Motion ---------------------------------------------------------------------------------------

    def rollout(
        self,
        forces: Forces,
        r: Shaped[Tensor, "..."],
        v: Shaped[Tensor, "..."],
        dt: float | int = 1.0,
        steps: int = 4000,
        every: int = 1,
        progress: bool = False,
    ) -> Path:
        """Newton's equations (43)-(45) by velocity Verlet, `steps` steps of `dt` fs.

        Args:
            forces: positions -> forces in eV/angstrom, true or learned. If it returns an ensemble,
                (S, ..., N, 3) for (..., N, 3), every member runs its own copy of the trajectories.
            r, v: the start, (..., N, 3) in angstrom and angstrom/fs.
            every: keep every so many steps.

        Returns:
            The :class:`Path`, the start first; T = 1 + steps // every. No gradients are kept.

        Raises:
            ValueError: wrong shapes, or `forces` returns another shape than it got.
        """
        _expect_atoms("r", r, self.N)
        _expect_atoms("v", v, self.N)
        with torch.no_grad():
            F = forces(r)
            if F.shape[F.ndim - r.ndim :] != r.shape:
                raise ValueError(
                    f"forces: returned shape {tuple(F.shape)} for positions {tuple(r.shape)}; "
                    "expected the same shape, or it after an axis for the members of an ensemble"
                )
            r, v = r.expand(F.shape), v.expand(F.shape)

            def acceleration(q: Tensor, _: Tensor) -> Tensor:
                return (ACCELERATION / MASS) * forces(q.unflatten(-1, (self.N, 3))).flatten(-2)

            y = integrators.solve(
                integrators.first_order(acceleration),
                torch.cat((r.flatten(-2), v.flatten(-2)), -1),
                dt,
                steps,
                method="velocity_verlet",
                every=every,
                progress=progress,
            )
        t = dt * every * torch.arange(len(y), dtype=r.dtype, device=r.device)
        q, qdot = y.chunk(2, -1)
        return Path(t, q.unflatten(-1, (self.N, 3)), qdot.unflatten(-1, (self.N, 3)))


def relative(r: Float[Tensor, "*batch N 3"]) -> Float[Tensor, "*batch 3 P"]:
    r"""The network's input, eq. (40): columns :math:`r_{12}, r_{13}, \dots, r_{N-1,N}`, where
    :math:`r_{ij} = r_j - r_i`; P = N (N - 1) / 2."""
    i, j = torch.triu_indices(r.shape[-2], r.shape[-2], 1, device=r.device)
    return (r[..., j, :] - r[..., i, :]).mT


@lru_cache(maxsize=64)
def _everyone(N: int, three: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """All pairs of N atoms and, if wanted, all triangles."""
    pairs = torch.triu_indices(N, N, 1, device=device).T.contiguous()
    return pairs, triangles(pairs) if three else pairs.new_empty(0, 3)


def _expect_atoms(name: str, x: Tensor, N: int) -> None:
    if x.ndim < 2 or tuple(x.shape[-2:]) != (N, 3) or not x.is_floating_point():
        raise ValueError(
            f"{name}: got {x.dtype} of shape {tuple(x.shape)}, expected a float tensor "
            f"(..., {N}, 3) for {N} atoms; another number of atoms needs another Argon(N=...)"
        )


def _refuse_coincident(s: Tensor, pairs: Int[Tensor, "P 2"]) -> None:
    if s.numel() and s.amin().item() == 0:
        *where, pair = (s == 0).nonzero()[0].tolist()
        i, j = pairs[pair].tolist()
        which = f" of configuration {tuple(where)}" if where else ""
        raise ValueError(
            f"r: atoms {i} and {j}{which} are at the same place, where the force is infinite; "
            "drop that configuration, or keep a least distance as Argon.sample does"
        )


def _check_lengths(cutoff, box, images: int) -> None:
    least = 2 ** (1 / 6) * R_0
    if cutoff is not None and not least < cutoff < math.inf:
        raise ValueError(
            f"cutoff: got {cutoff}, expected angstrom, more than {least:.2f} (the distance of two "
            "atoms at rest), usually 2.5 r_0 = 8.5; if it is in nm, multiply by 10"
        )
    if box is not None and cutoff is None:
        raise ValueError(
            f"box: got {box} without a cutoff; a periodic box needs one, at most box / {images}"
        )
    if box is not None and cutoff is not None and not images * cutoff <= box < math.inf:
        raise ValueError(
            f"box: got {box}, expected angstrom, at least {images} cutoffs = "
            f"{images * cutoff:g}, so that an atom meets one image only; is it in nm? Then "
            "multiply by 10. Else take a larger box or a smaller cutoff"
        )
