"""A mass on a spring, in any number of dimensions."""

import math

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, symbolic
from companion.systems.base import Parameter, Real, System, axis_names, normal_states


class HarmonicOscillator(System):
    r"""The isotropic harmonic oscillator in d dimensions.

    .. math:: L = \frac{m}{2} \dot q^2 - \frac{k}{2} q^2

    Rotations give the angular momentum; in one dimension only the energy is left. Dimensionless.

    Args:
        d: dimension of space.
        m: mass.
        k: stiffness of the spring.

    Raises:
        ValueError: d is not a whole number >= 1, or m or k is not positive.
    """

    def __init__(self, d: int = 1, m: Real = 1.0, k: Real = 1.0) -> None:
        groups.SO(d)  # refuses a bad d
        coordinates = symbolic.coordinates(" ".join(axis_names(d)))
        q, qdot, _ = coordinates
        mass, stiffness = sympy.symbols("m k", positive=True)
        kinetic = mass / 2 * sum(v**2 for v in qdot)
        super().__init__(
            name="harmonic-oscillator",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass"),
                stiffness: Parameter(k, "1", "stiffness of the spring"),
            },
            lagrangian=kinetic - stiffness / 2 * sum(x**2 for x in q),
            symmetries=groups.rotation_symmetries(q, d),
        )
        self.m, self.k = m, k

    @property
    def period(self) -> float:
        """Time of one oscillation, whatever its amplitude."""
        return 2 * math.pi * math.sqrt(self.m / self.k)

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """At rest, at 1 on the first axis."""
        eye = torch.eye(self.d, dtype=dtype)
        return eye[0], torch.zeros(self.d, dtype=dtype)

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """n states with standard normal positions and velocities."""
        return normal_states(n, self.d, generator, dtype)
