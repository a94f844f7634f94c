r"""Finite groups of matrices, and groups that act on some of the axes only.

The pendulum hangs: gravity leaves of O(3) what fixes the vertical. That is O(2) on the two
horizontal axes, ``Embedded(groups.O(2), 3)``: all turns about the vertical, and the mirrors whose
plane contains it. Its subgroups are SO(2), the turns alone, and for each k the 2k turns and
mirrors of ``Embedded(Dihedral(k), 3)``, among them D2 and D6. No element turns the vertical
upside down. The generators are those of Finzi (2021): reflections are diag(-1, 1, 1).
"""

import math
from itertools import permutations

import sympy
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from companion.groups import Group

__all__ = ["Cyclic", "Dihedral", "Embedded", "Finite", "Symmetric", "Trivial"]


class Finite(Group):
    """A group with finitely many elements: no generators of an algebra, discrete ones only.

    Args:
        d: dimension of the vectors that the group acts on.

    Raises:
        ValueError: d is not a whole number of at least 1.
    """

    @property
    def dim(self) -> int:
        """0: a finite group has no algebra."""
        return 0

    def sympy_generators(self) -> list[sympy.Matrix]:
        """None."""
        return []

    def elements(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N d d"]:
        """All elements (N, d, d), the identity first."""
        raise NotImplementedError

    def design(self, degree: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N d d"]:
        """All elements, whatever the degree."""
        return self.elements(dtype)

    def sample(
        self, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "*shape d d"]:
        """Elements (*shape, d, d), each as likely as any other."""
        g = self.elements(dtype).to(generator.device)
        return g[torch.randint(len(g), shape, generator=generator, device=generator.device)]


class Trivial(Finite):
    """The identity alone: no symmetry. Every linear map is equivariant."""

    def elements(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N d d"]:
        """The identity (1, d, d)."""
        return torch.eye(self.d, dtype=dtype)[None]


class Cyclic(Finite):
    """The cyclic group Z_d, shifting the d axes round: e_i to e_(i + 1), the last to the first."""

    def sympy_discrete(self) -> list[sympy.Matrix]:
        """The shift by one."""
        return [sympy.Matrix(self.d, self.d, lambda i, j: int(i == (j + 1) % self.d))]

    def elements(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N d d"]:
        """The d shifts (d, d, d)."""
        eye = torch.eye(self.d, dtype=dtype)
        return torch.stack([eye.roll(k, 0) for k in range(self.d)])


class Symmetric(Finite):
    """The symmetric group S_d, permuting the d axes."""

    def sympy_discrete(self) -> list[sympy.Matrix]:
        """The exchanges of neighbours, d - 1 of them."""
        eye = sympy.eye(self.d)
        return [eye.elementary_row_op("n<->m", row1=i, row2=i + 1) for i in range(self.d - 1)]

    def elements(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N d d"]:
        """The d! permutation matrices."""
        return torch.eye(self.d, dtype=dtype)[torch.tensor(list(permutations(range(self.d))))]


class Dihedral(Finite):
    r"""The dihedral group D_k in the plane: k turns by :math:`2\pi/k` and k reflections.

    Args:
        k: number of turns; the group has 2k elements. D_1 is one mirror, D_2 two and their product.

    Raises:
        ValueError: k is not a whole number of at least 1.
    """

    def __init__(self, k: int) -> None:
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ValueError(f"k: got {k!r}, expected a whole number >= 1, the number of turns")
        super().__init__(2)
        self.k = k

    def __repr__(self) -> str:
        return f"Dihedral({self.k})"

    def sympy_discrete(self) -> list[sympy.Matrix]:
        """One turn, and the reflection of the first axis."""
        angle = 2 * sympy.pi / self.k
        c, s = sympy.cos(angle), sympy.sin(angle)
        return [sympy.Matrix([[c, -s], [s, c]]), sympy.diag(-1, 1)]

    def elements(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N d d"]:
        """The turns, then the turns after the reflection: (2k, 2, 2)."""
        angle = 2 * math.pi / self.k * torch.arange(self.k, dtype=torch.float64)
        c, s = angle.cos(), angle.sin()
        turns = torch.stack([c, -s, s, c], -1).unflatten(-1, (2, 2))
        mirror = torch.diag(torch.tensor([-1.0, 1.0], dtype=torch.float64))
        return torch.cat([turns, turns @ mirror]).to(dtype)


class Embedded(Group):
    """A group acting on the first axes of a larger space; the other axes stay as they are.

    Args:
        group: the group, acting on ``group.d`` axes.
        d: dimension of the larger space.

    Raises:
        ValueError: d is not a whole number of at least ``group.d``.
    """

    def __init__(self, group: Group, d: int) -> None:
        super().__init__(d)
        if d < group.d:
            raise ValueError(f"d: got {d}, expected at least the {group.d} axes of {group!r}")
        self.group = group

    def __repr__(self) -> str:
        return f"Embedded({self.group!r}, {self.d})"

    @property
    def dim(self) -> int:
        """That of the group."""
        return self.group.dim

    def sympy_generators(self) -> list[sympy.Matrix]:
        """Those of the group, with zeros on the other axes."""
        rest = sympy.zeros(self.d - self.group.d)
        return [sympy.diag(gamma, rest) for gamma in self.group.sympy_generators()]

    def sympy_discrete(self) -> list[sympy.Matrix]:
        """Those of the group, with ones on the diagonal of the other axes."""
        rest = sympy.eye(self.d - self.group.d)
        return [sympy.diag(h, rest) for h in self.group.sympy_discrete()]

    def design(self, degree: int, dtype: torch.dtype = torch.float64) -> Inexact[Tensor, "N d d"]:
        """That of the group. Raises ValueError where the group has none."""
        return self._embedded(self.group.design(degree, dtype))

    def sample(
        self, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Inexact[Tensor, "*shape d d"]:
        """Random elements of the group."""
        return self._embedded(self.group.sample(*shape, generator=generator, dtype=dtype))

    def _embedded(self, g: Tensor) -> Tensor:
        whole = torch.eye(self.d, dtype=g.dtype, device=g.device)
        whole = whole.repeat(*g.shape[:-2], 1, 1)
        whole[..., : self.group.d, : self.group.d] = g
        return whole
