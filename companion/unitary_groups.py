r"""The unitary groups U(d) and SU(d): complex matrices with :math:`g^\dagger g = 1`.

They act on :math:`\mathbb C^d` as O(d) and SO(d) act on :math:`\mathbb R^d`, and the real elements
of U(d) are O(d). Vectors are rows of a batch in `act`, as in every group here; on vectors that are
the columns of x (..., d, M), as in `companion.unitary`, the action is ``g @ x``.

Sign conventions. The generators are anti-Hermitian. Those of SU(d) are :math:`-i\lambda/2` with
the matrices :math:`\lambda` of Gell-Mann, in his order, generalised: for SU(2) they are
:math:`-i\sigma_x/2, -i\sigma_y/2, -i\sigma_z/2` with the Pauli matrices, whose commutators are
those of :math:`\Gamma_x, \Gamma_y, \Gamma_z` of SO(3). U(d) has one more, the last: the common
phase :math:`i`.
"""

import sympy
import torch
from jaxtyping import Complex, Float, Inexact, Shaped
from torch import Tensor

from companion._group import Group

__all__ = ["SU", "U"]


class U(Group):
    """The unitary group: all complex matrices with g^dagger g = 1. It is connected.

    Args:
        d: dimension of the complex vectors that the group acts on.
    """

    @property
    def dim(self) -> int:
        """d^2, counted over the reals."""
        return self.d**2

    def sympy_generators(self) -> list[sympy.Matrix]:
        """Those of SU(d), then i times the identity; see the module's text."""
        return [*_traceless_generators(self.d), sympy.I * sympy.eye(self.d)]

    def generators(self, dtype: torch.dtype = torch.complex128) -> Complex[Tensor, "dim d d"]:
        """The same basis as a tensor (dim, d, d).

        Raises:
            ValueError: a dtype that is not complex.
        """
        return super().generators(_complex(dtype))

    def discrete(self, dtype: torch.dtype = torch.complex128) -> Complex[Tensor, "m d d"]:
        """None, (0, d, d): every element is an exponential.

        Raises:
            ValueError: a dtype that is not complex.
        """
        return super().discrete(_complex(dtype))

    def sample(
        self, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.complex128
    ) -> Complex[Tensor, "*shape d d"]:
        """Elements (*shape, d, d) uniform in the Haar measure.

        The Q of a complex normal matrix, its columns multiplied by the phases of the diagonal of R;
        without the phases the distribution depends on the convention of the QR routine.

        Raises:
            ValueError: a dtype that is not complex.
        """
        normal = torch.randn(
            *shape,
            self.d,
            self.d,
            generator=generator,
            dtype=_complex(dtype),
            device=generator.device,
        )
        q, r = torch.linalg.qr(normal)
        return q * r.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)

    def exp(self, theta: Float[Tensor, "*batch dim"]) -> Complex[Tensor, "*batch d d"]:
        r"""The element :math:`\exp(\sum_a \theta_a \Gamma_a)`.

        Args:
            theta: (..., dim), real, one parameter a generator, in radians.

        Raises:
            ValueError: the last axis is not ``dim``.
        """
        self._check_parameters(theta)
        gamma = self.generators(theta.dtype.to_complex()).to(theta.device)
        return torch.matrix_exp(torch.einsum("...a,aij->...ij", theta.to(gamma.dtype), gamma))

    def act(
        self, g: Inexact[Tensor, "..."], x: Shaped[Tensor, "*batch d"]
    ) -> Complex[Tensor, "*result d"]:
        """The action of g on complex vectors.

        Args:
            g: elements (*shape, d, d), complex, or real: those of O(d) are elements too.
            x: vectors (..., d) or (..., n, d); the leading axes meet those of g as in `Group.act`.

        Raises:
            ValueError: g or x does not end in axes of length d, or x is not complex.
        """
        if not x.is_complex():
            raise ValueError(
                f"x: got {x.dtype}, expected complex vectors for {self!r}; use "
                "x.to(torch.complex64) or complex128"
            )
        return super().act(g if g.is_complex() else g.to(x.dtype), x)


class SU(U):
    """The special unitary group: unitary matrices of determinant 1."""

    @property
    def dim(self) -> int:
        """d^2 - 1: the common phase is not in it."""
        return self.d**2 - 1

    def sympy_generators(self) -> list[sympy.Matrix]:
        """Half the generalised Gell-Mann matrices times -i; see the module's text."""
        return _traceless_generators(self.d)

    def sample(
        self, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.complex128
    ) -> Complex[Tensor, "*shape d d"]:
        """Elements (*shape, d, d) uniform in the Haar measure.

        An element of U(d) with its first column divided by the determinant.

        Raises:
            ValueError: a dtype that is not complex.
        """
        g = super().sample(*shape, generator=generator, dtype=dtype)
        phase = torch.linalg.det(g).sgn().conj()[..., None, None]
        return torch.cat([g[..., :1] * phase, g[..., 1:]], dim=-1)


def _traceless_generators(d: int) -> list[sympy.Matrix]:
    """-i/2 times Gell-Mann's matrices: axis k with each axis before it, then their diagonal."""
    found = []
    for k in range(1, d):
        for j in range(k):
            real, imaginary = sympy.zeros(d, d), sympy.zeros(d, d)
            real[j, k] = real[k, j] = 1
            imaginary[j, k], imaginary[k, j] = -sympy.I, sympy.I
            found += [real, imaginary]
        length = sympy.sqrt(sympy.Rational(2, k * (k + 1)))
        found.append(sympy.diag(*[length] * k, -k * length, *[0] * (d - k - 1)))
    return [-sympy.I / 2 * gamma for gamma in found]


def _complex(dtype: torch.dtype) -> torch.dtype:
    if not dtype.is_complex:
        raise ValueError(f"dtype: got {dtype}, expected torch.complex64 or torch.complex128")
    return dtype
