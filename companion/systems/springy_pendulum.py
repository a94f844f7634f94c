"""Two masses on two springs, one hanging from the other: the system of Yao et al. (2021)."""

from collections.abc import Sequence

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion.systems.base import Parameter, Real, System, normal_states

Vector = Sequence[Real]


class SpringyPendulum(System):
    r"""The springy double pendulum, eqs. (3) and (4) of Yao et al. (2021).

    .. math:: L = \tfrac{m_1}{2}|\dot q_1|^2 + \tfrac{m_2}{2}|\dot q_2|^2
              - \tfrac{k_1}{2}(|q_1 - q_o| - l_1)^2 - \tfrac{k_2}{2}(|q_2 - q_1| - l_2)^2
              + m_1\, g\cdot(q_1 - q_o) + m_2\, g\cdot(q_2 - q_o)

    Every constant is 1 but :math:`k_2 = 2`: the program behind the paper, and the one that it took
    the system from, leave out the factor 1/2 of the second spring. Set ``k2=1`` for the paper's
    words. Dimensionless.

    Turning about the line through the pivot along :math:`g` is a symmetry; its charge
    :math:`L_\perp` is eq. (12). Turning everything, :math:`q_o` and :math:`g` included, is a change
    of coordinates: it relates two pendulums.

    Coordinates: :math:`x_1, y_1, z_1` of the first mass, :math:`x_2, y_2, z_2` of the second.

    Args:
        g: gravitational acceleration, three components, not all zero.
        pivot: the point :math:`q_o`.
        m1, m2: masses.
        k1, k2: spring constants.
        l1, l2: natural lengths.

    Raises:
        ValueError: g is zero, g or pivot has not three components, or another parameter is not
            positive (lengths: negative).
    """

    def __init__(
        self,
        g: Vector = (0.0, 0.0, -1.0),
        pivot: Vector = (0.0, 0.0, 0.0),
        m1: Real = 1.0,
        m2: Real = 1.0,
        k1: Real = 1.0,
        k2: Real = 2.0,
        l1: Real = 1.0,
        l2: Real = 1.0,
    ) -> None:
        for name, vector in (("g", g), ("pivot", pivot)):
            if len(vector) != 3:
                raise ValueError(f"{name}: got {vector}, expected three components")
        if not any(g):
            raise ValueError("g: got zero, expected a vector: without gravity nothing hangs")
        coordinates = symbolic.coordinates("x_1 y_1 z_1 x_2 y_2 z_2")
        q, qdot, _ = coordinates
        constants = sympy.symbols("m_1 m_2 k_1 k_2", positive=True)
        mass_1, mass_2, stiff_1, stiff_2 = constants
        length_1, length_2 = sympy.symbols("l_1 l_2", nonnegative=True)
        gravity = sympy.symbols("g_x g_y g_z", real=True)
        origin = sympy.symbols("o_x o_y o_z", real=True)
        o, down = sympy.Matrix(origin), sympy.Matrix(gravity)
        q_1, q_2 = sympy.Matrix(q[:3]), sympy.Matrix(q[3:])
        kinetic = mass_1 / 2 * sum(v**2 for v in qdot[:3]) + mass_2 / 2 * sum(
            v**2 for v in qdot[3:]
        )
        springs = (
            stiff_1 / 2 * (_length(q_1 - o) - length_1) ** 2
            + stiff_2 / 2 * (_length(q_2 - q_1) - length_2) ** 2
        )
        weight = -mass_1 * down.dot(q_1 - o) - mass_2 * down.dot(q_2 - o)
        axis = down / _length(down)
        turn = [*axis.cross(q_1 - o), *axis.cross(q_2 - o)]
        values = [m1, m2, k1, k2, l1, l2, *g, *pivot]
        meanings = [
            "mass of the first body",
            "mass of the second body",
            "spring constant of the first spring",
            "spring constant of the second spring",
            "natural length of the first spring",
            "natural length of the second spring",
            *(f"gravity along {axis}" for axis in "xyz"),
            *(f"pivot, coordinate {axis}" for axis in "xyz"),
        ]
        symbols = [*constants, length_1, length_2, *gravity, *origin]
        super().__init__(
            name="springy-pendulum",
            coordinates=coordinates,
            parameters={
                symbol: Parameter(value, "1", meaning)
                for symbol, value, meaning in zip(symbols, values, meanings, strict=True)
            },
            lagrangian=kinetic - springs - weight,
            symmetries={"L_perp": turn},
        )
        self.m1, self.m2 = m1, m2

    @property
    def given(self) -> Float[Tensor, "2 3"]:
        """The pivot and gravity, the vectors that the model is told, in float64."""
        values = [float(parameter.value) for parameter in self.parameters.values()]
        return torch.tensor([values[9:], values[6:9]], dtype=torch.float64)

    def masses(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, " 6"]:
        """The mass that belongs to each coordinate, so that p = masses * qdot."""
        return torch.tensor([self.m1] * 3 + [self.m2] * 3, dtype=dtype)

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " 6"], Float[Tensor, " 6"]]:
        """The middle of `sample`, pushed aside: the pendulum of the chapter's figures."""
        q, qdot = self.sample(1, torch.Generator().manual_seed(5), dtype)
        return q[0], qdot[0]

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n 6"], Float[Tensor, "n 6"]]:
        """n states near the vertical, as in the paper's program.

        The masses are 1.5 and 3 below the pivot, along g, each coordinate with a spread of 0.2,
        each momentum with one of 0.4.
        """
        pivot, g = self.given.to(device=generator.device, dtype=dtype)
        down = g / g.norm()
        middle = torch.cat([pivot + 1.5 * down, pivot + 3 * down])
        q, p = normal_states(n, 6, generator, dtype)
        return middle + 0.2 * q, 0.4 * p / self.masses(dtype).to(q.device)


def _length(x: sympy.MatrixBase) -> sympy.Expr:
    return sympy.sqrt(x.dot(x))
