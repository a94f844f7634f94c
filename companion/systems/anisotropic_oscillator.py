"""A spring that is stiffer along one axis: almost, but not quite, the same in all directions."""

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion.systems.base import Parameter, Real, System, normal_states


class AnisotropicOscillator(System):
    r"""An oscillator in the plane whose symmetry under rotations is broken by a small number.

    .. math:: L = \frac{m}{2}(\dot x^2 + \dot y^2)
              - \frac{k}{2}\bigl[(1 + \varepsilon)\,x^2 + (1 - \varepsilon)\,y^2\bigr]

    For :math:`\varepsilon \neq 0` no rotation is a symmetry and there is no Noether charge but the
    energy; the angular momentum changes at the rate :math:`2 k \varepsilon x y`. The reflections of
    the axes remain. Dimensionless.

    Args:
        epsilon: the anisotropy, -1 < epsilon < 1.
        m: mass.
        k: mean stiffness of the spring.

    Raises:
        ValueError: epsilon is out of its range, or m or k is not positive.
    """

    def __init__(self, epsilon: Real = 0.1, m: Real = 1.0, k: Real = 1.0) -> None:
        coordinates = symbolic.coordinates("x y")
        (x, y), qdot, _ = coordinates
        mass, stiffness = sympy.symbols("m k", positive=True)
        anisotropy = sympy.Symbol("varepsilon", real=True)
        kinetic = mass / 2 * sum(v**2 for v in qdot)
        super().__init__(
            name="anisotropic-oscillator",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass"),
                stiffness: Parameter(k, "1", "mean stiffness of the spring"),
                anisotropy: Parameter(epsilon, "1", "anisotropy of the spring"),
            },
            lagrangian=kinetic
            - stiffness / 2 * ((1 + anisotropy) * x**2 + (1 - anisotropy) * y**2),
        )
        if not -1 < epsilon < 1:
            raise ValueError(
                f"epsilon: got {epsilon}, expected -1 < epsilon < 1 (both springs pull back)"
            )
        self.epsilon, self.m, self.k = epsilon, m, k

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]]:
        """At (1, 0), moving across at speed 1: a circle, if the spring were round."""
        return torch.tensor([1.0, 0.0], dtype=dtype), torch.tensor([0.0, 1.0], dtype=dtype)

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
        """n states with standard normal positions and velocities: no direction is preferred."""
        return normal_states(n, 2, generator, dtype)
