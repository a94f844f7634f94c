r"""Mechanics as sympy does it: one expression in, everything else derived.

Write a Lagrangian once and this module derives the equations of motion, the Noether charges, the
Hamiltonian and the brackets; :func:`to_torch` turns any of the results into a batched torch
function. What the reader derived is what runs.

Equation numbers refer to E. H. Müller, *Exact conservation laws for neural network integrators of
dynamical systems* (2023).
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import cast

import sympy

from companion._algebra import determinant, entries, is_zero, simplified, solve
from companion._compile import to_torch

Expression = sympy.Expr | int | float
Symbols = Sequence[sympy.Symbol]

__all__ = [
    "accelerations",
    "coordinates",
    "energy",
    "euler_lagrange",
    "hamilton",
    "is_canonical",
    "legendre",
    "momenta",
    "noether_charge",
    "on_shell_derivative",
    "poisson_bracket",
    "to_torch",
    "total_derivative",
    "variation",
]


def _names(names: str) -> list[str]:
    found = names.replace(",", " ").split()
    if not found or len(set(found)) != len(found):
        raise ValueError(
            f"names: got {names!r}, expected distinct names separated by spaces, such as 'x y z'"
        )
    return found


def _decorated(accent: str, name: str) -> str:
    """The LaTeX of a name under an accent; a subscript stays outside: ``x_1 -> \\dot{x}_{1}``."""
    letter, underscore, index = sympy.latex(sympy.Symbol(name)).partition("_")
    return rf"\{accent}{{{letter}}}{underscore}{index}"


def coordinates(
    names: str,
) -> tuple[tuple[sympy.Symbol, ...], tuple[sympy.Symbol, ...], tuple[sympy.Symbol, ...]]:
    r"""Coordinates, velocities and accelerations as real symbols that print well.

    Args:
        names: names separated by spaces, such as ``"x y z"`` or ``"x_1 x_2 tau"``.

    Returns:
        ``(q, qdot, qddot)``, three tuples of symbols. The velocity of ``x`` is named ``\dot{x}``,
        its acceleration ``\ddot{x}``.

    Raises:
        ValueError: no name, or a name given twice.
    """
    found = _names(names)
    q = tuple(sympy.Symbol(n, real=True) for n in found)
    qdot = tuple(sympy.Symbol(_decorated("dot", n), real=True) for n in found)
    qddot = tuple(sympy.Symbol(_decorated("ddot", n), real=True) for n in found)
    return q, qdot, qddot


def momenta(names: str) -> tuple[sympy.Symbol, ...]:
    """The momenta conjugate to the coordinates of the same names: ``p_x`` for ``x``.

    Raises:
        ValueError: no name, or a name given twice.
    """
    found = _names(names)
    latex = [n if n.isalpha() else f"{{{sympy.latex(sympy.Symbol(n))}}}" for n in found]
    return tuple(sympy.Symbol(f"p_{n}", real=True) for n in latex)


def _same_length(**sequences: Sequence) -> None:
    lengths = {name: len(s) for name, s in sequences.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(f"{', '.join(lengths)} must have the same length, but {found}")


def total_derivative(
    f: Expression,
    q: Symbols,
    qdot: Symbols,
    qddot: Sequence[Expression],
    t: sympy.Symbol | None = None,
) -> sympy.Expr:
    r"""The rate of change of :math:`f(q, \dot q, t)` along a path, by the chain rule.

    .. math:: \frac{df}{dt} = \sum_i \frac{\partial f}{\partial q_i} \dot q_i
              + \frac{\partial f}{\partial \dot q_i} \ddot q_i + \frac{\partial f}{\partial t}

    Args:
        f: an expression in ``q``, ``qdot`` and, if given, ``t``.
        q, qdot: symbols, one of each per degree of freedom.
        qddot: the accelerations, symbols or expressions such as :func:`accelerations` returns.
        t: the time, if ``f`` depends on it explicitly.

    Raises:
        ValueError: the three tuples differ in length.
    """
    _same_length(q=q, qdot=qdot, qddot=qddot)
    f = sympy.sympify(f)
    result = sum(
        (f.diff(x) * v + f.diff(v) * a for x, v, a in zip(q, qdot, qddot, strict=True)),
        start=sympy.S.Zero,
    )
    return result if t is None else result + f.diff(t)


def euler_lagrange(
    L: Expression, q: Symbols, qdot: Symbols, qddot: Symbols, t: sympy.Symbol | None = None
) -> list[sympy.Expr]:
    r"""The left-hand sides of the Euler-Lagrange equations, eq. (8); zero on a physical path.

    .. math:: \frac{d}{dt} \frac{\partial L}{\partial \dot q_i} - \frac{\partial L}{\partial q_i}

    Raises:
        ValueError: ``q``, ``qdot`` and ``qddot`` differ in length.
    """
    _same_length(q=q, qdot=qdot, qddot=qddot)
    L = sympy.sympify(L)
    return [
        total_derivative(L.diff(v), q, qdot, qddot, t) - L.diff(x)
        for x, v in zip(q, qdot, strict=True)
    ]


def _regular_hessian(L: sympy.Expr, qdot: Symbols) -> sympy.Matrix:
    """The Hessian in the velocities, refused with its null directions if it is singular."""
    hessian = sympy.hessian(L, list(qdot))
    if is_zero(determinant(hessian)):
        hessian = hessian.applyfunc(sympy.simplify)
        null = [list(v.T) for v in hessian.nullspace(simplify=True)]
        raise ValueError(
            f"L: its Hessian in the velocities {tuple(qdot)} is singular: {hessian.tolist()} has "
            f"the null directions {null}. The accelerations (or momenta) do not determine all "
            "velocities; use a Lagrangian that is not degenerate, or fewer coordinates"
        )
    return hessian


def accelerations(
    L: Expression,
    q: Symbols,
    qdot: Symbols,
    qddot: Symbols | None = None,
    t: sympy.Symbol | None = None,
) -> list[sympy.Expr]:
    r"""The Euler-Lagrange equations solved for the accelerations, eq. (9) with its slip mended.

    .. math:: \ddot q = \left(\frac{\partial^2 L}{\partial \dot q \partial \dot q}\right)^{-1}
              \left(\frac{\partial L}{\partial q}
              - \frac{\partial^2 L}{\partial \dot q \partial q} \dot q
              - \frac{\partial^2 L}{\partial \dot q \partial t}\right)

    The paper prints :math:`\partial L/\partial\dot q` where the first term of the bracket is
    :math:`\partial L/\partial q`.

    Args:
        L: the Lagrangian.
        q, qdot: symbols, one of each per degree of freedom.
        qddot: if given, a Lagrangian that contains one of these symbols is refused.
        t: the time, if ``L`` depends on it explicitly.

    Returns:
        One expression in ``q``, ``qdot`` (and ``t``) per degree of freedom.

    Raises:
        ValueError: the Hessian is singular (it is named, with its null directions); ``L`` contains
            an acceleration; the lengths differ.
    """
    _same_length(q=q, qdot=qdot)
    L = sympy.sympify(L)
    higher = L.free_symbols & set(qddot or ())
    if higher:
        raise ValueError(
            f"L: contains the accelerations {sorted(map(str, higher))}; expected a function of "
            "positions and velocities only"
        )
    return list(_solved(L, tuple(q), tuple(qdot), t))


@lru_cache(maxsize=128)  # a pure function, asked again for every charge of a system
def _solved(
    L: sympy.Expr, q: Symbols, qdot: Symbols, t: sympy.Symbol | None
) -> tuple[sympy.Expr, ...]:
    hessian = _regular_hessian(L, qdot)
    force = sympy.Matrix(
        [
            L.diff(x)
            - sum((L.diff(v, y) * w for y, w in zip(q, qdot, strict=True)), start=sympy.S.Zero)
            - (0 if t is None else L.diff(v, t))
            for x, v in zip(q, qdot, strict=True)
        ]
    )
    if hessian.is_diagonal():
        return tuple(sympy.simplify(f / hessian[i, i]) for i, f in enumerate(entries(force)))
    return tuple(solve(hessian, force))


def variation(
    L: Expression,
    q: Symbols,
    qdot: Symbols,
    xi: Sequence[Expression],
    t: sympy.Symbol | None = None,
) -> sympy.Expr:
    r"""First-order change of the Lagrangian under :math:`q \to q + s\, \xi(q, t)`.

    .. math:: \delta L = \sum_i \xi_i \frac{\partial L}{\partial q_i}
              + \frac{d \xi_i}{dt} \frac{\partial L}{\partial \dot q_i}

    It is the s-derivative of eq. (1) at s = 0: zero for a symmetry, :math:`dK/dt` for a symmetry up
    to the gauge term K.

    Args:
        L: the Lagrangian.
        q, qdot: symbols, one of each per degree of freedom.
        xi: the generator, one expression in ``q`` (and ``t``) per degree of freedom; for a matrix
            group :math:`\xi = \Gamma q`, eq. (5).
        t: the time, if ``xi`` depends on it explicitly.

    Raises:
        ValueError: the lengths differ, or ``xi`` depends on a velocity.
    """
    _same_length(q=q, qdot=qdot, xi=xi)
    L, generator = sympy.sympify(L), [sympy.sympify(x) for x in xi]
    velocities = set().union(*(x.free_symbols for x in generator)) & set(qdot)
    if velocities:
        raise ValueError(
            f"xi: depends on the velocities {sorted(map(str, velocities))}; expected a point "
            "transformation, a function of the coordinates (and the time) only"
        )
    none = [sympy.S.Zero] * len(q)  # xi holds no velocity, so no acceleration appears
    return sum(
        (
            x * L.diff(c) + total_derivative(x, q, qdot, none, t) * L.diff(v)
            for x, c, v in zip(generator, q, qdot, strict=True)
        ),
        start=sympy.S.Zero,
    )


def noether_charge(
    L: Expression, q: Symbols, qdot: Symbols, xi: Sequence[Expression], gauge: Expression = 0
) -> sympy.Expr:
    r"""The conserved quantity of a symmetry, eq. (2): :math:`I = \sum_i \xi_i\,
    \partial L/\partial \dot q_i - K`.

    Args:
        L: the Lagrangian.
        q, qdot: symbols, one of each per degree of freedom.
        xi: the generator, one expression per degree of freedom.
        gauge: K, where :func:`variation` equals :math:`dK/dt`; zero if L itself is invariant.

    Raises:
        ValueError: the lengths differ.
    """
    _same_length(q=q, qdot=qdot, xi=xi)
    L = sympy.sympify(L)
    terms = (sympy.sympify(x) * L.diff(v) for x, v in zip(xi, qdot, strict=True))
    return sum(terms, start=sympy.S.Zero) - gauge


def energy(L: Expression, q: Symbols, qdot: Symbols) -> sympy.Expr:
    r"""The charge of time translations, :math:`E = \sum_i \dot q_i\, \partial L/\partial \dot q_i
    - L`; conserved if L does not contain the time.

    Raises:
        ValueError: ``q`` and ``qdot`` differ in length.
    """
    return noether_charge(L, q, qdot, qdot, gauge=L)


def on_shell_derivative(
    I: Expression,  # noqa: E741 -- the paper's letter
    L: Expression,
    q: Symbols,
    qdot: Symbols,
    t: sympy.Symbol | None = None,
) -> sympy.Expr:
    """dI/dt along the solutions of the Euler-Lagrange equations; zero if I is conserved.

    Args:
        I: an expression in ``q``, ``qdot`` (and ``t``).
        L: the Lagrangian whose :func:`accelerations` replace the second derivatives.
        q, qdot: symbols, one of each per degree of freedom.
        t: the time, if ``I`` or ``L`` depends on it explicitly.

    Raises:
        ValueError: the Hessian of ``L`` is singular, or the lengths differ.
    """
    qddot = accelerations(L, q, qdot, t=t)
    return simplified(total_derivative(I, q, qdot, qddot, t))


def legendre(L: Expression, q: Symbols, qdot: Symbols, p: Symbols) -> sympy.Expr:
    r"""The Legendre transform :math:`H(q, p) = \sum_i p_i \dot q_i - L`, with
    :math:`p_i = \partial L/\partial \dot q_i` solved for the velocities.

    It is its own inverse: ``legendre(H, q, p, qdot)`` is L again.

    Args:
        L: the Lagrangian.
        q, qdot, p: symbols, one of each per degree of freedom.

    Raises:
        ValueError: the Hessian is singular, sympy does not find exactly one solution for the
            velocities, or the lengths differ.
    """
    _same_length(q=q, qdot=qdot, p=p)
    L = sympy.sympify(L)
    hessian = _regular_hessian(L, qdot)
    momentum = [L.diff(v) for v in qdot]
    if not hessian.free_symbols & set(qdot):  # quadratic in the velocities: a linear system
        rest = dict.fromkeys(qdot, sympy.S.Zero)
        offset = sympy.Matrix([a - m.xreplace(rest) for a, m in zip(p, momentum, strict=True)])
        velocities = dict(zip(qdot, solve(hessian, offset), strict=True))
    else:
        equations = [m - a for m, a in zip(momentum, p, strict=True)]
        try:
            candidates = sympy.solve(equations, list(qdot), dict=True)
        except NotImplementedError:
            candidates = []
        solutions = [
            s
            for s in candidates
            if all(is_zero(cast(sympy.Expr, e.xreplace(s))) for e in equations)
        ]
        if len(solutions) != 1:
            raise ValueError(
                f"L: p = dL/dqdot has {len(solutions)} solutions for {tuple(qdot)} that sympy can "
                "find, expected exactly one; restrict the symbols (positive=True, say) or "
                "transform by hand"
            )
        velocities = solutions[0]
    H = sum((a * v for a, v in zip(p, qdot, strict=True)), start=sympy.S.Zero) - L
    return cast(sympy.Expr, sympy.simplify(H.xreplace(velocities)))


def hamilton(H: Expression, q: Symbols, p: Symbols) -> tuple[list[sympy.Expr], list[sympy.Expr]]:
    r"""Hamilton's equations: :math:`\dot q_i = \partial H/\partial p_i` and
    :math:`\dot p_i = -\partial H/\partial q_i`, as two lists.

    Raises:
        ValueError: ``q`` and ``p`` differ in length.
    """
    _same_length(q=q, p=p)
    H = sympy.sympify(H)
    return [H.diff(a) for a in p], [-H.diff(x) for x in q]


def poisson_bracket(f: Expression, g: Expression, q: Symbols, p: Symbols) -> sympy.Expr:
    r"""The bracket :math:`\{f, g\} = \sum_i \frac{\partial f}{\partial q_i}
    \frac{\partial g}{\partial p_i} - \frac{\partial f}{\partial p_i}
    \frac{\partial g}{\partial q_i}`, simplified.

    With this sign :math:`\dot f = \{f, H\}` and :math:`\{q_i, p_j\} = \delta_{ij}`.

    Raises:
        ValueError: ``q`` and ``p`` differ in length.
    """
    _same_length(q=q, p=p)
    f, g = sympy.sympify(f), sympy.sympify(g)
    terms = (f.diff(x) * g.diff(a) - f.diff(a) * g.diff(x) for x, a in zip(q, p, strict=True))
    return simplified(sum(terms, start=sympy.S.Zero))


def is_canonical(Q: Sequence[Expression], P: Sequence[Expression], q: Symbols, p: Symbols) -> bool:
    r"""Whether :math:`(q, p) \to (Q, P)` keeps the fundamental brackets.

    That is :math:`\{Q_i, Q_j\} = \{P_i, P_j\} = 0` and :math:`\{Q_i, P_j\} = \delta_{ij}`, each
    decided by sympy.

    Args:
        Q, P: the new coordinates and momenta as expressions in ``q`` and ``p``.
        q, p: the old ones, symbols.

    Raises:
        ValueError: the lengths differ.
    """
    _same_length(Q=Q, P=P, q=q, p=p)
    pairs = [*((a, b, 0) for new in (Q, P) for a, b in combinations(new, 2))]
    pairs += [(Q[i], P[j], int(i == j)) for i, j in product(range(len(q)), repeat=2)]
    return all(is_zero(poisson_bracket(a, b, q, p) - value) for a, b, value in pairs)
