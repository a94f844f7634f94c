"""The plane pendulum: one angle, no symmetry but that of time."""

import math

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion.systems.base import Parameter, Real, System


class Pendulum(System):
    r"""A mass on a rigid, massless rod; :math:`\theta` is measured from the lowest point.

    .. math:: L = \frac{m l^2}{2} \dot\theta^2 + m g l \cos\theta

    It has no symmetry in space, so there is no Noether charge but the energy.

    Args:
        m: mass in kg.
        l: length of the rod in m.
        g: gravitational acceleration in m/s^2.

    Raises:
        ValueError: a parameter is not positive.
    """

    def __init__(self, m: Real = 1.0, l: Real = 1.0, g: Real = 9.81) -> None:  # noqa: E741
        coordinates = symbolic.coordinates("theta")
        (theta,), (thetadot,), _ = coordinates
        mass, length, gravity = sympy.symbols("m l g", positive=True)
        super().__init__(
            name="pendulum",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "kg", "mass"),
                length: Parameter(l, "m", "length of the rod"),
                gravity: Parameter(g, "m/s^2", "gravitational acceleration"),
            },
            lagrangian=mass * length**2 / 2 * thetadot**2
            + mass * gravity * length * sympy.cos(theta),
        )
        self.m, self.l, self.g = m, l, g

    @property
    def small_period(self) -> float:
        """Period of small oscillations, in seconds."""
        return 2 * math.pi * math.sqrt(self.l / self.g)

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " 1"], Float[Tensor, " 1"]]:
        """Let go at rest from 2 radians."""
        return torch.full((1,), 2.0, dtype=dtype), torch.zeros(1, dtype=dtype)

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
        r"""n states: angle uniform in (-pi, pi), angular velocity normal with sd sqrt(g/l)."""
        options = {"generator": generator, "dtype": dtype, "device": generator.device}
        theta = math.pi * (2 * torch.rand(n, 1, **options) - 1)
        return theta, math.sqrt(self.g / self.l) * torch.randn(n, 1, **options)
