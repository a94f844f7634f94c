r"""Derivatives of measured positions: finite differences, and polynomials through the neighbours.

A difference quotient divides the noise by the time step. A polynomial through many points divides
it by the width of its window, and pays with a bias where the motion bends faster than the
polynomial can.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from companion.datasets import check_finite


def differences(
    t: Float[Tensor, " N"], x: Float[Tensor, "N D"], one_sided: bool = False
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n D"], Float[Tensor, "n D"]]:
    r"""Times, values and central differences $(x_{i+1} - x_{i-1})/(t_{i+1} - t_{i-1})$.

    n = N - 2: the ends have none. With `one_sided` they are $(x_{i+1} - x_i)/(t_{i+1} - t_i)$, half
    a step late, and n = N - 1.
    """
    if one_sided:
        return t[:-1], x[:-1], x.diff(dim=0) / t.diff()[:, None]
    return t[1:-1], x[1:-1], (x[2:] - x[:-2]) / (t[2:] - t[:-2])[:, None]


@dataclass(frozen=True)
class Smooth:
    r"""What `local_polynomial` returns: times `t` `(n,)`; `x`, `xdot`, `xddot` `(n, D)`; and
    `gain` `(n, 3)`: noise of standard deviation $\sigma$ in the data leaves gain times $\sigma$ in
    each of the three.
    """

    t: Tensor
    x: Tensor
    xdot: Tensor
    xddot: Tensor
    gain: Tensor


def local_polynomial(
    t: Shaped[Tensor, "..."], x: Shaped[Tensor, "..."], half_width: float, degree: int
) -> Smooth:
    r"""Values and two derivatives by least squares: a polynomial through the points nearby.

    At each time $t_i$ at least `half_width` from both ends, a polynomial in $t - t_i$ is fitted to
    all points within `half_width`; its coefficients are the value, $\dot x$ and $\ddot x / 2$.
    Points need not be evenly spaced (Savitzky and Golay 1964, where they are).

    Args:
        t: increasing times `(N,)`.
        x: values `(N, D)`.
        half_width: of the window, in the unit of t.
        degree: of the polynomial, 2 or more.

    Times with `degree` or fewer points in the window, beside a gap, are left out.

    Raises:
        ValueError: t is not `(N,)` or x not `(N, D)`, not finite, a degree below 2, or no time with
            enough points around it.
    """
    if t.dim() != 1 or x.dim() != 2 or len(x) != len(t) or degree < 2:
        raise ValueError(
            f"t, x, degree: got shapes {tuple(t.shape)} and {tuple(x.shape)} and {degree}; "
            "expected (N,), (N, D) and 2 or more"
        )
    check_finite(t=t, x=x)
    slack = 1e-6 * half_width  # a point at the very edge belongs to the window
    near = (t - t[:, None]).abs() <= half_width + slack
    inside = (t - t[0] >= half_width - slack) & (t[-1] - t >= half_width - slack)
    rows = (inside & (near.sum(1) > degree + 1)).nonzero()[:, 0].tolist()
    if not rows:
        raise ValueError(
            f"half_width = {half_width}, degree = {degree}: no time has more than {degree + 1} "
            f"points within reach on both sides; {len(t)} points span {(t[-1] - t[0]).item():.3g}"
        )
    scale = torch.tensor([1.0, 1 / half_width, 2 / half_width**2], dtype=x.dtype).to(x)
    out, gain = [], []
    for i in rows:
        s = ((t[near[i]] - t[i]) / half_width)[:, None]
        weights = torch.linalg.pinv(s ** torch.arange(degree + 1).to(x))[:3] * scale[:, None]
        out.append(weights @ x[near[i]])
        gain.append(weights.norm(dim=1))
    value, rate, bend = torch.stack(out).unbind(1)
    return Smooth(t[rows], value, rate, bend, torch.stack(gain))
