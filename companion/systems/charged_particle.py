"""A charged particle in a uniform magnetic field: forces that depend on the velocity."""

import math

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, symbolic
from companion._algebra import entries
from companion.systems.base import Parameter, Real, System, normal_states


class ChargedParticle(System):
    r"""A particle of charge e in the field :math:`\mathbf B = (0, 0, B)`, in symmetric gauge.

    .. math:: L = \frac{m}{2} \dot q^2 + e\, \mathbf A(q) \cdot \dot q, \qquad
              \mathbf A = \frac{B}{2} (-y, x, 0)

    The potential, not the field, enters L, and it has less symmetry than the field. Rotations about
    z and translations along z leave L as it is. Translations along x and y change it by the total
    derivative of :math:`K = \pm e B y / 2`, so their charges carry a gauge term:

    .. math:: P_x = m \dot x - e B y, \quad P_y = m \dot y + e B x, \quad P_z = m \dot z, \quad
              L_z = m (x \dot y - y \dot x) + \frac{e B}{2} (x^2 + y^2)

    The first two fix the centre of the circle, :math:`(P_y, -P_x)/(eB)`. Dimensionless.

    Args:
        m: mass.
        e: charge, of either sign but not zero.
        B: strength of the field, of either sign but not zero.

    Raises:
        ValueError: m is not positive, or e or B is zero.
    """

    def __init__(self, m: Real = 1.0, e: Real = 1.0, B: Real = 1.0) -> None:
        coordinates = symbolic.coordinates("x y z")
        q, qdot, _ = coordinates
        (x, y, _), (vx, vy, _) = q, qdot
        mass = sympy.Symbol("m", positive=True)
        charge, field = sympy.symbols("e B", real=True, nonzero=True)
        half = charge * field / 2
        P_x, P_y, P_z = (entries(shift) for shift in groups.Translation(3).sympy_generators())
        super().__init__(
            name="charged-particle",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass"),
                charge: Parameter(e, "1", "electric charge"),
                field: Parameter(B, "1", "strength of the magnetic field"),
            },
            lagrangian=mass / 2 * sum(v**2 for v in qdot) + half * (x * vy - y * vx),
            symmetries={
                "P_x": P_x,
                "P_y": P_y,
                "P_z": P_z,
                "L_z": groups.rotation_symmetries(q, 3)["L_z"],
            },
            gauges={"P_x": half * y, "P_y": -half * x},
        )
        self.m, self.e, self.B = m, e, B

    @property
    def period(self) -> float:
        """Time of one turn, the same for every circle: the cyclotron period."""
        return 2 * math.pi * self.m / abs(self.e * self.B)

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """At (1, 0, 0) with velocity (0, 1, 0.1): a helix."""
        return (
            torch.tensor([1.0, 0.0, 0.0], dtype=dtype),
            torch.tensor([0.0, 1.0, 0.1], dtype=dtype),
        )

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """n states with standard normal positions and velocities."""
        return normal_states(n, 3, generator, dtype)
