"""Coupled oscillators: masses on springs whose normal modes keep an energy each."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion import symbolic
from companion._algebra import entries
from companion.systems.base import Parameter, PhaseSpaceSystem, Real

# S D^2 S^T with D = (1, 1.4) and S a turn by arctan(9/40): 1.046 q1^2 - 0.411 q1 q2 + 1.914 q2^2.
_COUPLING = ((1758.76 / 1681, -345.6 / 1681), (-345.6 / 1681, 3217.0 / 1681))


class Modes(NamedTuple):
    r"""The decoupled oscillators, :math:`A = S\, \mathrm{diag}(\lambda)\, S^T`.

    Attributes:
        eigenvalues: :math:`\lambda_i`, ascending; mode i turns with
            :math:`\omega_i = \sqrt{2 \lambda_i / m}`.
        rotation: S, orthogonal; its columns are the modes, :math:`\hat q = S^T q`. In each column
            the entry of largest size is positive.
    """

    eigenvalues: Float[Tensor, " n"]
    rotation: Float[Tensor, "n n"]


class CoupledOscillators(PhaseSpaceSystem):
    r"""n coupled oscillators, eq. (14) of Syvaeri et al. (2021).

    .. math:: H = \sum_i \frac{p_i^2}{2m} + \sum_{i,j} q_i A_{ij} q_j

    There is no factor 1/2 before A. In general the only point symmetry is time translation: the n
    conserved energies of the modes, eq. (15),

    .. math:: E_i = \frac{\hat p_i^2}{2m} + \lambda_i \hat q_i^2, \qquad
              \hat q = S^T q, \quad \hat p = S^T p, \quad A = S\, \mathrm{diag}(\lambda)\, S^T,

    come from transformations that mix q and p. They are :attr:`phase_charge_expressions`
    ``E_1 ... E_n`` (symbols :math:`\lambda_i` and :math:`S_{ij}`, values in :attr:`values`) and add
    up to H. Coordinates :math:`q_1 \dots q_n`. Dimensionless.

    Args:
        A: symmetric matrix with positive eigenvalues, a list of rows. The default is the matrix of
            appendix B.3 nearest to the fit of eq. (18): eigenvalues 1 and 1.96 = 1.4^2.
        m: mass; 1/2 in the paper, so that the kinetic energy is the sum of the squared momenta.

    Raises:
        ValueError: A is not such a matrix, or m is not positive.
    """

    def __init__(self, A: Sequence[Sequence[Real]] = _COUPLING, m: Real = 0.5) -> None:
        self.A = _checked(A)
        n = len(self.A)
        coordinates = symbolic.coordinates(" ".join(f"q_{i}" for i in range(1, n + 1)))
        q, qdot, _ = coordinates
        mass = sympy.Symbol("m", positive=True)
        entry = {
            (i, j): sympy.Symbol(f"A_{{{i + 1}{j + 1}}}", real=True)
            for i in range(n)
            for j in range(i, n)
        }
        springs = [(1 if i == j else 2) * a * q[i] * q[j] for (i, j), a in entry.items()]
        super().__init__(
            name="coupled-oscillators",
            coordinates=coordinates,
            parameters={
                mass: Parameter(m, "1", "mass of every oscillator"),
                **{
                    a: Parameter(float(self.A[i, j]), "1", f"coupling of q_{i + 1} and q_{j + 1}")
                    for (i, j), a in entry.items()
                },
            },
            lagrangian=mass / 2 * sympy.Add(*(v**2 for v in qdot)) - sympy.Add(*springs),
        )
        self.m, self._mass = m, mass

    @classmethod
    def random(cls, n: int, generator: torch.Generator, m: Real = 0.5) -> "CoupledOscillators":
        r"""A random system of n oscillators, appendix B.3: :math:`A = S D^2 S^T`.

        The entries of the diagonal D are uniform in :math:`[1, \sqrt{10}]` and rounded to one digit
        after the point, so that every motion is periodic. S are n vectors of standard normal
        numbers, made orthonormal. (The text prints the interval as "[1 - v10]" with the root sign
        garbled, and a standard deviation of 0, which is read as 1.)

        Raises:
            ValueError: n is not a whole number >= 1.
        """
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"n: got {n!r}, expected a whole number >= 1, the oscillators")
        options = {"generator": generator, "dtype": torch.float64, "device": generator.device}
        D = 1 + (math.sqrt(10) - 1) * torch.rand(n, **options)
        S = torch.linalg.qr(torch.randn(n, n, **options)).Q
        A = S @ torch.diag(((10 * D).round() / 10) ** 2) @ S.T
        return cls(((A + A.T) / 2).tolist(), m)

    @cached_property
    def modes(self) -> Modes:
        """The eigenvalues of A and the rotation to normal coordinates, in float64."""
        eigenvalues, S = torch.linalg.eigh(self.A)
        largest = S.gather(0, S.abs().argmax(dim=0, keepdim=True))
        return Modes(eigenvalues, S * largest.sign())

    @cached_property
    def mode_symbols(self) -> tuple[list[sympy.Symbol], sympy.Matrix]:
        """The symbols of :attr:`modes`: eigenvalues and matrix S."""
        n = range(1, self.d + 1)
        eigenvalues = [sympy.Symbol(f"lambda_{i}", positive=True) for i in n]
        S = [[sympy.Symbol(f"S_{{{i}{j}}}", real=True) for j in n] for i in n]
        return eigenvalues, sympy.Matrix(S)

    @property
    def values(self) -> dict[sympy.Symbol, Real]:
        """The numbers of the parameters and of :attr:`mode_symbols`."""
        eigenvalues, S = self.mode_symbols
        numbers = [*self.modes.eigenvalues.tolist(), *self.modes.rotation.flatten().tolist()]
        symbols = [*eigenvalues, *entries(S)]
        return super().values | dict(zip(symbols, numbers, strict=True))

    def _hidden_charges(self) -> dict[str, sympy.Expr]:
        eigenvalues, S = self.mode_symbols
        q, p = (S.T * sympy.Matrix(x) for x in (self.q, self.p))
        return {
            f"E_{i + 1}": p[i] ** 2 / (2 * self._mass) + eigenvalues[i] * q[i] ** 2
            for i in range(self.d)
        }

    def sample_phase(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "n two_d"]:
        """n points of appendix B.3: a random direction, lengths uniform in (0.2, 2).

        The direction is that of a vector with 2 d entries uniform in (0, 2), as printed: at the
        start all coordinates and momenta are positive.
        """
        options = {"generator": generator, "dtype": dtype, "device": generator.device}
        return rescaled(2 * torch.rand(n, 2 * self.d, **options), 0.2, 2.0, generator)


def rescaled(
    x: Float[Tensor, "n k"], low: Real, high: Real, generator: torch.Generator
) -> Float[Tensor, "n k"]:
    """The directions of the vectors x with new lengths, uniform between `low` and `high`."""
    length = torch.rand(len(x), 1, generator=generator, dtype=x.dtype, device=x.device)
    return (low + (high - low) * length) * x / x.norm(dim=-1, keepdim=True)


def _checked(A: Sequence[Sequence[Real]]) -> Tensor:
    expected = "expected a symmetric matrix with positive eigenvalues"
    if not len(A) or any(len(row) != len(A) for row in A):
        raise ValueError(f"A: got rows of {[len(row) for row in A]} numbers, {expected}")
    matrix = torch.tensor([[float(a) for a in row] for row in A], dtype=torch.float64)
    if not matrix.isfinite().all() or not torch.equal(matrix, matrix.T):
        raise ValueError(f"A: got {matrix.tolist()}, {expected}; use (A + A^T) / 2")
    eigenvalues = torch.linalg.eigvalsh(matrix)
    if eigenvalues[0] <= 0:
        raise ValueError(f"A: got the eigenvalues {eigenvalues.tolist()}, {expected}")
    return matrix
