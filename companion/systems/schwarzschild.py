"""A planet of a black hole: geodesics of the Schwarzschild metric. The paper's second system."""

import math

import numpy as np
import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import groups, symbolic
from companion.systems.base import Parameter, Real, System


class Schwarzschild(System):
    r"""A massive particle around a black hole, eqs. (17) and (18) of Müller (2023).

    .. math:: L = g_{\mu\nu}(q)\, \dot q^\mu \dot q^\nu
              = -\Big(1 - \frac{r_s}{r}\Big) \dot\tau^2
              + \dot x^2 + \frac{r_s}{r - r_s} \frac{(x \cdot \dot x)^2}{r^2}, \qquad
              q = (x_1, x_2, x_3, \tau)

    in Cartesian-like coordinates: the spherical form of eq. (18) with
    :math:`r^2(\dot\theta^2 + \sin^2\theta\,\dot\varphi^2) = \dot x^2 - (x\cdot\dot x)^2/r^2`. The
    dot is the derivative by proper time; :math:`\tau`, a distant observer's time, comes last. A
    massive particle has :math:`L = -1`. L is homogeneous of degree two in the velocities, so the
    energy of the Lagrangian is L itself.

    SO(3) and the translation of :math:`\tau` give the charges

    .. math:: (L_x, L_y, L_z) = 2\, x \times \dot x, \qquad
              P_\tau = -2 \Big(1 - \frac{r_s}{r}\Big) \dot\tau .

    The factor 2 is what eq. (17), without the 1/2 of a kinetic energy, brings with it; eqs. (19)
    and (20) of the paper leave it out. Units: c = 1, lengths and times in the same unit.

    Args:
        r_s: Schwarzschild radius.

    Raises:
        ValueError: r_s is not positive.
    """

    def __init__(self, r_s: Real = 0.1) -> None:
        coordinates = symbolic.coordinates("x_1 x_2 x_3 tau")
        q, qdot, _ = coordinates
        horizon = sympy.Symbol("r_s", positive=True)
        x = sympy.Matrix(q[:3])
        r = sympy.sqrt(sum(c**2 for c in q[:3]))
        space = sympy.eye(3) + horizon / (r**2 * (r - horizon)) * x * x.T
        self.metric = sympy.diag(space, -(1 - horizon / r))
        """The metric tensor, a 4 x 4 matrix in the order (x_1, x_2, x_3, tau)."""
        v, taudot = sympy.Matrix(qdot[:3]), qdot[3]
        radial = horizon / (r - horizon) * x.dot(v) ** 2 / r**2
        turns = groups.rotation_symmetries(q[:3], 3)
        super().__init__(
            name="schwarzschild",
            coordinates=coordinates,
            parameters={horizon: Parameter(r_s, "1", "Schwarzschild radius")},
            lagrangian=-(1 - horizon / r) * taudot**2 + v.dot(v) + radial,
            symmetries={
                **{name: [*xi, sympy.S.Zero] for name, xi in turns.items()},
                "P_tau": [sympy.S.Zero] * 3 + [sympy.S.One],
            },
        )
        self.r_s = r_s

    def normalised(
        self, x: Float[Tensor, "*batch 3"], v: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch 4"]]:
        r"""The state of a massive particle: :math:`g_{\mu\nu} \dot q^\mu \dot q^\nu = -1`.

        Args:
            x: positions outside the horizon; the clock starts at tau = 0.
            v: derivatives of x by proper time; the fourth component follows, forward in time.

        Raises:
            ValueError: a position on or inside the horizon.
        """
        r = x.norm(dim=-1, keepdim=True)
        if (r <= self.r_s).any():
            raise ValueError(
                f"x: a position at distance {r.min().item():.3g} from the centre; expected more "
                f"than the Schwarzschild radius {self.r_s}, where the coordinates end"
            )
        zero = torch.zeros_like(r)
        q = torch.cat([x, zero], dim=-1)
        space = self.lagrangian_value(q, torch.cat([v, zero], dim=-1)).unsqueeze(-1)
        taudot = torch.sqrt((1 + space) / (1 - self.r_s / r))
        return q, torch.cat([v, taudot], dim=-1)

    def precession(self, q: Float[Tensor, " 4"], qdot: Float[Tensor, " 4"]) -> float:
        r"""The angle by which the closest approach of a bound orbit advances each time, in radians.

        With :math:`u = 1/r`, specific energy E and angular momentum L, the orbit obeys

        .. math:: \Big(\frac{du}{d\varphi}\Big)^2 = \frac{E^2 - 1}{L^2} + \frac{r_s}{L^2} u - u^2
                  + r_s u^3 = r_s (u - u_1)(u_2 - u)(u_3 - u) ,

        so from closest approach to closest approach :math:`\varphi` grows by :math:`4 K(k) /
        \sqrt{r_s (u_3 - u_1)}`, :math:`k^2 = (u_2 - u_1)/(u_3 - u_1)`, K the complete elliptic
        integral of the first kind; the advance is what exceeds :math:`2\pi`.

        Raises:
            ValueError: the orbit is not bound, or falls into the centre.
        """
        x, v = q[:3].double(), qdot[:3].double()
        L2 = torch.linalg.cross(x, v).square().sum().item()
        E2 = ((1 - self.r_s / x.norm()) * qdot[3].double()).square().item()
        cubic = [self.r_s, -1.0, self.r_s / L2, (E2 - 1) / L2] if L2 > 0 else [1.0, 0.0, 0.0, 1.0]
        roots = np.sort_complex(np.roots(cubic))
        u = 1 / x.norm().item()
        u_1, u_2, u_3 = roots.real
        if np.abs(roots.imag).max() > 1e-9 or u_1 <= 0 or not u_1 - 1e-9 <= u <= u_2 + 1e-9:
            raise ValueError(
                f"q, qdot: no bound orbit between two radii (E^2 = {E2:.4g}, L^2 = {L2:.4g}); "
                "start slower to be bound, or farther out to turn before the centre"
            )
        a, b = 1.0, math.sqrt((u_3 - u_2) / (u_3 - u_1))  # K by the arithmetic-geometric mean
        while abs(a - b) > 1e-15:
            a, b = (a + b) / 2, math.sqrt(a * b)
        return 2 * math.pi / (a * math.sqrt(self.r_s * (u_3 - u_1))) - 2 * math.pi

    def initial(
        self, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, " 4"], Float[Tensor, " 4"]]:
        r"""The paper's start: at :math:`r_0 = 10 r_s` on the first axis, moving across it at
        :math:`v_0 = 1.26 \sqrt{r_s/(2 r_0)}/\sqrt{1 - r_s/r_0}`."""
        r_0 = 10 * self.r_s
        v_0 = 1.26 * math.sqrt(0.5 * self.r_s / r_0) / math.sqrt(1 - self.r_s / r_0)
        eye = torch.eye(3, dtype=dtype)
        return self.normalised(r_0 * eye[0], v_0 * eye[1])

    def sample(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 4"]]:
        """n states at turning points of bound orbits in random planes.

        r is uniform in (8 r_s, 12 r_s), the speed across uniform in (1, 1.26) of the initial one's
        formula; tau = 0.
        """
        turn = groups.SO(3).sample(n, generator=generator, dtype=dtype)
        u = torch.rand(n, 2, 1, generator=generator, dtype=dtype, device=generator.device)
        r = self.r_s * (8 + 4 * u[:, 0])
        v = (1 + 0.26 * u[:, 1]) * torch.sqrt(0.5 * self.r_s / (r - self.r_s))
        return self.normalised(r * turn[..., 0], v * turn[..., 1])
