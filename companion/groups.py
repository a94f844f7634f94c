r"""Lie groups as the book uses them: generators, random elements, actions on vectors.

A symmetry of mechanics is a group acting on positions, :math:`q \to g \cdot q`. Near the identity
:math:`g = \exp(s\,\Gamma)` with a generator :math:`\Gamma`, eq. (3) of Müller (2023), and the
generators are what Noether's theorem needs.

Sign conventions. SO(3) has :math:`\Gamma_x, \Gamma_y, \Gamma_z` of eq. (4), so that its charges are
:math:`q \times p`. Every other SO(d) has :math:`\Gamma^{(\rho,\sigma)}` of eq. (31) for
:math:`\rho < \sigma`, in the order (1,2), (1,3), ..., (d-1,d), with charges
:math:`p_\rho q_\sigma - p_\sigma q_\rho`, eq. (32). The two disagree for d = 3:
:math:`\Gamma^{(1,2)} = -\Gamma_z`, :math:`\Gamma^{(1,3)} = \Gamma_y`,
:math:`\Gamma^{(2,3)} = -\Gamma_x`.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

from companion._algebra import entries
from companion._group import Group, aligned
from companion.unitary_groups import SU, U

__all__ = [
    "SO",
    "SU",
    "Group",
    "Lorentz",
    "O",
    "Translation",
    "U",
    "plane_generator",
    "rotation_symmetries",
]


def plane_generator(d: int, rho: int, sigma: int) -> sympy.Matrix:
    r"""The generator :math:`\Gamma^{(\rho,\sigma)}_{jk} = \delta_{\rho j}\delta_{\sigma k} -
    \delta_{\rho k}\delta_{\sigma j}` of eq. (31); axes count from 0.

    Raises:
        ValueError: not two different axes below d.
    """
    if rho == sigma or not (0 <= rho < d and 0 <= sigma < d):
        raise ValueError(
            f"rho, sigma: got ({rho}, {sigma}), expected two different axes from 0 to {d - 1}"
        )
    gamma = sympy.zeros(d, d)
    gamma[rho, sigma], gamma[sigma, rho] = 1, -1
    return gamma


def _rotation_generators(d: int) -> list[sympy.Matrix]:
    if d == 3:  # eq. (4): x, y, z
        return [-plane_generator(3, 1, 2), plane_generator(3, 0, 2), -plane_generator(3, 0, 1)]
    return [plane_generator(d, rho, sigma) for rho, sigma in combinations(range(d), 2)]


class Translation(Group):
    r"""Translations :math:`x \to x + \Delta` of d-dimensional space, eq. (26).

    An element is the vector :math:`\Delta`, not a matrix. The generators are the unit vectors of
    eq. (30); their charges are the momenta.
    """

    @property
    def dim(self) -> int:
        """d: one generator an axis."""
        return self.d

    def sympy_generators(self) -> list[sympy.Matrix]:
        """The d unit vectors, as columns."""
        return [sympy.eye(self.d)[:, i] for i in range(self.d)]

    def generators(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "dim d"]:
        """The unit vectors (d, d), one a row."""
        return torch.eye(self.d, dtype=dtype)

    def exp(self, theta: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """The translation by ``theta``: the group is its own algebra.

        Raises:
            ValueError: the last axis is not d.
        """
        self._check_parameters(theta)
        return theta

    def sample(
        self, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "*shape d"]:
        """Standard normal displacements (*shape, d); no translation can be uniform."""
        return torch.randn(
            *shape, self.d, generator=generator, dtype=dtype, device=generator.device
        )

    def act(
        self, g: Float[Tensor, "*shape d"], x: Float[Tensor, "*batch d"]
    ) -> Float[Tensor, "*result d"]:
        """x + g; the leading axes of x meet those of g.

        Raises:
            ValueError: g or x does not end in an axis of length d.
        """
        if g.shape[-1:] != (self.d,) or x.shape[-1:] != (self.d,):
            raise ValueError(
                f"g, x: got shapes {tuple(g.shape)} and {tuple(x.shape)}, expected "
                f"(..., {self.d}) and (..., {self.d}) for {self!r}"
            )
        return x + aligned(g, 1, x)


class O(Group):  # noqa: E742 -- the group's name
    """The orthogonal group: all matrices with g^T g = 1, rotations and reflections.

    Its algebra is that of SO(d): continuous transformations do not see reflections.
    """

    @property
    def dim(self) -> int:
        """d (d - 1) / 2, one generator a plane."""
        return self.d * (self.d - 1) // 2

    def sympy_generators(self) -> list[sympy.Matrix]:
        """For d = 3 the matrices of eq. (4), else those of eq. (31); see the module's text."""
        return _rotation_generators(self.d)

    def sympy_discrete(self) -> list[sympy.Matrix]:
        """The reflection of the first axis: O(d) is SO(d) and SO(d) after it."""
        return [sympy.diag(-1, sympy.eye(self.d - 1))]

    def design(self, degree: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "N d d"]:
        r"""For d = 2: rotations by multiples of :math:`2\pi/(\mathrm{degree} + 1)`, and each after
        the reflection. A polynomial of degree k in the entries is a trigonometric polynomial of
        degree k in the angle, whose mean k + 1 equally spaced angles give exactly.

        Raises:
            ValueError: d is not 2.
        """
        if self.d != 2:
            return super().design(degree, dtype)
        angles = torch.arange(degree + 1, dtype=torch.float64)[:, None] * 2 * math.pi
        g = self.exp(angles / (degree + 1))
        return torch.cat([g, *(g @ h for h in self.discrete())]).to(dtype)

    def sample(
        self, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "*shape d d"]:
        """Elements (*shape, d, d) uniform in the Haar measure.

        The Q of a normal matrix, its columns multiplied by the signs of the diagonal of R; without
        the signs the distribution depends on the convention of the QR routine.
        """
        normal = torch.randn(
            *shape, self.d, self.d, generator=generator, dtype=dtype, device=generator.device
        )
        q, r = torch.linalg.qr(normal)
        return q * r.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


