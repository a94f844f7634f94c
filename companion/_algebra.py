r"""Exact algebra that does not make the reader wait.

``sympy.simplify`` needs minutes for the geodesics of a black hole. They are rational functions of
the coordinates and of the radius :math:`r = \sqrt{x_1^2 + x_2^2 + x_3^2}`; so this module gives
every root and every function a name of its own, works with rational functions, and remembers what
the names stand for: :math:`r^2 = x_1^2 + x_2^2 + x_3^2`, :math:`\cos^2\theta = 1 - \sin^2\theta`.
"""

from collections.abc import Sequence
from typing import cast

import sympy
from sympy.polys.matrices import DomainMatrix

Relation = tuple[sympy.Symbol, int, sympy.Expr]  # name ** degree equals the expression


def entries(matrix: sympy.Matrix) -> list[sympy.Expr]:
    """The entries of a matrix, row by row; sympy's own type says less."""
    return cast(list[sympy.Expr], matrix.flat())


class _Names:
    """Names for everything in some expressions that is not rational in the symbols."""

    def __init__(self, expressions: Sequence[sympy.Expr]) -> None:
        self.roots: dict[sympy.Expr, tuple[sympy.Symbol, int]] = {}
        self.others: dict[sympy.Expr, sympy.Symbol] = {}
        degrees: dict[sympy.Expr, int] = {}
        for power in set().union(*(e.atoms(sympy.Pow) for e in expressions)):
            if power.exp.is_Rational and not power.exp.is_Integer:
                _, q = power.exp.as_numer_denom()
                degrees[power.base] = sympy.ilcm(degrees.get(power.base, 1), int(q))
        for base in sorted(degrees, key=sympy.default_sort_key):
            self.roots[base] = (sympy.Dummy("r"), degrees[base])

    def rational(self, e: sympy.Expr) -> sympy.Expr:
        """The expression in terms of symbols and names."""
        if e.is_Symbol or e.is_Number:
            return e
        if isinstance(e, sympy.Pow) and e.exp.is_Rational:
            if e.base in self.roots:
                name, degree = self.roots[e.base]
                return name ** (degree * e.exp)
            return self.rational(e.base) ** e.exp
        if isinstance(e, (sympy.Add, sympy.Mul)):
            return e.func(*map(self.rational, e.args))
        return self.others.setdefault(e, sympy.Dummy("f"))

    @property
    def relations(self) -> list[Relation]:
        """The polynomial equations between the names."""
        found = [(name, n, self.rational(base)) for base, (name, n) in self.roots.items()]
        for e in list(self.others):
            if isinstance(e, sympy.cos):
                found.append((self.others[e], 2, 1 - self.rational(sympy.sin(*e.args)) ** 2))
        return found

    @property
    def meaning(self) -> dict[sympy.Symbol, sympy.Expr]:
        """What each name stands for."""
        roots = {name: base ** sympy.Rational(1, n) for base, (name, n) in self.roots.items()}
        return roots | {name: e for e, name in self.others.items()}


def _normal_form(polynomial: sympy.Expr, names: _Names) -> sympy.Expr:
    """The remainder modulo the relations, up to a factor that is not zero."""
    for _ in range(1 + len(names.roots)):  # roots inside roots need another round
        for name, degree, value in names.relations:
            above, below = sympy.fraction(sympy.together(value))
            polynomial = sympy.expand(polynomial)
            if polynomial.has(name):
                rest = sympy.prem(polynomial, below * name**degree - above, name)
                polynomial = cast(sympy.Expr, rest)
    return sympy.expand(polynomial)


def vanishes(e: sympy.Expr) -> bool:
    """Whether e is zero because of the relations above; True is a proof, False is not."""
    if e == 0:
        return True
    names = _Names([e])
    numerator, _ = sympy.fraction(sympy.together(names.rational(e)))
    return _normal_form(numerator, names) == 0


def simplified(e: sympy.Expr) -> sympy.Expr:
    """``sympy.simplify``, but quick with zeros and with polynomials."""
    if vanishes(e):
        return sympy.S.Zero
    if e.is_polynomial():
        expanded = sympy.expand(e)
        return min(expanded, sympy.factor(expanded), key=sympy.count_ops)
    return sympy.simplify(e)


def is_zero(e: sympy.Expr) -> bool:
    """Whether e is zero: by the relations, else by sympy's own means."""
    return vanishes(e) or e.equals(0) is True


def _field(*matrices: sympy.Matrix) -> tuple[_Names, list[DomainMatrix]]:
    names = _Names([e for m in matrices for e in entries(m)])
    joined = sympy.Matrix.hstack(*matrices).applyfunc(lambda e: sympy.together(names.rational(e)))
    whole = DomainMatrix.from_Matrix(joined).to_field()
    parts, start = [], 0
    for m in matrices:
        parts.append(whole.extract(range(m.rows), range(start, start + m.cols)))
        start += m.cols
    return names, parts


def determinant(matrix: sympy.Matrix) -> sympy.Expr:
    """The determinant of a square matrix of expressions."""
    names, (m,) = _field(matrix)
    value = sympy.factor(m.domain.to_sympy(m.det()))
    return cast(sympy.Expr, value.xreplace(names.meaning))


def solve(matrix: sympy.Matrix, rhs: sympy.Matrix) -> list[sympy.Expr]:
    """The solution x of ``matrix x = rhs``; the determinant must not be zero."""
    names, (m, b) = _field(matrix, rhs)
    solution = (m.inv() * b).to_Matrix()
    short = [_shortest(e, names).xreplace(names.meaning) for e in entries(solution)]
    return cast(list[sympy.Expr], short)


def _shortest(e: sympy.Expr, names: _Names) -> sympy.Expr:
    """A rational expression in factors, shortened with those relations that are polynomials."""
    parts = []
    for part in sympy.fraction(sympy.factor(e)):
        short = part
        for name, degree, value in names.relations:
            if part.has(name) and sympy.fraction(sympy.together(value))[1] == 1:
                rest = sympy.rem(sympy.expand(short), name**degree - value, name)
                short = min(short, sympy.factor(rest), key=sympy.count_ops)
        parts.append(short)
    return parts[0] / parts[1]
