"""From sympy expressions to one batched torch function."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import sympy
import torch
from sympy.core.function import AppliedUndef


def _number(value: sympy.Expr | float | int) -> sympy.Expr:
    """A number to double precision: an Integer if it is one, else a Float that prints in full."""
    try:
        number = float(value)
    except TypeError as error:
        raise ValueError(f"expressions: {value} is not a real number") from error
    return sympy.Integer(int(number)) if number.is_integer() else sympy.Float(number, 17)


def _evaluate_numbers(expr: sympy.Expr) -> sympy.Expr:
    """Replace numeric parts such as ``sqrt(2)`` or ``1/3`` by their values.

    ``torch.sqrt(2)`` is an error. Rational exponents stay exact.
    """
    if expr.is_number:
        return _number(expr)
    if isinstance(expr, sympy.Pow) and expr.exp.is_Rational:
        base, exponent = cast(sympy.Expr, expr.base), cast(sympy.Expr, expr.exp)
        return _evaluate_numbers(base) ** exponent
    parts = (_evaluate_numbers(a) if isinstance(a, sympy.Expr) else a for a in expr.args)
    return cast(Callable[..., sympy.Expr], expr.func)(*parts) if expr.args else expr


def evaluated(
    expressions: Sequence[sympy.Expr], parameters: Mapping[sympy.Symbol, float | int]
) -> list[sympy.Expr]:
    """The expressions with the parameters' values in place, and every numeric part evaluated."""
    values = {s: _number(v) for s, v in parameters.items()}
    return [_evaluate_numbers(cast(sympy.Expr, e.xreplace(values))) for e in expressions]


def _flatten(expressions) -> tuple[list[sympy.Expr], tuple[int, ...]]:
    """The scalars of an expression or (nested) list, and its shape."""
    if isinstance(expressions, sympy.MatrixBase):
        expressions = expressions.tolist()
    if not isinstance(expressions, (list, tuple)):
        return [sympy.sympify(expressions)], ()
    parts = [_flatten(e) for e in expressions]
    shapes = {shape for _, shape in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"expressions: the entries have the shapes {sorted(shapes)}; expected a rectangular "
            "list, all rows equally long"
        )
    inner = shapes.pop() if shapes else ()
    return [e for flat, _ in parts for e in flat], (len(parts), *inner)


def _columns(arguments: Sequence, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors cut into one (...) tensor a symbol, after checking them against the arguments."""
    if len(tensors) != len(arguments):
        raise ValueError(
            f"expected {len(arguments)} tensors, one for each of {arguments}; got {len(tensors)}"
        )
    kinds = {(x.dtype, x.device) for x in tensors}
    if len(kinds) > 1 or not tensors[0].is_floating_point():
        found = ", ".join(f"{x.dtype} on {x.device}" for x in tensors)
        raise ValueError(
            f"expected floating-point tensors of one dtype on one device; got {found}. "
            "Convert them with .to(...)"
        )
    columns = []
    for names, x in zip(arguments, tensors, strict=True):
        if isinstance(names, sympy.Symbol):
            columns.append(x)
        elif x.ndim == 0 or x.shape[-1] != len(names):
            raise ValueError(
                f"expected a tensor of shape (..., {len(names)}) for the symbols {tuple(names)}; "
                f"got shape {tuple(x.shape)}"
            )
        else:
            columns.extend(x.unbind(-1))
    return columns


def to_torch(
    expressions,
    arguments: Sequence[Sequence[sympy.Symbol] | sympy.Symbol],
    parameters: Mapping[sympy.Symbol, float | int] | None = None,
) -> Callable[..., torch.Tensor]:
    """Compile expressions to one batched, differentiable torch function.

    Args:
        expressions: an expression, a list of n, or a nested list or Matrix of n x m.
        arguments: for each tensor argument the tuple of symbols along its last axis; a symbol alone
            stands for a tensor without that axis (the time, say).
        parameters: values for the remaining symbols.

    Returns:
        A function of ``len(arguments)`` tensors of shapes ``(..., len(tuple))`` whose leading
        shapes broadcast. It returns a tensor ``(...)`` for one expression, ``(..., n)`` for a list,
        ``(..., n, m)`` for a nested one, in the dtype and on the device of its inputs; constant
        entries fill the batch. It raises ValueError for tensors of another shape or of mixed
        dtypes or devices.

    Raises:
        ValueError: an expression holds a symbol that is neither an argument nor a parameter, an
            undefined function, an unevaluated derivative or a complex number; the lists are ragged.
    """
    flat, shape = _flatten(expressions)
    flat = evaluated(flat, parameters or {})
    symbols = [s for a in arguments for s in ([a] if isinstance(a, sympy.Symbol) else a)]
    unknown = set().union(*(e.free_symbols for e in flat)) - set(symbols)
    if unknown:
        raise ValueError(
            f"expressions: hold the symbols {sorted(map(str, unknown))}, which are neither in "
            f"arguments {symbols} nor in parameters; give them values there"
        )
    undefined = set().union(*(e.atoms(AppliedUndef, sympy.Derivative) for e in flat))
    if undefined:
        raise ValueError(
            f"expressions: hold {sorted(map(str, undefined))}, which have no values; substitute "
            "definite functions and call .doit() first"
        )
    compiled = sympy.lambdify(symbols, flat, modules="torch", cse=True, dummify=True)

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        columns = _columns(arguments, tensors)
        batch = torch.broadcast_shapes(*(c.shape for c in columns))
        entries = [
            x.expand(batch)
            if isinstance(x, torch.Tensor)
            else columns[0].new_tensor(x).expand(batch)
            for x in compiled(*columns)
        ]
        if not entries:
            return columns[0].new_empty(tuple(batch) + shape)
        if shape == ():
            return entries[0]
        return torch.stack(entries, dim=-1).reshape(tuple(batch) + shape)

    return function
