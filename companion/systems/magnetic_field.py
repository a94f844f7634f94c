"""A charge in a magnetic field and a harmonic well: kinetic and potential energy do not part."""

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion.systems.base import Parameter, PhaseSpaceSystem, Real
from companion.systems.coupled_oscillators import rescaled


class MagneticField(PhaseSpaceSystem):
    r"""A charged particle in the plane, eq. (23) of Syvaeri et al. (2021).

    .. math:: H = \frac{(p_x + e B y)^2 + (p_y - e B x)^2}{2m} + k\, (x^2 + y^2)

    It follows from :math:`L = \frac{m}{2} |\dot q|^2 + e\, \mathbf A \cdot \dot q - k |q|^2`, where
    :math:`\mathbf A = B\,(-y, x)` is the vector potential; so :math:`p = m \dot q + e \mathbf A`.
    The curl of :math:`\mathbf A` is 2 B: the paper's B is half of the field strength, unlike that
    of :class:`ChargedParticle`. Rotations give

    .. math:: L = x\, p_y - y\, p_x, \qquad (24)

    positive counterclockwise. Coordinates x, y. Dimensionless. The mass is 1/2: the fit of
    eq. (25) shows :math:`1/(2m) = 1`.

    Args:
        m: mass.
        k: strength of the electric field, a harmonic well; there is no factor 1/2 before it.
        e: charge (the paper's q), of either sign but not zero.
        B: half of the magnetic field, of either sign but not zero.

    Raises:
        ValueError: m or k is not positive, or e or B is zero.
    """

    def __init__(self, m: Real = 0.5, k: Real = 1.0, e: Real = 1.0, B: Real = 1.0) -> None:
        coordinates = symbolic.coordinates("x y")
        (x, y), (v_x, v_y), _ = coordinates
        mass, well = sympy.symbols("m k", positive=True)
        charge, field = sympy.symbols("e B", real=True, nonzero=True)
        magnetic = charge * field * (x * v_y - y * v_x)
        super().__init__(
            name="magnetic-field",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass"),
                well: Parameter(k, "1", "strength of the electric field"),
                charge: Parameter(e, "1", "electric charge"),
                field: Parameter(B, "1", "half of the magnetic field"),
            },
            lagrangian=mass / 2 * (v_x**2 + v_y**2) + magnetic - well * (x**2 + y**2),
            symmetries={"L": [-y, x]},
        )
        self.m, self.k, self.e, self.B = m, k, e, B

    def sample_phase(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n 4"]:
        """n points of appendix B.5: a random direction, lengths uniform in (0.1, 1).

        The direction is that of a vector (q, p) with entries uniform in (-1, 1).
        """
        options = {"generator": generator, "dtype": dtype, "device": generator.device}
        return rescaled(2 * torch.rand(n, 4, **options) - 1, 0.1, 1.0, generator)
