"""Two particles that feel only each other, in D dimensions. The paper's third system."""

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, symbolic
from companion._algebra import entries
from companion.systems.base import Parameter, Real, System, normal_states


class TwoParticle(System):
    r"""Two interacting particles, eq. (22) of Müller (2023), with a double-well interaction.

    .. math:: L = \frac{m_1}{2} (\dot x^{(1)})^2 + \frac{m_2}{2} (\dot x^{(2)})^2 - V(|x^{(1)} -
              x^{(2)}|), \qquad V(r) = -\frac{\mu}{2} r^2 + \frac{\kappa}{4} r^4

    Eq. (23) of the paper prints V with the opposite sign, which is no double well but a hill that
    falls without bound; the paper's own program has the V written here, and so has this class. It
    repels at short distances and has its minimum at :math:`r = \sqrt{\mu/\kappa}`.

    Translations and rotations move both particles alike, eqs. (26) and (27). The charges are the
    momenta ``P_i`` and the angular momenta ``L_ij`` of eqs. (32) and (33),
    :math:`L^{(\rho,\sigma)} = p_\rho x_\sigma - p_\sigma x_\rho` summed over the particles; for
    D = 3 they are instead :math:`L_x, L_y, L_z` of eq. (6). Dimensionless.

    Coordinates: :math:`x_1 \dots x_D` of the first particle, :math:`y_1 \dots y_D` of the second.

    Args:
        D: dimension of space.
        m1, m2: masses.
        mu, kappa: coefficients of the potential.

    Raises:
        ValueError: D is not a whole number >= 1, or a parameter is not positive.
    """

    def __init__(
        self,
        D: int = 4,
        m1: Real = 1.0,
        m2: Real = 0.8,
        mu: Real = 1.0,
        kappa: Real = 1.0,
    ) -> None:
        if not isinstance(D, int) or D < 1:
            raise ValueError(f"D: got {D!r}, expected a whole number >= 1, the dimension of space")
        shifts = groups.Translation(D).sympy_generators()
        names = [f"{x}_{i}" for x in "xy" for i in range(1, D + 1)]
        coordinates = symbolic.coordinates(" ".join(names))
        q, qdot, _ = coordinates
        mass_1, mass_2, mu_, kappa_ = sympy.symbols("m_1 m_2 mu kappa", positive=True)
        distance2 = sum((a - b) ** 2 for a, b in zip(q[:D], q[D:], strict=True))
        kinetic = mass_1 / 2 * sum(v**2 for v in qdot[:D])
        kinetic += mass_2 / 2 * sum(v**2 for v in qdot[D:])
        super().__init__(
            name="two-particle",
            coordinates=coordinates,
            parameters={
                mass_1: Parameter(m1, "1", "mass of the first particle"),
                mass_2: Parameter(m2, "1", "mass of the second particle"),
                mu_: Parameter(mu, "1", "strength of the repulsion"),
                kappa_: Parameter(kappa, "1", "strength of the confinement"),
            },
            lagrangian=kinetic + mu_ / 2 * distance2 - kappa_ / 4 * distance2**2,
            symmetries={
                **{f"P_{i + 1}": 2 * entries(e) for i, e in enumerate(shifts)},
                **groups.rotation_symmetries(q, D),
            },
        )
        self.D, self.m1, self.m2 = D, m1, m2

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " two_D"], Float[Tensor, " two_D"]]:
        """A state without special directions and with zero total momentum, as in section 3.1.3."""
        i = torch.arange(1, self.D + 1, dtype=dtype)
        return torch.cat([i.cos(), -i.sin()]), self._opposite((2 * i).cos())

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n two_D"], Float[Tensor, "n two_D"]]:
        """n states with standard normal positions and opposite, standard normal momenta."""
        q, momentum = normal_states(n, self.d, generator, dtype)
        return q, self._opposite(momentum[..., : self.D])

    def _opposite(self, momentum: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch two_D"]:
        return torch.cat([momentum / self.m1, -momentum / self.m2], dim=-1)
