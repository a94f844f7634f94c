"""A pendulum that hangs from a pendulum: chaos, and only the energy to hold on to."""

import math

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion.systems.base import Parameter, PhaseSpaceSystem, Real


class DoublePendulum(PhaseSpaceSystem):
    r"""Two equal masses on two equal rods without mass, in the plane.

    .. math:: L = m l^2 \left( \dot\theta_1^2 + \tfrac12 \dot\theta_2^2
              + \dot\theta_1 \dot\theta_2 \cos(\theta_1 - \theta_2) \right)
              + m g l\, (2 \cos\theta_1 + \cos\theta_2)

    .. math:: H = \frac{p_1^2 + 2 p_2^2 - 2 p_1 p_2 \cos(\theta_1 - \theta_2)}
              {2 m l^2\, (1 + \sin^2(\theta_1 - \theta_2))}
              - m g l\, (2 \cos\theta_1 + \cos\theta_2)

    Both angles are measured from the downward vertical. The momenta are the canonical ones, not
    :math:`m l^2 \dot\theta_i`. Only the energy is conserved. Syvaeri et al. (2021) test on this
    system (section 3.2.4) without printing its Hamiltonian or parameters; 1 is assumed for all.
    Dimensionless.

    Args:
        m: mass of each bob.
        l: length of each rod.
        g: gravitational acceleration.

    Raises:
        ValueError: a parameter is not positive.
    """

    def __init__(self, m: Real = 1.0, l: Real = 1.0, g: Real = 1.0) -> None:  # noqa: E741
        coordinates = symbolic.coordinates("theta_1 theta_2")
        (one, two), (v_1, v_2), _ = coordinates
        mass, length, gravity = sympy.symbols("m l g", positive=True)
        kinetic = v_1**2 + v_2**2 / 2 + v_1 * v_2 * sympy.cos(one - two)
        height = -2 * sympy.cos(one) - sympy.cos(two)
        super().__init__(
            name="double-pendulum",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass of each bob"),
                length: Parameter(l, "1", "length of each rod"),
                gravity: Parameter(g, "1", "gravitational acceleration"),
            },
            lagrangian=mass * length**2 * kinetic - mass * gravity * length * height,
        )
        self.m, self.l, self.g = m, l, g

    def sample_phase(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n 4"]:
        r"""n states at rest, appendix B.6: angles uniform in :math:`(0, 2\pi)`, momenta zero.

        Along a motion the angles are not brought back to this interval.
        """
        options = {"generator": generator, "dtype": dtype, "device": generator.device}
        angles = 2 * math.pi * torch.rand(n, 2, **options)
        return torch.cat([angles, torch.zeros_like(angles)], dim=-1)
