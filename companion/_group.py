"""What the groups of `companion.groups` share."""

import sympy
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from companion._algebra import entries


def aligned(g: Tensor, axes: int, x: Tensor) -> Tensor:
    """g with axes of length 1 after its batch, so that the leading axes of x meet those of g."""
    batch = g.ndim - axes
    extra = max(0, x.ndim - 1 - batch)
    return g.reshape(*g.shape[:batch], *(1,) * extra, *g.shape[batch:])


class Group:
    """What the groups share. A concrete group knows its sympy generators and how to sample.

    Args:
        d: dimension of the vectors that the group acts on.

    Raises:
        ValueError: d is not a whole number of at least ``smallest_d``.
    """

    smallest_d = 1

    def __init__(self, d: int) -> None:
        if not isinstance(d, int) or isinstance(d, bool) or d < self.smallest_d:
            raise ValueError(
                f"d: got {d!r}, expected a whole number >= {self.smallest_d}, the dimension of the "
                f"vectors that {type(self).__name__} acts on"
            )
        self.d = d

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.d})"

    @property
    def dim(self) -> int:
        """Dimension of the Lie algebra: the number of generators, and of Noether charges."""
        raise NotImplementedError

    def sympy_generators(self) -> list[sympy.Matrix]:
        """A basis of the Lie algebra, exact."""
        raise NotImplementedError

    def sympy_discrete(self) -> list[sympy.Matrix]:
        """Elements that generate the group together with the exponentials of the algebra, exact.

        None for a connected group; a reflection for O(d); for a finite group all it has.
        """
        return []

    def sample(
        self, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Inexact[Tensor, "..."]:
        """Random elements of the group, ``shape`` of them."""
        raise NotImplementedError

    def generators(self, dtype: torch.dtype = torch.float64) -> Inexact[Tensor, "..."]:
        """The same basis as a tensor (dim, d, d); for Translation (d, d)."""
        return self._stacked(self.sympy_generators(), dtype)

    def discrete(self, dtype: torch.dtype = torch.float64) -> Inexact[Tensor, "m d d"]:
        """The elements of ``sympy_discrete`` as a tensor (m, d, d)."""
        return self._stacked(self.sympy_discrete(), dtype)

    def design(self, degree: int, dtype: torch.dtype = torch.float64) -> Inexact[Tensor, "N d d"]:
        """Finitely many elements (N, d, d) whose plain mean is the mean over the whole group, for
        every polynomial of at most this degree in the entries of the matrix.

        Known here for finite groups, and for SO(2) and O(2).

        Raises:
            ValueError: a group for which no design is written down.
        """
        raise ValueError(
            f"{self!r} has no design here; use a finite group, SO(2) or O(2), or the mean over "
            "many elements of sample()"
        )

    def _stacked(self, matrices: list[sympy.Matrix], dtype: torch.dtype) -> Tensor:
        number = complex if dtype.is_complex else float
        flat = [[number(x) for x in entries(matrix)] for matrix in matrices]
        return torch.tensor(flat, dtype=dtype).reshape(len(matrices), self.d, self.d)

    def exp(self, theta: Float[Tensor, "*batch dim"]) -> Inexact[Tensor, "..."]:
        r"""The element :math:`\exp(\sum_a \theta_a \Gamma_a)`, eq. (3).

        Args:
            theta: (..., dim), one parameter a generator (radians, or rapidities).

        Raises:
            ValueError: the last axis is not ``dim``.
        """
        self._check_parameters(theta)
        gamma = self.generators(theta.dtype).to(theta.device)
        return torch.matrix_exp(torch.einsum("...a,aij->...ij", theta, gamma))

    def act(
        self, g: Inexact[Tensor, "..."], x: Inexact[Tensor, "*batch d"]
    ) -> Inexact[Tensor, "*result d"]:
        """The action of g on vectors.

        Args:
            g: elements, (*shape, d, d); for Translation (*shape, d).
            x: vectors (..., d) or (..., n, d). Its leading axes meet those of g, so that one
                element (d, d) acts on everything and a batch (B, d, d) acts on (B, d) and, on all
                n vectors alike, on (B, n, d).

        Raises:
            ValueError: g or x does not end in axes of length d.
        """
        if g.shape[-2:] != (self.d, self.d) or x.shape[-1:] != (self.d,):
            raise ValueError(
                f"g, x: got shapes {tuple(g.shape)} and {tuple(x.shape)}, expected "
                f"(..., {self.d}, {self.d}) and (..., {self.d}) for {self!r}"
            )
        return (aligned(g, 2, x) @ x.unsqueeze(-1)).squeeze(-1)

    def _check_parameters(self, theta: Tensor) -> None:
        if theta.shape[-1:] != (self.dim,):
            raise ValueError(
                f"theta: got shape {tuple(theta.shape)}, expected (..., {self.dim}): one parameter "
                f"for each generator of {self!r}"
            )
