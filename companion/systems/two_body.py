"""Two bodies in the plane: the first system of the paper on symmetry control networks."""

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion.systems.base import Parameter, Real
from companion.systems.planar_bodies import PlanarBodies


class TwoBody(PlanarBodies):
    r"""The two-body problem, eq. (10) of Syvaeri et al. (2021).

    .. math:: H = \frac{|p_1|^2}{2 m_1} + \frac{|p_2|^2}{2 m_2} - \frac{g}{|q_1 - q_2|}

    The charges are ``P_x``, ``P_y`` and ``L``, the angular momentum about the centre of mass (see
    :class:`~companion.systems.planar_bodies.PlanarBodies`). The paper's eq. (11) is
    :math:`-2 L` if the masses are equal; for other masses it is not conserved. Coordinates
    :math:`x_1, y_1, x_2, y_2`. Dimensionless; the paper sets all parameters to 1.

    Args:
        m1, m2: masses.
        g: strength of the attraction.

    Raises:
        ValueError: a parameter is not positive.
    """

    def __init__(self, m1: Real = 1.0, m2: Real = 1.0, g: Real = 1.0) -> None:
        mass_1, mass_2, strength = sympy.symbols("m_1 m_2 g", positive=True)
        super().__init__(
            name="two-body",
            masses=[mass_1, mass_2],
            strength=strength,
            parameters={
                mass_1: Parameter(m1, "1", "mass of the first body"),
                mass_2: Parameter(m2, "1", "mass of the second body"),
                strength: Parameter(g, "1", "strength of the attraction"),
            },
        )

    def sample_phase(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n 8"]:
        r"""n near-circular motions, appendix B.1 and eq. (26).

        :math:`q_1` is uniform in the box :math:`[0.5, 1.5]^2`, :math:`q_2 = -q_1`,
        :math:`p_1 = (1 + \epsilon)\, p_{circ} + p_{com}` and :math:`p_2 = -p_1 + 2 p_{com}` with
        normal :math:`\epsilon` (spread 0.05) and :math:`p_{com}` (0.1 a component).
        :math:`p_{circ}` is that of a circular orbit, counterclockwise for every sample, as in the
        program of Greydanus et al. (2019) that the paper builds on. If the masses differ, the drift
        :math:`2 p_{com}` is shared in their proportion, so that it moves the whole system.
        """
        return self._polygon(n, 1, generator, dtype)