class SO(O):
    """The rotation group: orthogonal matrices of determinant 1.

    SO(3) has the generators of eq. (4), the others those of eq. (31).
    """

    def sympy_discrete(self) -> list[sympy.Matrix]:
        """None: every rotation is an exponential."""
        return []

    def sample(
        self, *shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Float[Tensor, "*shape d d"]:
        """Elements (*shape, d, d) uniform in the Haar measure.

        An element of O(d) with its first column reversed where the determinant is -1.
        """
        g = super().sample(*shape, generator=generator, dtype=dtype)
        sign = torch.linalg.det(g).sgn()[..., None, None]
        return torch.cat([g[..., :1] * sign, g[..., 1:]], dim=-1)


class Lorentz(Group):
    r"""The proper orthochronous Lorentz group: :math:`g^T \eta g = \eta` with
    :math:`\eta = \mathrm{diag}(1, ..., 1, -1)`, time last, as in section 2.3.2 of the paper.

    The generators are the rotations of space, as in SO(d - 1), then the boosts along each axis.
    """

    smallest_d = 2

    @property
    def dim(self) -> int:
        """d (d - 1) / 2: rotations and boosts."""
        return self.d * (self.d - 1) // 2

    def metric(self, dtype: torch.dtype = torch.float64) -> Float[Tensor, "d d"]:
        """diag(1, ..., 1, -1)."""
        return torch.diag(torch.tensor([1.0] * (self.d - 1) + [-1.0], dtype=dtype))

    def sympy_generators(self) -> list[sympy.Matrix]:
        r"""Rotations, then boosts, with :math:`\Gamma^T \eta + \eta\, \Gamma = 0`."""
        one = sympy.zeros(1, 1)
        rotations = [sympy.diag(gamma, one) for gamma in _rotation_generators(self.d - 1)]
        boosts = [sympy.zeros(self.d, self.d) for _ in range(self.d - 1)]
        for i, gamma in enumerate(boosts):
            gamma[i, -1] = gamma[-1, i] = 1
        return rotations + boosts

    def sample(
        self,
        *shape: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
        rapidity: float | int = 1.0,
    ) -> Float[Tensor, "*shape d d"]:
        """Elements (*shape, d, d): a Haar-random rotation after a boost along a random axis.

        The group is not compact, so there is no uniform element; the rapidity of the boost is
        uniform in (0, ``rapidity``).
        """
        options = {"generator": generator, "dtype": dtype}
        axis = SO(self.d - 1).sample(*shape, **options)[..., :, 0]
        if self.d == 2:  # a line has two directions, SO(1) one element
            axis = O(1).sample(*shape, **options)[..., :, 0]
        length = rapidity * torch.rand(*shape, 1, device=generator.device, **options)
        rotation = torch.zeros(*shape, self.d, self.d, dtype=dtype, device=generator.device)
        rotation[..., :-1, :-1] = SO(self.d - 1).sample(*shape, **options)
        rotation[..., -1, -1] = 1
        turns = torch.zeros(*shape, self.dim - (self.d - 1), dtype=dtype, device=axis.device)
        return rotation @ self.exp(torch.cat([turns, length * axis], dim=-1))


def rotation_symmetries(q: Sequence[sympy.Expr], d: int) -> dict[str, list[sympy.Expr]]:
    r"""The generators :math:`\xi = \Gamma q` of rotations, named after their charges.

    Args:
        q: coordinates of one or more particles in d dimensions, particle by particle; all of them
            turn together, eq. (27).
        d: dimension of space.

    Returns:
        ``{"L_x": xi, "L_y": xi, "L_z": xi}`` for d = 3, else ``{"L_12": xi, "L_13": xi, ...}``.

    Raises:
        ValueError: the number of coordinates is not a multiple of d.
    """
    if d < 1 or len(q) % d:
        raise ValueError(f"q: got {len(q)} coordinates, expected a multiple of d = {d}")
    planes = [f"L_{i}{j}" for i, j in combinations(range(1, d + 1), 2)]
    particles = [sympy.Matrix(q[i : i + d]) for i in range(0, len(q), d)]
    return {
        name: [entry for x in particles for entry in entries(gamma * x)]
        for name, gamma in zip(
            ["L_x", "L_y", "L_z"] if d == 3 else planes, _rotation_generators(d), strict=True
        )
    }
