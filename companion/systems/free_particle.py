"""A particle on its own: the Lagrangian with every symmetry of space."""

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, symbolic
from companion._algebra import entries
from companion.systems.base import Parameter, Real, System, axis_names, normal_states


class FreeParticle(System):
    r"""A free particle in d dimensions.

    .. math:: L = \frac{m}{2} \dot q^2

    Translations give the momentum :math:`m \dot q`, rotations the angular momentum. Dimensionless.

    Args:
        d: dimension of space.
        m: mass.

    Raises:
        ValueError: d is not a whole number >= 1, or m is not positive.
    """

    def __init__(self, d: int = 3, m: Real = 1.0) -> None:
        shifts = groups.Translation(d).sympy_generators()
        names = axis_names(d)
        coordinates = symbolic.coordinates(" ".join(names))
        q, qdot, _ = coordinates
        mass = sympy.Symbol("m", positive=True)
        momenta = [f"P_{n.removeprefix('x_')}" for n in names]
        super().__init__(
            name="free-particle",
            coordinates=coordinates,
            parameters={mass: Parameter(m, "1", "mass")},
            lagrangian=mass / 2 * sum(v**2 for v in qdot),
            symmetries=dict(zip(momenta, map(entries, shifts), strict=True))
            | groups.rotation_symmetries(q, d),
        )

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
        """At 1 on the last axis, moving along the first."""
        eye = torch.eye(self.d, dtype=dtype)
        return eye[-1], eye[0]

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """n states with standard normal positions and velocities."""
        return normal_states(n, self.d, generator, dtype)
