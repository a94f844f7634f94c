"""RK4 for sympy equations of motion as machine code: a trajectory that pays no Python per step.

numba is imported on first use, because that takes longer than importing all of the package.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import no_type_check

import numpy as np
import sympy
import torch
from sympy.printing.pycode import pycode

from companion._compile import evaluated


def machine_code(
    expressions: Sequence[sympy.Expr],
    symbols: Sequence[sympy.Symbol],
    parameters: Mapping[sympy.Symbol, float | int],
) -> Callable:
    """A compiled `f(y, out)` that writes the expressions at the values `y` of `symbols` to `out`.

    Both are float64 arrays, one entry an expression or symbol.
    """
    import numba

    shared, results = sympy.cse(
        evaluated(expressions, parameters), symbols=sympy.numbered_symbols("t_")
    )
    names = {s: sympy.Symbol(f"y_{i}") for i, s in enumerate(symbols)}
    lines = [f"y_{i} = y[{i}]" for i in range(len(symbols))]
    targets = [str(name) for name, _ in shared] + [f"out[{i}]" for i in range(len(results))]
    values = [*(value for _, value in shared), *results]
    for target, value in zip(targets, values, strict=True):
        lines.append(f"{target} = {pycode(value.xreplace(names))}")
    space: dict = {"math": math}  # the text is printed by sympy from expressions of a `System`
    exec("def f(y, out):\n    " + "\n    ".join(lines), space)
    return numba.njit(error_model="numpy")(space["f"])


def march(f: Callable, y: torch.Tensor, dt: float, steps: int, every: int) -> torch.Tensor:
    """RK4 trajectories of y' = f(y) from `y` `(..., D)`: states `(steps / every + 1, ..., D)`."""
    starts = y.detach().double().reshape(-1, y.shape[-1]).numpy()
    paths = np.empty((len(starts), steps // every + 1, starts.shape[1]))
    for start, path in zip(starts, paths, strict=True):
        _kernel()(f, start, float(dt), every, path)
    return torch.from_numpy(paths).movedim(0, 1).reshape(-1, *y.shape)


@cache
def _kernel() -> Callable:
    import numba

    return numba.njit(_rk4, nogil=True)


@no_type_check  # what checks types at run time cannot be compiled
def _rk4(f, start, dt, every, path):
    """Fills `path` `(k, D)` from `start` on, a state every `every` steps."""
    y = start.copy()
    path[0] = y
    stage = np.empty_like(y)
    k1, k2, k3, k4 = np.empty_like(y), np.empty_like(y), np.empty_like(y), np.empty_like(y)
    for block in range(1, len(path)):
        for _ in range(every):
            f(y, k1)
            for i in range(len(y)):
                stage[i] = y[i] + dt / 2 * k1[i]
            f(stage, k2)
            for i in range(len(y)):
                stage[i] = y[i] + dt / 2 * k2[i]
            f(stage, k3)
            for i in range(len(y)):
                stage[i] = y[i] + dt * k3[i]
            f(stage, k4)
            for i in range(len(y)):
                y[i] += dt / 6 * ((k1[i] + k4[i]) + 2 * (k2[i] + k3[i]))
        path[block] = y
