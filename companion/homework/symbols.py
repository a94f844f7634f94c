"""Sympy expressions as numbers, whatever the form and the assumptions they are written with."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["symbolic_values"]


def symbolic_values(expression: Any, points: Mapping[str, Any]) -> np.ndarray:
    """The values of a sympy expression, matrix or list at `n` points, `(n, *shape)` float64.

    Atoms are found by their printed names: derivatives first, then functions, then indexed and
    plain symbols. What numpy cannot compute (integrals, sums, special functions, roots of negative
    numbers that cancel) sympy computes, point by point.

    Raises ValueError, with a sentence for the student, if a name is left that no point gives, if a
    value is not real, or if this is no expression at all.
    """
    if isinstance(expression, np.ndarray):
        expression = expression.tolist()
    if isinstance(expression, list | tuple):
        if not expression:
            raise ValueError("an empty list, where expressions are wanted")
        parts = [symbolic_values(x, points) for x in expression]
        if len({p.shape for p in parts}) > 1:
            raise ValueError("the parts of the list have different shapes")
        return np.stack(parts, axis=1)
    e = _expression(expression)
    if hasattr(e, "shape"):
        return symbolic_values(e.tolist(), points) if 0 not in e.shape else _empty(e)
    stand_in = _stand_ins(points)
    e = _replaced(e, stand_in)
    n = max((np.size(x) for x in points.values()), default=1)
    grid = [np.broadcast_to(np.asarray(x, float), (n,)) for x in points.values()]
    return _real(_values(e, list(stand_in.values()), grid, n))


def _empty(e: Any) -> np.ndarray:
    raise ValueError(f"a matrix of shape {tuple(e.shape)}, where expressions are wanted")


def _stand_ins(points: Mapping[str, Any]) -> dict[str, Any]:
    import sympy

    return {name: sympy.Dummy(f"x{i}") for i, name in enumerate(points)}


def _expression(value: Any) -> Any:
    """A sympy expression or explicit matrix; raises ValueError with what to give instead."""
    import sympy
    from sympy.core.function import UndefinedFunction

    if value is None or value is Ellipsis:
        raise ValueError(f"not answered yet: one of the expressions is {value}")
    if isinstance(value, str):
        raise ValueError("this is text, where a sympy expression is wanted: leave the quotes out")
    if isinstance(value, UndefinedFunction):
        raise ValueError(f"{value} is a function; an expression is wanted, such as {value}(t)")
    if callable(value) and not isinstance(value, sympy.Basic):
        raise ValueError("this is a Python function, where a sympy expression is wanted")
    try:
        e = sympy.sympify(value, strict=True)
    except (sympy.SympifyError, TypeError, ValueError):
        name = type(value).__name__
        raise ValueError(f"this is a {name}, where a sympy expression is wanted") from None
    if isinstance(e, sympy.MatrixExpr):
        try:
            e = e.as_explicit()
        except (ValueError, TypeError, AttributeError):
            raise ValueError("a matrix whose entries are not given") from None
    if isinstance(e, sympy.core.relational.Relational):
        raise ValueError(
            "this is an equation, where an expression is wanted: give one side of it "
            "(`.rhs`), or left side minus right side"
        )
    if hasattr(e, "tolist") and hasattr(e, "shape"):  # a matrix or an array
        return e
    if not isinstance(e, sympy.Expr):
        raise ValueError(f"this is a {type(e).__name__}, where a sympy expression is wanted")
    return e


def _replaced(e: Any, stand_in: Mapping[str, Any]) -> Any:
    """The expression in the stand-ins only; raises ValueError with the names that are left."""
    import sympy
    from sympy.core.function import AppliedUndef
    from sympy.matrices.expressions.matexpr import MatrixElement
    from sympy.physics.units import Quantity

    if e.atoms(sympy.Derivative):
        e = e.doit(integrals=False, sums=False, deep=True)  # d(x^2)/dt as 2 x dx/dt
    for kind in (sympy.Derivative, AppliedUndef, sympy.Indexed, MatrixElement, sympy.Symbol):
        found = {a: stand_in[name] for a in e.atoms(kind) if (name := _name(a, stand_in))}
        e = e.xreplace(found)
        if kind is not sympy.Symbol and (rest := e.atoms(kind)):
            _refuse(rest)  # before its argument is replaced: the derivative would become zero
    if rest := e.atoms(Quantity):
        raise ValueError(f"the expression has units ({_listed(rest)}); give plain numbers")
    if rest := e.free_symbols - set(stand_in.values()):
        _refuse(rest)
    return e


def _name(atom: Any, stand_in: Mapping[str, Any]) -> str:
    for name in (str(atom), getattr(atom, "name", "")):  # a Dummy prints with an underscore
        if name in stand_in:
            return name
    return ""


def _refuse(atoms: Any) -> None:
    raise ValueError(f"the expression has {_listed(atoms)}, which the question does not know")


def _listed(atoms: Any) -> str:
    return ", ".join(sorted(str(a) for a in atoms))[:200]


def _values(e: Any, arguments: list[Any], grid: list[np.ndarray], n: int) -> np.ndarray:
    """Real double precision first; complex where that has no value; sympy itself where not."""
    import sympy

    values = np.full(n, np.nan)
    try:
        f = sympy.lambdify(arguments, e, modules="numpy", cse=True)
    except Exception:  # what the printers raise for functions they do not know is not documented
        f = None
    for dtype in (float, complex):
        if f is None:
            break
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = np.asarray(f(*(x.astype(dtype) for x in grid)))
                values = values.astype(complex) + np.zeros(n)
        except Exception:
            continue
        if np.isfinite(values).all():
            return values
    rows = [dict(zip(arguments, row, strict=True)) for row in zip(*grid, strict=True)] or [{}] * n
    return np.array([_number(e, row) for row in rows])


def _number(e: Any, row: Mapping[Any, float]) -> complex:
    value = e.evalf(17, subs=row) if row else e.evalf(17)
    try:
        return complex(value)
    except TypeError:  # evalf keeps what subs alone resolves, such as a bound of an integral
        pass
    try:
        return complex(e.subs(row).doit().evalf(17))
    except TypeError:
        raise ValueError("the expression has no numerical value") from None


def _real(values: np.ndarray) -> np.ndarray:
    real, imag = np.real(values).astype(float), np.imag(values)
    size = np.abs(real[np.isfinite(real)]).max(initial=0.0)
    if (np.abs(imag) > 1e-9 * (1 + size)).any():
        raise ValueError("the expression has values that are not real")
    return real
