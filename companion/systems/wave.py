"""A field on a ring: the wave equation, and with a quartic term its nonlinear brother."""

import math
from functools import cached_property
from typing import cast

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion.systems.base import Parameter, Real

Field = Float[Tensor, "*batch n"]


def spectral_derivative(u: Field, length: float) -> Field:
    """The derivative of the trigonometric polynomial through `u`, at the grid points.

    `u` `(..., n)` on n equidistant points of a ring. Exact for fields whose wave numbers stay
    below n/2. The mode n/2 itself, of even n, has a derivative that vanishes on the grid.
    """
    n = u.shape[-1]
    k = 2 * math.pi / length * torch.arange(n // 2 + 1, dtype=u.dtype, device=u.device)
    if n % 2 == 0:
        k = torch.cat([k[:-1], k.new_zeros(1)])
    return torch.fft.irfft(1j * k * torch.fft.rfft(u), n=n)


def central_difference(u: Field, length: float) -> Field:
    """The derivative by neighbours, $(u_{j+1} - u_{j-1}) / 2a$ with $a$ = `length` / n."""
    a = length / u.shape[-1]
    return (u.roll(-1, -1) - u.roll(1, -1)) / (2 * a)


class Wave:
    r"""A field $u(x, t)$ on a ring, written once as a sympy Lagrangian density.

    .. math:: \ell = \tfrac12 \dot u^2 - \tfrac12 c^2 u'^2 - \tfrac14 \lambda u^4, \qquad
              \ddot u = c^2 u'' - \lambda u^3

    States are `(q, qdot)` = $(u, \dot u)$ on n equidistant points, `(..., n)`, for any n; space
    derivatives are spectral. With $\lambda = 0$ it is d'Alembert's equation. The charges are the
    energy and the field momentum $P = -\int \dot u\,u'\,dx$. Dimensionless.

    Args:
        c: speed of waves.
        lam: strength $\lambda$ of the quartic term.
        length: circumference of the ring.
        n: points of the grid on which `sample` draws.
        modes: highest wave number of a sample.

    Raises:
        ValueError: c or the length is not positive, lambda negative, or `modes` not below n/2.
    """

    def __init__(
        self,
        c: Real = 1.0,
        lam: Real = 1.0,
        length: Real = 2 * math.pi,
        n: int = 32,
        modes: int = 4,
    ) -> None:
        if not (c > 0 and lam >= 0 and length > 0 and 1 <= modes < n / 2):
            raise ValueError(
                f"expected c > 0, lam >= 0, length > 0 and 1 <= modes < n/2, got c={c}, lam={lam}, "
                f"length={length}, modes={modes}, n={n}"
            )
        self.u, self.udot, self.slope = sympy.symbols(r"u \dot{u} u'", real=True)
        self._more = sympy.symbols(r"\dot{u}' u''", real=True)
        speed = sympy.Symbol("c", positive=True)
        strength = sympy.Symbol("lambda", nonnegative=True)
        self.density = self.udot**2 / 2 - speed**2 * self.slope**2 / 2 - strength * self.u**4 / 4
        self.parameters = {
            speed: Parameter(c, "1", "speed of waves"),
            strength: Parameter(lam, "1", "strength of the quartic term"),
        }
        self.c, self.lam, self.length, self.n, self.modes = c, lam, length, n, modes

    @property
    def d(self) -> int:
        """Number of grid points of a sample."""
        return self.n

    @cached_property
    def field_equation(self) -> sympy.Expr:
        r"""$\ddot u$ from the density: $D_t\ell_{\dot u} + D_x\ell_{u'} = \ell_u$ solved for it."""
        density, (u, v, s) = self.density, (self.u, self.udot, self.slope)
        vx, sx = self._more
        momentum, stress = density.diff(v), density.diff(s)
        flow = stress.diff(u) * s + stress.diff(v) * vx + stress.diff(s) * sx
        rest = momentum.diff(u) * v + momentum.diff(s) * vx
        return cast(sympy.Expr, sympy.simplify((density.diff(u) - flow - rest) / momentum.diff(v)))

    @cached_property
    def _compiled(self):
        """Acceleration, energy density and momentum density of one point."""
        p = self.density.diff(self.udot)
        rows = [self.field_equation, p * self.udot - self.density, -p * self.slope]
        symbols = [self.u, self.udot, self.slope, *self._more]
        values = {symbol: parameter.value for symbol, parameter in self.parameters.items()}
        return symbolic.to_torch(rows, symbols, values)

    def _at(self, q: Tensor, qdot: Tensor) -> Tensor:
        slope = spectral_derivative(q, self.length)
        more = [spectral_derivative(x, self.length) for x in (qdot, slope)]
        return self._compiled(q, qdot, slope, *more)

    def acceleration(self, q: Field, qdot: Field) -> Field:
        r"""$\ddot u$ at the grid points."""
        return self._at(q, qdot)[..., 0]

    def rhs(self, y: Float[Tensor, "*batch two_n"]) -> Float[Tensor, "*batch two_n"]:
        """The first-order form of y = (u, udot), for the integrators."""
        q, qdot = y.chunk(2, dim=-1)
        return torch.cat([qdot, self.acceleration(q, qdot)], dim=-1)

    def energy(self, q: Field, qdot: Field) -> Float[Tensor, "*batch"]:
        """The energy, an integral by the trapezoidal rule."""
        return self.length * self._at(q, qdot)[..., 1].mean(-1)

    def momentum(self, q: Field, qdot: Field) -> Float[Tensor, "*batch"]:
        r"""The field momentum $-\int \dot u\,u'\,dx$."""
        return self.length * self._at(q, qdot)[..., 2].mean(-1)

    def grid(self, n: int | None = None, dtype: torch.dtype = torch.float64) -> Float[Tensor, " n"]:
        """The grid points, `n` of them."""
        n = self.n if n is None else n
        return self.length / n * torch.arange(n, dtype=dtype)

    def sample(
        self, batch: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "batch n"], Float[Tensor, "batch n"]]:
        """Random smooth fields: independent normal waves up to the wave number `modes`.

        Mode k has a spread of 1/(1 + k) in u, and of 0.7 in udot.
        """
        k = torch.arange(self.modes + 1, dtype=dtype, device=generator.device)
        phase = 2 * math.pi / self.length * k[:, None] * self.grid(dtype=dtype).to(k.device)
        waves = torch.cat([phase.cos(), phase.sin()])  # (2 modes + 2, n)
        draw = torch.randn(
            2, batch, len(waves), generator=generator, dtype=dtype, device=generator.device
        )
        spread = torch.stack([1 / (1 + k), 0.7 + 0 * k]).repeat(1, 2)[:, None]
        q, qdot = (draw * spread / math.sqrt(2)) @ waves
        return q, qdot
