"""Any attraction towards a centre: what Noether's theorem needs to know, and nothing more."""

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, symbolic
from companion.systems.base import Parameter, Real, System

POTENTIALS = ("yukawa", "harmonic")


class CentralForce(System):
    r"""A particle in a potential that depends on the distance alone.

    .. math:: L = \frac{m}{2} \dot q^2 - V(|q|)

    SO(3) gives the angular momentum whatever V is: :attr:`generic_lagrangian` leaves V undefined,
    for proofs. :attr:`lagrangian` puts in one of

    .. math:: V(r) = -\frac{k}{r} e^{-r/\lambda} \quad\text{(yukawa)}, \qquad
              V(r) = \frac{k}{2} \frac{r^2}{\lambda^2} \quad\text{(harmonic)}.

    Dimensionless.

    Args:
        potential: "yukawa" or "harmonic".
        m: mass.
        k: strength of the potential.
        length: its range :math:`\lambda`.

    Raises:
        ValueError: an unknown potential, or a parameter that is not positive.
    """

    def __init__(
        self, potential: str = "yukawa", m: Real = 1.0, k: Real = 1.0, length: Real = 2.0
    ) -> None:
        if potential not in POTENTIALS:
            raise ValueError(f"potential: got {potential!r}, expected one of {POTENTIALS}")
        coordinates = symbolic.coordinates("x y z")
        q, qdot, _ = coordinates
        mass, strength, scale = sympy.symbols("m k lambda", positive=True)
        r = sympy.sqrt(sum(x**2 for x in q))
        kinetic = mass / 2 * sum(v**2 for v in qdot)
        V = {
            "yukawa": -strength / r * sympy.exp(-r / scale),
            "harmonic": strength / 2 * sum(x**2 for x in q) / scale**2,
        }
        super().__init__(
            name="central-force",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass"),
                strength: Parameter(k, "1", "strength of the potential"),
                scale: Parameter(length, "1", "range of the potential"),
            },
            lagrangian=kinetic - V[potential],
            symmetries=groups.rotation_symmetries(q, 3),
        )
        self.potential = potential
        self.generic_lagrangian = kinetic - sympy.Function("V")(r)
        """The Lagrangian for an undefined function V(r)."""

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """At (1, 0, 0), moving across at speed 0.6: a bound rosette in either potential."""
        return (
            torch.tensor([1.0, 0.0, 0.0], dtype=dtype),
            torch.tensor([0.0, 0.6, 0.0], dtype=dtype),
        )

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """n turned states like :meth:`initial`: r uniform in (0.8, 1.2), speed in (0.5, 0.7)."""
        turn = groups.SO(3).sample(n, generator=generator, dtype=dtype)
        u = torch.rand(n, 2, 1, generator=generator, dtype=dtype, device=generator.device)
        return turn[..., 0] * (0.8 + 0.4 * u[:, 0]), turn[..., 1] * (0.5 + 0.2 * u[:, 1])
