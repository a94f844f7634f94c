"""Three equal bodies in the plane, which leave their circle together."""

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion.systems.base import Parameter, Real
from companion.systems.planar_bodies import PlanarBodies


class ThreeBody(PlanarBodies):
    r"""The three-body problem, eq. (12) of Syvaeri et al. (2021).

    .. math:: H = \sum_{i=1}^3 \frac{|p_i|^2}{2 m}
              - \frac12 \sum_{i=1}^3 \sum_{j \neq i} \frac{g}{|q_i - q_j|}

    The charges are ``P_x``, ``P_y`` and ``L``, the angular momentum about the centre of mass (see
    :class:`~companion.systems.planar_bodies.PlanarBodies`); the paper's eq. (13) is :math:`3 L`.
    Coordinates :math:`x_1, y_1, x_2, y_2, x_3, y_3`. Dimensionless; the paper sets m = g = 1.

    Args:
        m: mass of each body.
        g: strength of the attraction.

    Raises:
        ValueError: a parameter is not positive.
    """

    def __init__(self, m: Real = 1.0, g: Real = 1.0) -> None:
        mass, strength = sympy.symbols("m g", positive=True)
        super().__init__(
            name="three-body",
            masses=[mass, mass, mass],
            strength=strength,
            parameters={
                mass: Parameter(m, "1", "mass of each body"),
                strength: Parameter(g, "1", "strength of the attraction"),
            },
        )

    def sample_phase(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n 12"]:
        r"""n motions that start near a circle, appendix B.2 and eq. (27).

        The bodies are the corners of an equilateral triangle about the origin, the first uniform in
        the box :math:`[0.5, 1.5]^2`. Each has :math:`p_i = (1 + \epsilon_i)\, p_{circ,i} + p_{com}`
        with the momentum of the circular motion, counterclockwise, a normal :math:`p_{com}` (spread
        0.1 a component) common to all, and a normal :math:`\epsilon_i` (0.05) of its own.

        The paper does not say whether the bodies share one :math:`\epsilon`. They cannot: with one
        the triangle stays equilateral for ever (Lagrange's solution), and the sudden change of the
        motion that section 3.2.2 describes never comes.
        """
        return self._polygon(n, 3, generator, dtype)
