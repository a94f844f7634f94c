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

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import combinations

import sympy
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Lorentz", "O", "SO", "Translation", "plane_generator", "rotation_symmetries"]


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
        name: [entry for x in particles for entry in gamma * x]
        for name, gamma in zip(
            ["L_x", "L_y", "L_z"] if d == 3 else planes, _rotation_generators(d), strict=True
        )
    }
