"""A bob over the plane: the paper's spherical pendulum, with the kinetic energy of the plane."""

import math

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion.systems.base import Parameter, PhaseSpaceSystem, Real


class SphericalPendulum(PhaseSpaceSystem):
    r"""The spherical pendulum of Syvaeri et al. (2021), eq. (19).

    .. math:: H = \frac{p_x^2 + p_y^2}{2m} - m g \sqrt{l^2 - x^2 - y^2}

    The potential energy is that of a bob on a sphere of radius l, written in its horizontal
    coordinates. The kinetic energy is not: a true pendulum's has the vertical velocity in it as
    well, and the two agree for small swings only. This class is the paper's system. Rotations give

    .. math:: L = x\, p_y - y\, p_x, \qquad (20)

    positive counterclockwise. Where the energy is negative, it keeps the bob below the equator:
    :math:`m g \sqrt{l^2 - x^2 - y^2} \geq -H > 0`. Near H = 0 the bob comes close to the equator,
    where the force grows without bound, and needs short time steps.

    Coordinates x, y. Dimensionless. The mass is printed as 2, its bar lost: the fit of eq. (22)
    shows :math:`1/(2m) = 1`.

    Args:
        m: mass.
        g: gravitational acceleration.
        l: length of the pendulum.
        margin: `sample_phase` draws energies below -margin m g l, so that no bob comes nearer to
            the plane of the equator than margin l; 0 in the paper.

    Raises:
        ValueError: a parameter is not positive, or the margin is not from 0 to 1.
    """

    def __init__(
        self,
        m: Real = 0.5,
        g: Real = 2.0,
        l: Real = 1.0,  # noqa: E741
        margin: Real = 0.0,
    ) -> None:
        if not 0 <= margin < 1:
            raise ValueError(f"margin: got {margin}, expected a number from 0 to 1, 1 excluded")
        coordinates = symbolic.coordinates("x y")
        (x, y), qdot, _ = coordinates
        mass, gravity, length = sympy.symbols("m g l", positive=True)
        potential = -mass * gravity * sympy.sqrt(length**2 - x**2 - y**2)
        super().__init__(
            name="spherical-pendulum",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass of the bob"),
                gravity: Parameter(g, "1", "gravitational acceleration"),
                length: Parameter(l, "1", "length of the pendulum"),
            },
            lagrangian=mass / 2 * sympy.Add(*(v**2 for v in qdot)) - potential,
            symmetries={"L": [-y, x]},
        )
        self.m, self.g, self.l, self.margin = m, g, l, margin

    def sample_phase(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n 4"]:
        r"""n points of appendix B.4: uniform in a box, those with negative energy.

        Coordinates lie between -l and l, momenta between :math:`\pm m \sqrt{2 g l}`, the largest
        that a negative energy allows; both are (-1, 1) for the paper's parameters. Points where
        the energy is not defined (:math:`|q| \geq l`) or not negative are drawn again: 59 %.
        So are those above the `margin`.
        """
        sides = torch.tensor([self.l, self.l, *2 * [self.m * math.sqrt(2 * self.g * self.l)]])
        options = {"dtype": dtype, "device": generator.device}
        kept = torch.empty(0, 4, **options)
        highest = -self.margin * self.m * self.g * self.l
        while len(kept) < n:
            z = sides.to(**options) * (2 * torch.rand(n, 4, generator=generator, **options) - 1)
            kept = torch.cat([kept, z[self.hamiltonian(z) < highest]])  # nan is not below it
        return kept[:n]
