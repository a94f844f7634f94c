"""A planet: one particle in the potential -alpha/r. The paper's first system."""

import math

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, symbolic
from companion.systems.base import Parameter, Real, System


class Kepler(System):
    r"""Motion in a Newtonian gravitational potential, eq. (13) of Müller (2023).

    .. math:: L = \frac{m}{2} \dot q^2 + \frac{\alpha}{|q|}, \qquad q = (x, y, z)

    The symmetry is SO(3); its charges are the angular momentum
    :math:`(L_x, L_y, L_z) = m\, q \times \dot q` of eqs. (7) and (15). Bound orbits are ellipses
    with the origin in one focus; the book's orbit lies in the x-y plane with its pericentre on the
    positive x axis:

    .. math:: r(\varphi) = \frac{p}{1 + \varepsilon \cos\varphi}, \quad
              p = \frac{L_z^2}{m \alpha}, \quad \dot\varphi = \frac{L_z}{m r^2}

    All quantities are dimensionless, as in section 3.1.1 of the paper.

    Args:
        m: mass of the particle.
        alpha: strength of the attraction.
        eccentricity: of the orbit, 0 <= eccentricity < 1.
        L_z: angular momentum of the orbit, positive (counter-clockwise).

    Raises:
        ValueError: a parameter is out of its range.
    """

    def __init__(
        self, m: Real = 1.0, alpha: Real = 1.0, eccentricity: Real = 0.8, L_z: Real = 1.0
    ) -> None:
        coordinates = symbolic.coordinates("x y z")
        q, qdot, _ = coordinates
        mass, strength = sympy.symbols("m alpha", positive=True)
        epsilon = sympy.Symbol("varepsilon", nonnegative=True)
        momentum = sympy.Symbol("L_z", positive=True)
        radius = sympy.sqrt(sum(x**2 for x in q))
        super().__init__(
            name="kepler",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass"),
                strength: Parameter(alpha, "1", "strength of the attraction"),
                epsilon: Parameter(eccentricity, "1", "eccentricity of the orbit"),
                momentum: Parameter(L_z, "1", "angular momentum of the orbit"),
            },
            lagrangian=mass / 2 * sum(v**2 for v in qdot) + strength / radius,
            symmetries=groups.rotation_symmetries(q, 3),
        )
        if eccentricity >= 1:
            raise ValueError(
                f"eccentricity: got {eccentricity}, expected 0 <= eccentricity < 1 (an ellipse)"
            )
        self.m, self.alpha, self.eccentricity, self.L_z = m, alpha, eccentricity, L_z
        # The ellipse in sympy: the azimuth turns at the rate phidot, and d/dt is the chain rule.
        self.phi = sympy.Symbol("varphi", real=True)
        r = momentum**2 / (mass * strength) / (1 + epsilon * sympy.cos(self.phi))
        phidot = momentum / (mass * r**2)
        self.orbit_expressions = [r * sympy.cos(self.phi), r * sympy.sin(self.phi), sympy.S.Zero]
        self.orbit_velocity_expressions = [
            sympy.simplify(x.diff(self.phi) * phidot) for x in self.orbit_expressions
        ]
        self._orbit = symbolic.to_torch(
            [self.orbit_expressions, self.orbit_velocity_expressions], [self.phi], self.values
        )

    @property
    def semi_major_axis(self) -> float:
        """Half the long axis of the ellipse."""
        return self.L_z**2 / (self.m * self.alpha) / (1 - self.eccentricity**2)

    @property
    def period(self) -> float:
        """Time of one revolution by Kepler's third law."""
        return 2 * math.pi * math.sqrt(self.m * self.semi_major_axis**3 / self.alpha)

    def orbit(
        self, phi: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]]:
        """The exact state on the ellipse at azimuth ``phi`` (radians; 0 is the pericentre)."""
        q, qdot = self._orbit(phi).unbind(-2)
        return q, qdot

    def perihelion(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """The state closest to the origin, on the positive x axis."""
        return self.orbit(torch.zeros((), dtype=dtype))

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """The pericentre, where the paper's rollouts start."""
        return self.perihelion(dtype)

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """n states on the orbit at azimuths uniform in (-pi, pi), section 3.1.1 of the paper."""
        u = torch.rand(n, generator=generator, dtype=dtype, device=generator.device)
        return self.orbit(math.pi * (2 * u - 1))
