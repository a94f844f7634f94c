r"""Potentials of argon as sympy expressions, and how they become torch functions of distances.

Units: angstrom, electronvolt, femtosecond, and the unified atomic mass unit u. Physical constants
are those of CODATA 2022; e and k are exact since 2019.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

import sympy
from torch import Tensor

from companion import symbolic

_E, _K, _U = 1.602176634e-19, 1.380649e-23, 1.66053906892e-27  # C, J/K, kg
KB = _K / _E
"""Boltzmann's constant, eV/K."""
ACCELERATION = _E / _U * 1e-10
r"""One eV/(angstrom u) in angstrom/fs^2: :math:`e/u` in SI units, times :math:`10^{10-20}`."""
EPSILON = 120 * KB
"""Depth of the Lennard-Jones well, eV (Rahman 1964)."""
R_0 = 3.4
"""Distance at which the Lennard-Jones potential crosses zero, angstrom (Rahman 1964)."""
MASS = 39.948
"""Mass of an argon atom, u."""
NU = 7.32e-108 / _E * 1e90
"""Axilrod-Teller strength of argon, eV angstrom^9: 73.2e-84 erg cm^9 as in Barker, Fisher and
Watts, Mol. Phys. 21, 657 (1971)."""


def lennard_jones(r: sympy.Symbol) -> sympy.Expr:
    """Eq. (37) with argon's constants, in eV of a distance in angstrom."""
    ratio = sympy.Float(R_0, 17) / r
    return 4 * sympy.Float(EPSILON, 17) * (ratio**12 - ratio**6)


def axilrod_teller(
    a: sympy.Symbol, b: sympy.Symbol, c: sympy.Symbol, nu: float | int = NU
) -> sympy.Expr:
    """The energy of a triangle with the sides a, b, c; its angles by the law of cosines."""
    cosines = (b**2 + c**2 - a**2) * (c**2 + a**2 - b**2) * (a**2 + b**2 - c**2)
    return sympy.Float(nu, 17) * (1 + 3 * cosines / (8 * (a * b * c) ** 2)) / (a * b * c) ** 3


def smoothly_cut(
    U: sympy.Expr, distances: Sequence[sympy.Symbol], cutoff: float | int | None
) -> sympy.Expr:
    """U times (1 - t)^2 (1 + 2 t) for each distance; t as in the docstring of Argon."""
    if cutoff is None:
        return U
    on, off = sympy.Float(0.66 * cutoff, 17) ** 2, sympy.Float(cutoff, 17) ** 2
    for r in distances:
        t = (r**2 - on) / (off - on)
        factor = (1 - t) ** 2 * (1 + 2 * t)
        U = U * sympy.Piecewise((1, r**2 < on), (factor, r**2 < off), (0, True))
    return U


class Terms:
    r"""An expression U of distances and its :math:`\frac{1}{r} \frac{\partial U}{\partial r}`, as
    torch functions of the squared distances, so that no root is taken where none is needed.

    Inverse powers become products of :math:`w = 1/s`, :math:`w^{1/2}` and :math:`w^3`: a general
    power costs as much as twenty products.
    """

    def __init__(self, U: sympy.Expr, distances: Sequence[sympy.Symbol]) -> None:
        powers = [sympy.symbols(f"s_{r} h_{r} w_{r} u_{r}", positive=True) for r in distances]
        flat = [symbol for four in powers for symbol in four]
        roots = {r: sympy.sqrt(four[0]) for r, four in zip(distances, powers, strict=True)}
        slopes = [_products(U.diff(r) / r, roots, powers) for r in distances]
        self._energy = symbolic.to_torch(_products(U, roots, powers), flat)
        self._slopes = symbolic.to_torch(slopes, flat)

    @staticmethod
    def _powers(squares: tuple[Tensor, ...]) -> list[Tensor]:
        inverses = [s.reciprocal() for s in squares]
        return [
            x for s, w in zip(squares, inverses, strict=True) for x in (s, w.sqrt(), w, w * w * w)
        ]

    def energy(self, *squares: Tensor) -> Tensor:
        """U, of the shape of each of the squared distances."""
        return self._energy(*self._powers(squares))

    def slopes(self, *squares: Tensor) -> Tensor:
        """(dU/dr) / r for each distance, along a new last axis."""
        return self._slopes(*self._powers(squares))


@lru_cache(maxsize=32)
def compiled(U: sympy.Expr, distances: tuple[sympy.Symbol, ...]) -> Terms:
    """The `Terms` of an expression, compiled once (half a second with a cutoff and triangles)."""
    return Terms(U, distances)


def _products(U: sympy.Expr, roots: dict, powers: Sequence[Sequence[sympy.Symbol]]) -> sympy.Expr:
    """U in squared distances s, with every s^(-k/2) written as u^.. w^.. h^.."""
    U = cast(sympy.Expr, sympy.powdenest(U.subs(roots)))
    for s, h, w, u in powers:

        def is_inverse(e: sympy.Basic, s: sympy.Symbol = s) -> bool:
            return isinstance(e, sympy.Pow) and e.base == s and bool(e.exp.is_negative)

        def product(e: sympy.Pow, h=h, w=w, u=u) -> sympy.Expr:
            k = int(-2 * e.exp)
            return u ** (k // 6) * w ** (k % 6 // 2) * h ** (k % 2)

        U = cast(Callable[..., sympy.Expr], U.replace)(is_inverse, product)
    return U
